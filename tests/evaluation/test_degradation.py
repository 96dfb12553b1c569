"""Lost skill and inherited errors, from a finished experiment to its page."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from src.runs.folders import read_run
from src.runs.freed import free_weights
from tests.evaluation.test_layer_change import asked
from tests.tiny_experiment_parts import sweep_of


@pytest.fixture(scope="module")
def scored(finished):
    """The experiment, a copy that may be written to, with every run scored."""
    return finished.copy("degraded")


def tables(tiny, results):
    asked(tiny, results, "degradation")
    folder = results / "degradation" / "tiny"
    return [pd.read_csv(folder / f"{name}.csv") for name in ("students", "cells")], folder


def test_every_student_has_its_errors_nats_and_distance(scored, tmp_path, capsys):
    (students, cells), folder = tables(scored, tmp_path)
    assert len(students) == 8 and len(cells) == 4 and set(cells.seeds) == {"0 1"}
    assert students[["inherited", "nats_before", "nats", "moved"]].notna().all().all()
    assert (students.moved > 0).all()
    np.testing.assert_allclose(students.nats - students.nats_before, students.nats_lost)
    assert "## What PGR goes with" in (folder / "report.md").read_text()
    assert (folder / "figures" / "degradation.png").stat().st_size > 10_000
    assert "nats lost" in capsys.readouterr().out


@torch.no_grad()
def test_nats_are_those_of_the_library_s_states_under_the_base_s_head(scored, tmp_path):
    (students, _), _ = tables(scored, tmp_path)
    head = AutoModelForCausalLM.from_pretrained(scored.model).lm_head
    split = sweep_of(scored).prepared.split(
        next(iter(sweep_of(scored).bases.values())).tokenizer_key, "test")
    folder = scored.finished("students")[0]
    run, trunk = read_run(folder), AutoModel.from_pretrained(folder).eval()
    nats = tokens = 0
    for row in range(len(split)):  # all of them: fewer than are drawn
        for side in ("chosen_ids", "rejected_ids"):
            prompt, answer = split[row]["prompt_ids"], split[row][side]
            ids = torch.tensor([[*prompt, *answer]])
            odds = head(trunk(ids).last_hidden_state)[0, len(prompt) - 1:-1]
            nats += float(torch.nn.functional.cross_entropy(odds, ids[0, len(prompt):],
                                                            reduction="sum"))
            tokens += len(answer)
    own = students[(students.student == run.name) & (students.teacher == run.teacher)
                   & (students.seed == run.seed)]
    assert own.nats.item() == pytest.approx(nats / tokens, rel=1e-5)


def test_freed_weights_leave_nats_out_and_say_so(scored, tmp_path, capsys):
    tables(scored, tmp_path)  # has them scored
    for folder in scored.finished("students"):
        free_weights(folder, read_run(folder).identity)
    (students, cells), folder = tables(scored, tmp_path)
    assert students.inherited.notna().all() and students.nats_lost.isna().all()
    assert cells.moved.isna().all()
    assert "8 of 8 students were freed" in (folder / "report.md").read_text()
    assert "8 of 8 students were freed" in capsys.readouterr().out
