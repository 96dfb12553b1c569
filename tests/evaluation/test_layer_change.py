"""Which layers changed, from the weights of a finished experiment to its page."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from safetensors.numpy import load_file
from transformers.models.llama.modeling_llama import LlamaAttention

from configs.schema import EvalConfig
from src.common.errors import UserError
from src.evaluation.change.layer_change import MEASURES, depth_table, layers_table
from src.reports.figures.layer_change import change_by_layer
from src.reports.figures.style import STYLE
from src.runs.folders import read_run
from src.runs.freed import free_weights
from tests.tiny_experiment import in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data, train_all


def asked(tiny, results, question="layer_change", *options):
    return in_process("src.analysis", "--what", question, "--experiment", str(tiny.config),
                      *tiny.folders, "--results_dir", str(results), *options)


def test_every_layer_of_every_run_is_beside_itself_untrained(finished, tmp_path, capsys):
    asked(finished, tmp_path)
    folder = tmp_path / "layer_change" / "tiny"
    layers, depth = (pd.read_csv(folder / f"{name}.csv") for name in ("layers", "depth"))
    assert set(layers.role) == {"teacher", "ceiling", "student"} and set(layers.seeds) == {"0 1"}
    assert layers.groupby(["role", "name", "teacher"], dropna=False).layer.max().max() == 4
    for measure in ("states", "direction", "weights"):
        assert (layers[measure] > 0).all() and (layers[f"{measure}_low"] <= layers[measure]).all()
    assert len(depth) == 3 * layers.groupby(["role", "name", "teacher"], dropna=False).ngroups
    assert depth[depth.name.str.endswith("L1")].slope.isna().all()  # one layer has no depth
    page = (folder / "report.md").read_text()
    assert "deeper layers changed more in" in page and "By weights" in capsys.readouterr().out
    for name in ("layers", "tsne"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000


def test_weights_moved_by_what_the_files_say(finished, tmp_path):
    asked(finished, tmp_path)
    layers = pd.read_csv(tmp_path / "layer_change" / "tiny" / "layers.csv")
    row = layers[(layers.role == "ceiling") & (layers.layer == 1)].iloc[-1]  # four layers, all kept
    base, ratios = load_file(finished.model / "model.safetensors"), []
    for folder in finished.finished("ceilings"):
        if len(read_run(folder).kept) == 4:
            own = load_file(folder / "model.safetensors")
            names = [name for name in own if ".layers.0." in name]
            moved, length = (np.sqrt(sum((each[name].astype(float) ** 2).sum() for name in names))
                             for each in ({n: own[n] - base[n] for n in names}, base))
            ratios.append(moved / length)
    assert row.weights == pytest.approx(np.mean(ratios), rel=1e-5)


def test_weights_that_were_freed_are_asked_for_by_the_remedy(finished, tmp_path):
    tiny = finished.copy("freed")
    folder = tiny.finished("teachers")[0]
    free_weights(folder, read_run(folder).identity)
    with pytest.raises(UserError, match="freed.*delete the folder and train the run again"):
        asked(tiny, tmp_path)
    assert not list(tmp_path.iterdir())


def test_layers_that_could_not_change_do_not_make_deeper_ones_change_more():
    """Three frozen layers below two that train, of which the deeper one changes less."""
    plan = SimpleNamespace(experiment=SimpleNamespace(name="tiny"))
    key, measures = ("student", "L5", "L2"), ("states", "direction", "weights")
    changes = {key: [(seed, dict.fromkeys(measures, np.array([0, 0, 0, 0.3, 0.2 + seed / 100])))
                     for seed in range(3)]}
    depth = depth_table(plan, changes, {key: 3}, EvalConfig())
    assert depth.slope.to_list() == pytest.approx([-0.09] * 3)
    assert (depth.deeper_changes_more == "no").all() and (depth.trained_layers == 2).all()
    assert (depth_table(plan, changes, {key: 0}, EvalConfig()).deeper_changes_more == "yes").all()
    layers = layers_table(plan, changes, {key: 3}, EvalConfig())
    assert layers.trained.to_list() == [False] * 3 + [True] * 2


def test_frozen_layers_run_once_for_all_runs_and_nothing_else_changes(tmp_path, monkeypatch):
    """Both analyses that need weights, beside what they say when every layer of every run runs."""
    tiny = make_experiment(tmp_path / "tiny", rows=90, train_pairs=16, layers=([2, 3], [3, 4]),
                           seeds=[0, 1], train={"trainable_layers": 1})
    prepare_data(tiny)
    train_all(tiny)
    asked(tiny, tmp_path / "scored", "degradation")  # reads the test pairs with every run
    passes, attend = [], LlamaAttention.forward

    def counted(layer, hidden_states, *args, **kwargs):
        passes.append(len(hidden_states))  # rows: a loaded model is tried on a few of its own
        return attend(layer, hidden_states, *args, **kwargs)

    monkeypatch.setattr(LlamaAttention, "forward", counted)

    def tables(results):
        passes.clear()
        for question in ("layer_change", "degradation"):
            asked(tiny, results, question)
        return [pd.read_csv(path) for path in sorted(results.rglob("*.csv"))], sum(passes)

    own, passed = tables(tmp_path / "own")
    monkeypatch.setattr("src.evaluation.change.before_after.equal_layers", lambda *models: 0)
    every, all_passed = tables(tmp_path / "every")
    for table, other in zip(own, every, strict=True):
        pd.testing.assert_frame_equal(table, other, check_exact=False, rtol=1e-6, atol=1e-9)
    assert passed < all_passed / 2


def test_many_models_fit_into_the_picture_and_begin_where_they_train():
    """Thirty-three models, as many as a real experiment had, whose top two layers train."""
    rows = [{"role": role, "name": f"a_model_of_135m-F{layers}", "teacher": teacher,
             "layer": layer + 1, "trained": layer >= layers - 2,
             **{f"{name}{end}": 0.5 for name in MEASURES for end in ("", "_low", "_high")}}
            for layers in (4, 8, 12, 16, 20, 24, 30)
            for role, teacher in (("teacher", None), ("ceiling", None), ("student", "a"),
                                  ("student", "b"), ("student", "c"))
            for layer in range(layers)][:-60]
    with matplotlib.rc_context(STYLE):
        figure, _, caption = change_by_layer(pd.DataFrame(rows), "many", MEASURES, 0.95)
        figure.draw_without_rendering()
    assert "Layers before a line begins did not train." in caption
    assert all(len(panel.lines) == 33 for panel in figure.axes)
    for line in (line for panel in figure.axes for line in panel.lines):
        first, last = line.get_xdata()
        assert last - first == pytest.approx(1) and abs(last - round(last)) < 0.5
    for words in figure.findobj(Text):
        box = words.get_window_extent()
        assert not words.get_text() or Bbox.intersection(figure.bbox, box).bounds == box.bounds
