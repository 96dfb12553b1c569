"""Two of every command at once: neither fails, nothing is left over, all bytes are as of one."""

import os
import sys
import traceback

from tests.tiny_experiment import TinyExperiment, make_experiment
from tests.whole.test_full_disk import call, commands, leftovers, outcome, run_all


def forked(module: str, words: list[str]) -> int:
    """Process number of a child that runs a command; its exit code is the command's."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code, errors = call(module, words)
            if code:
                print(module, words, errors, file=sys.stderr)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def test_two_of_every_command_at_once_neither_fail_nor_leave_anything(tmp_path):
    tiny = make_experiment(tmp_path, rows=130, train_pairs=32, layers=([2], [2]),
                           train={"epochs": 2, "trainable_layers": 1},
                           runtime={"save_steps": 2}, eval={"bootstrap_samples": 100})
    alone, both = TinyExperiment(tmp_path, "alone"), TinyExperiment(tmp_path, "both")
    for each in (alone, both):
        each.write_config(tiny.settings())
    expected = run_all(alone, False)
    for module, words, _ in commands(both):
        words = [str(both.finished("teachers")[0]) if word == "TEACHER" else word for word in words]
        children = [forked(module, words) for _ in range(2)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert codes == [0, 0], (module, words)
        assert not leftovers(both), (module, words, leftovers(both))
    found = outcome(both)
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    assert not [name for name in found if found[name] != expected[name]]
