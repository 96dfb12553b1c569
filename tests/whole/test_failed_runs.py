"""A run that fails costs the next ones nothing: neither time nor memory."""

import weakref

import torch

from src.batches.finite import NonFiniteLossError
from src.train import train_stage
from src.training.trainer import PairTrainer
from tests.tiny_experiment import make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of


def test_two_failing_runs_leave_no_tensor_alive(tmp_path, monkeypatch, capsys):
    """Both fail in their third step, when there are weights, gradients and an optimiser's state:
    one as a GPU that is full does, one as the trainer itself does, each after an earlier error."""
    tiny = make_experiment(tmp_path, rows=130, train_pairs=48, layers=([1, 2], [2]))
    prepare_data(tiny)
    errors = [torch.OutOfMemoryError("out of memory"), NonFiniteLossError("not finite")]
    seen, fails, step = [], [], PairTrainer.training_step

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = step(self, model, inputs, num_items_in_batch)
        if self.state.global_step == 2:
            tensors = [*model.parameters(), *(p.grad for p in model.parameters()), loss,
                       *(value for state in self.optimizer.state.values()
                         for value in state.values() if torch.is_tensor(value))]
            seen.extend(map(weakref.ref, [self, model, self.optimizer.optimizer, *tensors]))
            try:
                raise ValueError("what came before")
            except ValueError:
                raise errors[len(fails)] from None
            finally:
                fails.append(len(seen))
        return loss

    monkeypatch.setattr(PairTrainer, "training_step", training_step)
    failed = train_stage(sweep_of(tiny), "teachers", tiny.runs_dir, 0, 1)
    assert [type(error) for _, error in failed] == [torch.OutOfMemoryError, NonFiniteLossError]
    assert len(fails) == 2 and fails[1] > fails[0] > 40
    assert [ref() for ref in seen if ref() is not None] == []
    assert "FAILED, out of memory" in capsys.readouterr().out
