"""What the page says of experts and of activations, held against the rows it was made from."""

import json

import numpy as np
import pytest

from spectrain import report
from spectrain.report._sections.experts import experts, taken
from spectrain.report._sections.overview import activations


@pytest.fixture
def run(run_folder):
    return report.read(run_folder)


def rewritten(folder, change):
    """The run with every line of its metrics changed."""
    path = folder / "metrics.jsonl"
    lines = [change(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return report.read(folder)


def test_curves_of_each_layer_in_training_and_on_held_out_text(run):
    curves, _ = experts([run]).figures
    assert sorted(curves.views) == [(0,), (1,)]
    for trace, layer in zip(curves.views[1,].traces, (0, 1), strict=True):
        assert trace["y"] == [row[f"moe_max_violation.{layer}"] for row in run.evals]
    last = [run.evals[-1][f"moe_max_violation.{layer}"] for layer in (0, 1)]
    assert curves.views[1,].title == f"MaxVio on held-out text ended at {min(last):.3g} to {max(last):.3g}"


@pytest.mark.parametrize("steps", [1, 20, 120, 500])
def test_the_heat_map_holds_the_loads_in_mean_loads(make_run, tmp_path, steps):
    run = report.read(make_run(tmp_path / "run", steps=steps, every=max(1, steps // 4)))
    _, heat = experts([run]).figures
    for layer in (0, 1):
        (trace,) = heat.views[layer,].traces
        counts = np.array([row["moe_loads"][layer] for row in run.steps], dtype=float)
        drawn = np.array(trace["z"])
        assert drawn.shape[1] == len(trace["x"]) <= 120
        for column, start in enumerate(trace["x"]):
            stop = trace["x"][column + 1] if column + 1 < len(trace["x"]) else steps + 1
            part = counts[int(start) - 1 : int(stop) - 1].sum(0)
            np.testing.assert_allclose(drawn[:, column], part / part.mean(), rtol=1e-12)


def test_damaged_loads_are_left_out(run_folder):
    broken = {3: None, 5: [[1, 2]], 6: [[], []], 7: [["many", 1, 1, 1], [1, 1, 1, 1]], 9: "loads", 11: [[0] * 4] * 2}
    run = rewritten(run_folder, lambda row: row | {"moe_loads": broken.get(row["step"], row.get("moe_loads"))})
    (trace,) = experts([run]).figures[1].views[0,].traces
    assert {3, 5, 6, 7, 9}.isdisjoint(trace["x"])
    assert np.isfinite(np.array(trace["z"])).all()


def test_without_loads_the_curves_remain_and_a_dense_run_has_no_section(run_folder):
    run = rewritten(run_folder, lambda row: {k: v for k, v in row.items() if k != "moe_loads"})
    assert [fig.name for fig in experts([run]).figures] == ["max-violation"]
    run = rewritten(run_folder, lambda row: {k: v for k, v in row.items() if not k.startswith("moe")})
    assert experts([run]) is None
    run = rewritten(run_folder, lambda row: row | {"kind": "other" if row["kind"] == "activation" else row["kind"]})
    assert activations([run]) is None


def test_activations_are_rows_of_a_map(run):
    (fig,) = activations([run]).figures
    shown = fig.controls[-1][1]
    (trace,) = fig.views[shown.index("rms"),].traces
    assert trace["y"] == ["blocks.0.attention", "blocks.0.feed_forward", "norm"]
    steps = sorted({row["step"] for row in run.activations})
    assert trace["x"] == steps
    assert trace["customdata"][2] == [3.0 + 0.01 * step for step in steps]


def test_experts_a_token_and_penalty_are_drawn_where_there_are_any(run_folder):
    def change(row):
        more = {"moe_experts_a_token.0": 2.25, "moe_experts_a_token.1": 1.75, "moe_penalty": 0.02}
        return row | more if row["kind"] == "step" else row

    figures = {fig.name: fig for fig in experts([rewritten(run_folder, change)]).figures}
    assert list(figures) == ["max-violation", "experts-a-token", "experts-penalty", "expert-loads"]
    (view,) = figures["experts-a-token"].views.values()
    assert view.title == "A token took 1.75 to 2.25 experts on average at the end"
    (view,) = figures["experts-penalty"].views.values()
    assert view.title == "The auxiliary loss ended at 0.02"
    one = rewritten(run_folder, lambda row: {k: v for k, v in row.items() if k != "moe_experts_a_token.1"})
    (view,) = taken([one]).views.values()
    assert view.title == "A token took 2.25 experts on average at the end"
