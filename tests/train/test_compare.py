"""Comparing optimizers: the descent on ladders, the tuned comparison, and the fit over depths."""

import itertools
import json
import math

import numpy as np
import pytest

from spectrain import report, train
from spectrain.cli import _compare as verb
from spectrain.report._sections.compare import verdict as in_the_report
from spectrain.train._studies.compare import coordinate_descent, ratio_in_words, summarise
from spectrain.train._studies.scaling import scaling, weights_and_operations

LADDERS = {"x": (0.0, 1.0, 2.0, 3.0, 4.0), "y": (0.0, 1.0, 2.0)}


def separable(point):
    return (point["x"] - 3) ** 2 + (point["y"] - 1) ** 2


@pytest.mark.parametrize("start", [*itertools.product(*LADDERS.values())])
def test_a_separable_bowl_is_solved_from_everywhere(start):
    found = coordinate_descent(separable, ladders=LADDERS, start=dict(zip(LADDERS, start, strict=True)), budget=15)
    assert found == {"x": 3.0, "y": 1.0}


def test_no_point_is_measured_twice_and_the_budget_holds():
    seen = []

    def measure(point):
        seen.append(tuple(point.values()))
        return separable(point)

    coordinate_descent(measure, ladders=LADDERS, start={"x": 0.0, "y": 0.0}, budget=4)
    assert len(seen) == len(set(seen)) == 4


def test_a_run_that_diverges_is_never_chosen():
    def measure(point):
        return {0.0: math.nan, 1.0: 5.0, 2.0: math.inf, 3.0: 0.0, 4.0: 0.0}[point["x"]]

    assert coordinate_descent(measure, ladders={"x": LADDERS["x"]}, start={"x": 1.0}, budget=9) == {"x": 1.0}


@pytest.mark.parametrize(("start", "budget", "said"), [(0.5, 3, "not one of"), (1.0, 0, "at least one run")])
def test_what_cannot_be_tuned_is_refused(start, budget, said):
    with pytest.raises(ValueError, match=said):
        coordinate_descent(separable, ladders=LADDERS, start={"x": start, "y": 0.0}, budget=budget)


def test_adamw_is_tuned_on_the_first_seed_and_the_winner_runs_on_all(tiny, tmp_path):
    base = train.TrainConfig(**tiny | {"lr": None, "max_steps": 4})
    grid = {"adamw": [2e-3], "muon": [4e-3]}
    result = train.compare(base, grid=grid, seeds=[0, 1], folder=tmp_path, tune=4)
    adamw = [row for row in result["rows"] if row["optimizer"] == "adamw"]
    first = [row for row in adamw if row["seed"] == 0]
    assert len(first) == 4
    best = min(first, key=lambda row: row["final_loss"])
    (second,) = (row for row in adamw if row["seed"] == 1)
    settings = ("lr", "weight_decay", "beta1", "beta2")
    assert [second[name] for name in settings] == [best[name] for name in settings]
    for row in result["rows"]:  # what the folder ran is what the row says
        ran = json.loads((tmp_path / row["run"] / "config.json").read_text(encoding="utf-8"))
        assert all(ran[name] == row[name] for name in settings if name in row)
    again = train.compare(base, grid=grid, seeds=[0, 1], folder=tmp_path, tune=4)
    assert again == result


def rows_of(final):
    """Two seeds; AdamW falls from 4 to 2 in 100 tokens, Muon to ``final[seed]``."""
    rows, curves = [], {}
    for seed, muon in enumerate(final):
        for optimizer, last in (("adamw", 2.0), ("muon", muon)):
            name = f"{optimizer}{seed}"
            rows.append({"optimizer": optimizer, "lr": 1e-3, "seed": seed, "run": name, "final_loss": last,
                         "final_bits_per_byte": last, "tokens": 100})  # fmt: skip
            curves[name] = [(0, 4.0), (100, last)]
    return rows, curves


def test_no_seed_is_dropped_from_the_ratio():
    rows, curves = rows_of([0.0, 3.0])  # seed 0 crosses 2 at token 50; seed 1 never
    found = summarise(rows, curves=curves)
    assert found["ratio"] is None
    assert found["ratio_spread"] is None
    assert found["ratio_by_seed"] == {0: 0.5, 1: None}
    assert found["ratio_at_least"] == (50 + 100) / 2 / 100
    assert found["not_reached"] == {1: 100}
    said = [verb.table(found), ratio_in_words(found), in_the_report(json.loads(json.dumps(found)))]
    assert all("0.75" in text for text in said)
    assert not any("0.5 of its tokens" in text for text in said)
    assert "not reached on seed 1 within 100 tokens" in said[0]


@pytest.mark.parametrize(("final", "ratio"), [([0.0, 0.0], 0.5), ([0.0, 1.0], (50 + 200 / 3) / 200)])
def test_the_ratio_of_seeds_that_all_arrive_is_their_mean(final, ratio):
    rows, curves = rows_of(final)
    found = summarise(rows, curves=curves)
    assert found["ratio"] == found["ratio_at_least"] == pytest.approx(ratio)
    assert found["not_reached"] == {}


def test_a_target_reached_before_the_first_step_is_reached():
    rows, curves = rows_of([2.0])
    curves["muon0"] = [(0, 1.0), (100, 2.0)]
    assert summarise(rows, curves=curves)["ratio"] == 0.0


@pytest.mark.parametrize("grid", [{"adamw": [1e-3, -1.0]}, {"adamw": [1e-3], "muon": [math.nan]}])
def test_a_rate_that_is_none_is_said_before_anything_runs(grid, tiny, tmp_path):
    base = train.TrainConfig(**tiny | {"lr": None})
    with pytest.raises(ValueError, match="--lr must be positive"):
        train.compare(base, grid=grid, seeds=[0], folder=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_depths_share_tokens_by_weights_and_are_drawn(tiny, tmp_path):
    small = tiny | {"lr": None, "width": None, "heads": None, "max_steps": 3, "depth": 2}
    base = train.TrainConfig(**small)
    result = train.compare_depths(base, depths=[1, 2, 3], optimizers=["adamw", "muon"], seeds=[0], folder=tmp_path)
    tokens = {row["depth"]: row["tokens"] for row in result["rows"]}
    weights = {row["depth"]: row["weights"] for row in result["rows"]}
    for depth in (1, 3):
        exact = 3 * weights[depth] / weights[2]
        assert tokens[depth] == 64 * max(1, round(exact))
    page = report.write([tmp_path], out=tmp_path / "report.html").read_text(encoding="utf-8")
    assert "training compute (FLOP)" in page
    assert "PFLOP" in verb.depths_table(result)


def test_weights_and_operations_are_those_of_a_hand_count(tiny):
    config = train.TrainConfig(**tiny | {"tokenizer": "bytes", "hidden": 64, "kv_heads": 2})
    weights, each = weights_and_operations(config)
    attention, feed_forward, head = 4 * 32 * 32, 3 * 32 * 64, 256 * 32
    assert 0 <= weights - (attention + feed_forward + head) < 600  # norms and gains
    assert each == 6 * weights + 6 * 16 * 32


def power_law(noise, seed, factor=0.95):
    draw = np.random.default_rng(seed)
    return [
        {"optimizer": o, "flops": c, "final_loss": k * c**-0.05 * math.exp(noise * draw.standard_normal())}
        for c in (1e12, 3e12, 1e13, 1e14)
        for o, k in (("adamw", 10.0), ("muon", 10.0 * factor))
    ]


def test_the_interval_of_the_exponent_covers_as_often_as_it_says():
    covered = sum(abs(fit["b"] - 0.05) <= fit["b_half"]
                  for seed in range(300) for fit in scaling(power_law(0.01, seed))["fits"].values())  # fmt: skip
    assert 0.92 <= covered / 600 <= 0.98


def test_the_interval_of_the_saving_covers_the_truth():
    truth = 0.95 ** (-1 / 0.05)
    found = [scaling(power_law(0.002, seed))["saved"] for seed in range(60)]
    assert sum(one["low"] <= truth <= one["high"] for one in found) >= 52
    assert not any(one["low"] <= truth**-1 <= one["high"] for one in found)  # the ratio turned over


def test_two_depths_are_no_line(tiny, tmp_path):
    with pytest.raises(ValueError, match="three depths"):
        train.compare_depths(train.TrainConfig(**tiny), depths=[1, 2], optimizers=["muon"], seeds=[0], folder=tmp_path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tune", "3", "--lr", "1e-3"], "leave --lr out"),
        (["--depths", "1", "2", "3", "--tune", "3"], "leave out --tune or --depths"),
        (["--depths", "1", "2", "3", "--max-minutes", "1"], "give --max-steps"),
        (["--tune", "-1"], "at least one run"),
    ],
)
def test_flags_that_do_not_go_together(flags, said, text_folder, tmp_path):
    common = ["--data", str(text_folder), "--depth", "1", "--out-dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=said):
        verb.main([*flags, *common])
