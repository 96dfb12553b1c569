"""A Trainer that resumes as if it had never been stopped: in its weights and every logged number.

What transformers 5.24 leaves out of a checkpoint, or does not read back, and what came of it:

    the loss since the last log     the first loss logged after a resume lacked those steps
    that training had ended         it took a step more, past the early stop or the last step
    how long it had trained         estimates from the last part of a run were far too short
    where the best checkpoint lies  in a folder that was moved, the last weights passed for the best

Training that is asked to end saves first: SIGTERM is what Slurm sends before it kills a job that
was cancelled, preempted or is out of time. transformers' `enable_jit_checkpoint` saves too, but
each rank when its own signal arrives: ranks at one step would wait for those at the next.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from src.common import distributed

PROGRESS = "Progress"
"""Where trainer_state.json keeps it, among what callbacks keep there."""
EXIT_STOPPED = 128 + signal.SIGTERM
_asked = threading.Event()
_looking = threading.Lock()
"""Whoever has taken a signal out of the pipe has noted it before another looks."""
_pipe = os.pipe()
"""Gets a byte for every signal as it comes; Python's handlers wait for the end of a long call."""
for _end in _pipe:
    os.set_blocking(_end, False)


class ResumableTrainer(Trainer):
    """Wants `restore_callback_states_from_checkpoint` in its arguments: early stopping counts the
    evaluations without gain, and would count them from 0 again."""

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a resume with them."""
        return time.monotonic() - self._began

    def _save_checkpoint(self, model, trial) -> None:
        self.state.stateful_callbacks[PROGRESS] = {
            "losses_of_rank": distributed.gather(self._tr_loss.item()),
            "last_logged": self._globalstep_last_logged,
            "seconds": self.seconds}
        super()._save_checkpoint(model, trial)

    def _init_training_state(self, *args, **kwargs) -> tuple[int, int]:
        place = super()._init_training_state(*args, **kwargs)
        self._began = time.monotonic() - self.state.stateful_callbacks.get(PROGRESS, {}).get(
            "seconds", 0.0)
        if self.state.best_global_step:
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(Path(self.args.output_dir) / name)
        return place

    def _run_epoch(self, *, epoch, epochs_trained, resume_from_checkpoint, **kwargs) -> None:
        if resume_from_checkpoint is not None and epoch == epochs_trained:
            self._take_up()
            if self._had_ended():
                self.control.should_training_stop = True
                return
        super()._run_epoch(epoch=epoch, epochs_trained=epochs_trained,
                           resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _take_up(self) -> None:
        """The loss since the last log, where the checkpoint holds it."""
        progress = self.state.stateful_callbacks.get(PROGRESS)
        if progress is not None:
            self._tr_loss += progress["losses_of_rank"][distributed.rank()]
            self._globalstep_last_logged = progress["last_logged"]

    def _had_ended(self) -> bool:
        """Whether the checkpoint is of the step after which training stopped."""
        control = self.state.stateful_callbacks.get("TrainerControl", {})
        return (control.get("args", {}).get("should_training_stop", False)
                or self.state.global_step >= self.state.max_steps)


def is_asked() -> bool:
    """Whether SIGTERM has come since training began."""
    with _looking, suppress(BlockingIOError):
        if signal.SIGTERM in os.read(_pipe[0], 256):
            _asked.set()
    return _asked.is_set()


@contextmanager
def saving_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends nothing at once: SaveAndStop does at the end of a step. What comes too
    late for that ends the process here."""
    wakeup = signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGTERM, lambda number, frame: None)  # never without the pipe
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.set_wakeup_fd(wakeup)
    if is_asked():
        raise SystemExit(EXIT_STOPPED)


class SaveAndStop(TrainerCallback):
    """Once any rank is asked to end, all of them save at the end of the same step, and end."""

    def __init__(self, name: str):
        self.name, self.stopping = name, False

    def on_step_end(self, args, state, control, **kwargs):
        if distributed.any_true(torch.tensor(is_asked())):
            self.stopping = control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.stopping:
            distributed.barrier()  # until every rank has saved
            distributed.say(f"{self.name}: asked to end, saved at step {state.global_step} of "
                            f"{state.max_steps}")
            raise SystemExit(EXIT_STOPPED)
