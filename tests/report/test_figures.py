"""What the figures and their titles say, held against numbers worked out from the files in another way."""

import json
import math

import numpy as np
import pytest

from spectrain import report
from spectrain.report._drawing.series import MOST_POINTS, front, running_mean, series, thin
from spectrain.report._headline import headline, title
from spectrain.report._page import sections
from spectrain.report._sections.compare import comparison, of_runs, verdict
from spectrain.report._sections.curves import gradient_norm, learning_rate, progress
from spectrain.report._sections.horizons import horizons
from spectrain.report._sections.polynomials import alternates, alternation, composed, polynomials, step_error
from spectrain.report._sections.routing import group, routing, sentence
from spectrain.report._sections.settings import configuration, samples
from spectrain.report._sections.spectra import spectra
from spectrain.report._sections.time import share, speed


@pytest.fixture
def run(run_folder):
    return report.read(run_folder)


@pytest.fixture
def runs(comparison_folder):
    return [report.read(path) for path in sorted(comparison_folder.glob("*-*"))]


def lines_of(run_folder, kind):
    rows = map(json.loads, (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["kind"] == kind]


def named(view, name):
    return next(trace for trace in view.traces if trace["name"] == name)


def test_progress_draws_the_validation_in_four_views(run_folder, run):
    fig = progress([run])
    assert sorted(fig.views) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    rows = lines_of(run_folder, "eval")
    for (measure, against), view in fig.views.items():
        drawn = named(view, "validation")
        assert drawn["y"] == [row[("bits_per_byte", "loss")[measure]] for row in rows]
        assert drawn["x"] == [row[("tokens", "seconds")[against]] for row in rows]
    first, last = rows[0]["bits_per_byte"], rows[-1]["bits_per_byte"]
    assert fig.first.title == f"Validation went from {first:.4g} to {last:.4g} bits per byte"
    assert set(named(fig.first, "xz -6 on the validation text")["y"]) == {2.04}
    assert "bits per byte" in fig.views[0, 0].layout["yaxis"]["title"]["text"]
    assert "nats" in fig.views[1, 0].layout["yaxis"]["title"]["text"]


def test_a_long_run_is_shown_in_minutes(make_run, tmp_path):
    run = report.read(make_run(tmp_path / "long", steps=600, every=300))
    view = progress([run]).views[0, 1]
    assert view.layout["xaxis"]["title"]["text"] == "time (minutes)"
    assert named(view, "validation")["x"] == pytest.approx([120.4 / 60, 240.4 / 60])


def test_the_learning_rate_title_names_the_peak(run):
    assert learning_rate([run]).first.title.startswith("The learning rate peaked at 0.002 in step 12 and ended at ")


def test_the_gradient_norm_title_names_median_and_spike(run_folder):
    with (run_folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": "step", "step": 121, "grad_norm": 77.5}) + "\n")
    norms = [row["grad_norm"] for row in lines_of(run_folder, "step")]
    found = gradient_norm([report.read(run_folder)]).first.title
    assert found == f"Median gradient norm {np.median(norms):.3g}, largest 77.5 in step 121"


def test_the_optimizer_share_is_a_ratio_of_sums(run_folder):
    (run_folder / "summary.json").unlink()
    rows = lines_of(run_folder, "step")
    expected = sum(row["optimizer_seconds"] for row in rows) / sum(row["step_seconds"] for row in rows)
    run = report.read(run_folder)
    assert share(run) == pytest.approx(expected, rel=1e-12)
    view = speed([run]).figures[0].first
    assert f"{100 * expected:.2g} % of all step time is Muon" in view.title
    assert named(view, "optimizer")["y"][7] == pytest.approx(1e3 * rows[7]["optimizer_seconds"])


def test_spectra_draw_every_quantile_and_a_flat_spectrum_looks_flat(run_folder, run):
    bands, overview = spectra([run]).figures
    rows = [row for row in lines_of(run_folder, "spectrum") if row["name"] == "blocks.0.attention.query.weight"]
    for kind, index in (("weight", 0), ("update", 1), ("momentum", 2)):
        view = bands.views[0, index]
        assert [trace["y"] for trace in view.traces] == [
            list(column) for column in zip(*(r[kind] for r in rows), strict=True)
        ]
        low, high = view.layout["yaxis"]["range"]
        assert high - low >= math.log10(4) - 1e-12
    assert bands.controls[0][1][0] == "blocks.0.attention.query.weight"
    assert len(bands.controls[0][1]) == 28
    heat = overview.views[(0,)].traces[0]
    assert [row["update_to_weight"] for row in rows] == heat["z"][0]


def test_routing_groups_repeated_layers_and_counts_parameters(run):
    groups = group(run.routing)
    assert [(name, count) for name, count, _ in groups][:2] == [
        ("blocks.0…3.attention.query.weight", 4),
        ("blocks.0…3.attention.key.weight", 4),
    ]
    assert sum(count for _, count, _ in groups) == len(run.routing) == 34
    assert len(groups) == 7 + 1 + 2
    muon, adamw = 28 * 256 * 256, 4 * 256 + 2 * 512 * 256
    said = sentence(run.routing)
    assert f"28 tensors with {muon / 1e6:.3g} M parameters ({100 * muon / (muon + adamw):.2g} %)" in said
    assert said in routing([run]).parts[0]


def test_layers_that_went_elsewhere_stay_apart():
    rows = [{"name": f"blocks.{i}.w", "algorithm": "AdamW" if i == 2 else "Muon"} for i in range(4)]
    assert [(name, count) for name, count, _ in group(rows)] == [("blocks.{0,1,3}.w", 3), ("blocks.2.w", 1)]


def with_coefficients(change):
    return lambda step: {**step, "coefficients": [change(i, c) for i, c in enumerate(step["coefficients"])]}


NOT_BEST = {
    "the Newton-Schulz cubic": lambda step: {**step, "coefficients": [1.5, -0.5]},
    "a coefficient off by 3 %": with_coefficients(lambda i, c: c * 1.03 if i == 0 else c),
    "a reference point moved": lambda step: {**step, "reference": [step["reference"][0], 0.9, step["reference"][2]]},
    "a reference point missing": lambda step: {**step, "reference": step["reference"][1:]},
    "the same sign twice": lambda step: {**step, "reference": [step["reference"][0]] * 2 + [step["reference"][2]]},
    "no reference": lambda step: {**step, "reference": []},
}


def says_best(step):
    return "alternating at 3 points" in step_error(step, "name", 1).first.title


def test_alternation_is_seen_in_the_best_cubic(run):
    for step in run.schedules[0]["steps"]:
        assert says_best(step)
        _, errors = alternation(step)
        assert alternates(errors)
        np.testing.assert_allclose(np.abs(errors), step["error"], rtol=1e-6)
        marks = step_error(step, "name", 1).first.traces[-1]
        assert len(marks["x"]) == 3


@pytest.mark.parametrize("spoil", NOT_BEST.values(), ids=NOT_BEST)
def test_alternation_is_not_claimed_for_others(run, spoil):
    assert not says_best(spoil(run.schedules[0]["steps"][0]))


def test_the_composed_map_is_the_composition(run):
    schedule = run.schedules[0]
    fig = composed(schedule, schedule["steps"], "map")
    x = np.linspace(0.02, 1.0, 200_001)
    for step in schedule["steps"]:
        a, b = step["coefficients"]
        x = x * (a + b * x * x)
    assert f"within {np.abs(x - 1).max():.3g} of 1" in fig.first.title.replace("e-7", "e-07")
    last = fig.first.traces[-1]
    at_one = last["y"][-1]
    assert (last["x"][-1], at_one) == (pytest.approx(1.0), pytest.approx(x[-1], abs=1e-12))


def test_a_schedule_that_overflows_says_so(run):
    schedule = run.schedules[0]
    wild = [{"powers": [1, 3], "coefficients": [1e200, 1e200]}] * 4
    assert "overflow" in composed(schedule, wild, "map").first.title


def test_tiny_intervals_are_drawn_around_one(cubic):
    (a, b), error, reference = cubic(1 - 1e-6, 1 + 1e-6)
    step = {
        "powers": [1, 3],
        "coefficients": [a, b],
        "interval": [1 - 1e-6, 1 + 1e-6],
        "error": error,
        "reference": reference,
    }
    view = step_error(step, "name", 1).first
    assert view.layout["xaxis"]["title"]["text"] == "singular value in, minus 1"
    drawn = next(trace for trace in view.traces if trace["name"] == "p(x) - 1")
    assert max(drawn["x"]) == pytest.approx(1e-6, rel=1e-6)


def test_equal_schedules_of_several_runs_are_shown_once(runs):
    assert len(runs) == 4
    assert len([fig for fig in polynomials(runs).figures if fig.name.endswith("map")]) == 1


def test_the_best_run_of_each_optimizer_is_in_front(runs):
    best = [
        min((r for r in runs if r.optimizer == kind), key=lambda r: r.summary["bits_per_byte"])
        for kind in ("Muon", "AdamW")
    ]
    assert front(runs) == best
    assert len({one.color for one in series(runs)}) == 2


def test_the_sweep_draws_each_run_and_the_best_rates(comparison_folder, runs):
    found = json.loads((comparison_folder / "compare.json").read_text(encoding="utf-8"))
    (fig,) = comparison(found).figures
    drawn = sum(len(trace["x"]) for trace in fig.first.traces if trace["mode"] == "markers")
    assert drawn == len(found["rows"]) == 4
    for row in comparison(of_runs(runs)).figures[0].first.traces:
        assert set(row["x"]) == {1e-3, 2e-3}


def compared_at(horizon, ratio, seconds, bound=None):
    against = {"ratio": ratio, "ratio_low": ratio and ratio - 0.1, "ratio_high": ratio and ratio + 0.2,
               "ratio_at_least": bound or ratio, "seconds_ratio": seconds}  # fmt: skip
    return {"horizon": horizon, "tables": {"best": {"target": 2.0, "against": {"muon": against}}}}


def test_ratios_are_drawn_against_the_horizon_with_their_intervals():
    section = horizons([compared_at(640, 0.7, 0.75), compared_at(160, 0.6, 0.66), compared_at(2560, None, None, 0.9)])
    (fig,) = section.figures
    assert fig.controls == [("table", ["each at its best"]), ("cost", ["tokens", "seconds"])]
    tokens, bound = fig.views[0, 0].traces
    assert (tokens["x"], tokens["y"]) == ([160, 640], [0.6, 0.7])
    assert tokens["error_y"]["array"] == pytest.approx([0.2, 0.2])
    assert tokens["error_y"]["arrayminus"] == pytest.approx([0.1, 0.1])
    assert (bound["x"], bound["y"], bound["marker"]["symbol"]) == ([2560], [0.9], "triangle-up")
    assert fig.views[0, 1].traces[0]["y"] == [0.66, 0.75]
    assert fig.first.title == "Share of AdamW's tokens after 2,560 steps: Muon at least 0.9"
    assert horizons([compared_at(640, 0.7, 0.75)]) is None


def test_of_several_comparisons_the_page_shows_the_longest_and_how_they_go_on(runs):
    found = [*sections(runs, compared=[compared_at(640, 0.7, 0.8), compared_at(160, 0.6, 0.7)])]
    assert [section.name for section in found[:1]] == ["horizons"]


def test_a_comparison_that_failed_says_so():
    assert "did not reach" in verdict({"target": 1.5, "ratio": None})
    assert verdict({"rows": [{"optimizer": "muon", "final_loss": math.nan}]}) == "No run wrote a final figure."
    rows = [
        {"optimizer": "muon", "lr": 0.1, "final_loss": math.nan},
        {"optimizer": "adamw", "lr": 0.2, "final_loss": 2.0},
    ]
    assert verdict({"rows": rows}) == "The best run is AdamW's at learning rate 0.2."


@pytest.mark.parametrize(
    ("ours", "said"), [(1.8, "10 % fewer than xz"), (2.2, "10 % more than xz"), (2.0, "as many as xz")]
)
def test_the_headline_is_honest_about_xz(run_folder, ours, said):
    path = run_folder / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) | {"bits_per_byte": ours, "xz_bits_per_byte": 2.0}
    path.write_text(json.dumps(summary), encoding="utf-8")
    run = report.read(run_folder)
    assert said in headline([run])
    assert title([run]).startswith(f"{ours:.4g} bits per byte after ")


def test_samples_and_settings_show_what_the_files_say(run):
    shown = "".join(samples([run]).parts)
    assert "import os\nimport sys" in shown
    assert "return f.read()" in shown
    assert "<dt>weight_decay</dt><dd>0.1</dd>" in configuration([run]).parts[0]


def test_thinning_keeps_ends_order_and_every_spike():
    y = [math.sin(i / 500) for i in range(50_000)]
    spikes = list(range(997, 50_000, 4999))
    for sign, i in enumerate(spikes):
        y[i] = 9.0 * (-1) ** sign
    kept = thin(y)
    assert kept == sorted(set(kept))
    assert {0, len(y) - 1, *spikes} <= set(kept)
    assert len(kept) <= MOST_POINTS + 2


def test_the_running_mean_is_a_mean_of_the_last_twentieth():
    generator = np.random.default_rng(0)
    y = generator.normal(size=300).tolist()
    expected = [float(np.mean(y[i - i // 20 : i + 1])) for i in range(300)]
    np.testing.assert_allclose(running_mean(y), expected, rtol=1e-12, atol=1e-12)
