"""Comparing optimizers: the descent on ladders, the tuned comparison, and the fit over depths."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch

from spectrain import report, train
from spectrain.cli import _compare as verb
from spectrain.report._sections.compare import verdict as in_the_report
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.job import load_job
from spectrain.train._run.optimizer import build_optimizer
from spectrain.train._run.optimizers import OPTIMIZERS
from spectrain.train._run.session import build
from spectrain.train._studies import settings
from spectrain.train._studies.descent import Ladder, coordinate_descent
from spectrain.train._studies.ratio import in_words, summarise
from spectrain.train._studies.scaling import scaling, weights_and_operations

LADDERS = {"x": Ladder((0.0, 1.0, 2.0, 3.0, 4.0)), "y": Ladder((0.0, 1.0, 2.0))}


def separable(point):
    return (point["x"] - 3) ** 2 + (point["y"] - 1) ** 2


@pytest.mark.parametrize("start", [*itertools.product(*(ladder.values for ladder in LADDERS.values()))])
def test_a_separable_bowl_is_solved_from_everywhere(start):
    found = coordinate_descent(separable, ladders=LADDERS, start=dict(zip(LADDERS, start, strict=True)), budget=15)
    assert found.point == {"x": 3.0, "y": 1.0}
    assert (found.loss, found.open, found.edge) == (0.0, (), ())


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

    assert coordinate_descent(measure, ladders={"x": LADDERS["x"]}, start={"x": 1.0}, budget=9).point == {"x": 1.0}


@pytest.mark.parametrize("best", [0.125, 1.0, 64.0])
def test_a_rate_beyond_what_was_tried_is_found(best):
    ladders = {"lr": Ladder((1.0,), factor=2.0)}
    found = coordinate_descent(lambda p: abs(math.log(p["lr"] / best)), ladders=ladders, start={"lr": 1.0}, budget=20)
    assert found.point == {"lr": best}
    assert found.edge == ()


def test_an_optimum_at_the_edge_is_said():
    found = coordinate_descent(lambda p: -p["x"], ladders={"x": LADDERS["x"]}, start={"x": 3.0}, budget=9)
    assert (found.point, found.edge) == ({"x": 4.0}, ("x",))


def test_a_budget_that_ended_too_early_is_said():
    found = coordinate_descent(separable, ladders=LADDERS, start={"x": 0.0, "y": 0.0}, budget=3)
    assert found.point == {"x": 2.0, "y": 0.0}
    assert found.open == ("x", "y")


@pytest.mark.parametrize(("values", "said"), [((1.0,), "one value"), ((2.0, 1.0), "rise"), ((1.0, 1.0), "rise")])
def test_what_is_no_ladder_is_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Ladder(values)


@pytest.mark.parametrize(("start", "budget", "said"), [(0.5, 3, "not one of"), (1.0, 2, "at least 3 runs")])
def test_what_cannot_be_tuned_is_refused(start, budget, said):
    with pytest.raises(ValueError, match=said):
        coordinate_descent(separable, ladders=LADDERS, start={"x": start, "y": 0.0}, budget=budget)


def test_each_is_tuned_on_the_first_seed_and_runs_on_all(tiny, tmp_path):
    base = train.TrainConfig(**tiny | {"lr": None, "max_steps": 4, "warmup": 20})
    grid, budget = {"adamw": [2e-3], "muon": [4e-3]}, 9
    result = train.compare(base, grid=grid, seeds=[0, 1], folder=tmp_path, tune=budget)
    rows = {row["run"]: row for row in result["rows"]}
    for optimizer, found in result["tuned"].items():
        assert found["runs"] == budget
        best = [rows[run] for run in result["tables"]["best"]["runs"] if rows[run]["optimizer"] == optimizer]
        assert [row["seed"] for row in best] == [0, 1]
        assert all(row[name] == value for row in best for name, value in found["point"].items())
        tried = [row["final_loss"] for row in rows.values() if row["optimizer"] == optimizer and row["seed"] == 0]
        assert best[0]["final_loss"] == found["loss"] <= tried[0]
    for run, row in rows.items():  # what the folder ran is what the row says
        ran = json.loads((tmp_path / run / "config.json").read_text(encoding="utf-8"))
        assert all(ran[name] == row[name] for name in settings.SHORT if name in row)
    again = train.compare(base, grid=grid, seeds=[0, 1], folder=tmp_path, tune=budget)
    assert again == result
    said = verb.table(result)
    assert "what moves the matrices is the only difference" in said
    assert "muon in 9 runs: lr " in said


def test_one_measure_tunes_and_is_followed_to_the_target(tiny, tmp_path):
    """All held-out text, at every validation: a part of it could rank the optimizers otherwise."""
    base = train.TrainConfig(**tiny | {"lr": None, "max_steps": 4, "eval_tokens": 32, "eval_interval": 2})
    result = train.compare(base, grid={"adamw": [2e-3], "muon": [4e-3]}, seeds=[0], folder=tmp_path)
    for row in result["rows"]:
        summary = json.loads((tmp_path / row["run"] / "summary.json").read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (tmp_path / row["run"] / "metrics.jsonl").read_text("utf-8").splitlines()]
        validations = [r["loss"] for r in rows if r["kind"] == "eval"]
        assert row["final_loss"] == summary["validation_loss"] == pytest.approx(validations[-1], rel=1e-12)
        assert row["final_bits_per_byte"] == summary["bits_per_byte"]


def test_only_the_settings_that_are_named_are_tuned(tiny, tmp_path):
    base = train.TrainConfig(**tiny | {"lr": None, "max_steps": 2})
    points = {name: {"lr": 1e-3, "warmup": 60} for name in ("adamw", "muon")}
    result = train.compare(base, grid={"adamw": [2e-3], "muon": [4e-3]}, seeds=[0], folder=tmp_path, tune=3,
                           points=points, settings=["lr"], controlled=1)  # fmt: skip
    rows = {row["run"]: row for row in result["rows"]}
    muon = [rows[run] for run in result["tables"]["controlled"]["runs"] if rows[run]["optimizer"] == "muon"]
    assert [row["lr"] for row in muon] == [result["tuned"]["muon"]["point"]["lr"]]  # one run: the rate of its best
    assert len(rows) == 3 + 3 + 1
    for row in result["rows"]:
        ran = json.loads((tmp_path / row["run"] / "config.json").read_text(encoding="utf-8"))
        assert ran["warmup"] == 60
    assert all(found["runs"] == 3 for found in result["tuned"].values())


def moved_alike(optimizer, matrices):
    """What an optimizer does with everything but the matrices: rate, decay, betas and eps of each parameter."""
    found = {}
    for group in optimizer.param_groups:
        kept = {key: group[key] for key in ("lr", "weight_decay", "betas", "eps") if key in group}
        found |= {p: kept for p in group["params"] if p not in matrices}
    return found


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "adamw"])
def test_a_controlled_comparison_differs_in_the_matrices_only(optimizer, tiny, tmp_path):
    """Rates of embedding, head and gains are AdamW's, to rounding, whatever the rate of the matrices."""
    if optimizer == "soap":
        pytest.importorskip("pytorch_optimizer")
    yardstick = {"lr": 2e-3, "embedding_lr": 4.0, "head_lr": 0.5, "weight_decay": 0.3, "beta1": 0.8, "beta2": 0.99,
                 "warmup": 3, "final_lr": 0.1}  # fmt: skip
    base = train.TrainConfig(**tiny | {"out_dir": str(tmp_path)})
    points = {"adamw": yardstick, optimizer: settings.hold_the_rest(yardstick, 7e-3)}
    configs, found = {}, {}
    job = load_job(base, RunFolder(tmp_path), resuming=False)
    job.build(base.derive()[0], device=torch.device("cpu"))
    for name, point in points.items():
        configs[name], _ = dataclasses.replace(base, optimizer=name, **point).derive()
        job.config = configs[name]
        made = build_optimizer(configs[name], job)
        assert {p for group in made.param_groups for p in group["params"]} == set(job.model.parameters())
        found[name] = moved_alike(made, job.matrices())
    assert len(found["adamw"]) == 5  # embedding, head, three gains
    for p, kept in found["adamw"].items():
        assert found[optimizer][p].keys() == kept.keys()
        for key, value in kept.items():
            np.testing.assert_allclose(found[optimizer][p][key], value, rtol=1e-12)
    same = [f.name for f in dataclasses.fields(base) if f.name not in ("optimizer", *settings.RATIOS, "lr")]
    assert all(getattr(configs["adamw"], name) == getattr(configs[optimizer], name) for name in same)
    rates = {p: kept["lr"] for p, kept in found["adamw"].items()}
    assert rates[job.model.embedding.weight] == pytest.approx(8e-3)
    assert rates[job.model.head.weight] == pytest.approx(1e-3)


@pytest.mark.parametrize("fixed", [{"tied": True}, {"init_from": "a folder", "lora": 2}])
def test_rates_that_a_model_does_not_have_are_neither_tuned_nor_held(fixed, tiny, tmp_path):
    """A tied head has the embedding's rate, and beside adapters nothing moves: each run is one that can be."""
    base = train.TrainConfig(**tiny | fixed | {"lr": None, "out_dir": str(tmp_path)})
    yardstick = settings.start("adamw", base)
    assert set(yardstick) >= {"lr", "warmup", "beta1", "beta2"}
    assert "head_lr" not in yardstick
    assert ("embedding_lr" in yardstick) is (fixed == {"tied": True})
    settings.check_tunable(OPTIMIZERS, base)
    held = settings.hold_the_rest(yardstick, 2 * yardstick["lr"], settings.free_rates(base))
    one = dataclasses.replace(base, optimizer="muon", **held)
    assert one.head_lr is None
    assert one.embedding_lr == (0.5 if fixed == {"tied": True} else None)


def test_the_rest_is_clipped_alike_whatever_moves_the_matrices(tiny, tmp_path):
    """A large gradient of a matrix shrank AdamW's gradient of the embedding, and not Muon's."""
    clipped = {}
    for name in ("adamw", "muon", "torch-muon"):
        base, _ = train.TrainConfig(**tiny | {"optimizer": name, "out_dir": str(tmp_path), "clip": 0.5}).derive()
        session = build(base, RunFolder(tmp_path), load_job(base, RunFolder(tmp_path), resuming=False))
        for p in session.model.parameters():
            p.grad = torch.full_like(p, 100.0 if p in session.job.matrices() else 0.01)
        norm = session.clip_gradients()
        whole = math.sqrt(
            sum(p.numel() * (1e4 if p in session.job.matrices() else 1e-4) for p in session.model.parameters())
        )
        assert norm == pytest.approx(whole, rel=1e-5)
        clipped[name] = session.model.embedding.weight.grad.clone()
    torch.testing.assert_close(clipped["adamw"], clipped["muon"], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(clipped["adamw"], clipped["torch-muon"], rtol=1e-5, atol=0.0)


def test_every_optimizer_is_tuned_over_as_many_settings():
    assert len({len(settings.ladders(name, train.TrainConfig())) for name in OPTIMIZERS}) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tune": 5}, "does not try each setting"),
        ({"grid": {"muon": [1e-3]}}, "add adamw"),
        ({"base": {"max_minutes": 1.0}}, "runs of one length"),
        ({"base": {"parametrisation": "mup"}, "tune": 24}, "--tune must be left out with --parametrisation mup"),
        ({"base": {"schedule": "uniform"}, "tune": 24}, "--tune would try .* 0, .* Say by --settings"),
        ({"grid": {"adamw": [1e-3]}, "base": {"muon_steps": 3}}, "--muon-steps must be left out: none of these"),
        ({"settings": ["vector_lr"], "tune": 24}, "--settings vector_lr: these optimizers and flags tune lr, embed"),
        (
            {"settings": ["head_lr"], "base": {"tied": True}, "tune": 24},
            "--settings head_lr: .* tune lr, embedding_lr, w",
        ),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_before_anything_runs(changes, said, tiny, tmp_path):
    base = train.TrainConfig(**tiny | {"lr": None} | changes.get("base", {}))
    grid = changes.get("grid", {"adamw": [1e-3], "muon": [1e-3]})
    with pytest.raises(ValueError, match=said):
        train.compare(base, grid=grid, seeds=[0], folder=tmp_path / "c", tune=changes.get("tune", 0),
                      settings=changes.get("settings"))  # fmt: skip
    assert not (tmp_path / "c").exists()


def test_a_comparison_whose_first_run_is_refused_fixes_nothing_for_the_corrected_one(tiny, tmp_path):
    grid, folder = {"muon": [1e-3], "adamw": [1e-3]}, tmp_path / "c"
    base = train.TrainConfig(**tiny | {"lr": None, "max_steps": 1})
    with pytest.raises(ValueError, match=r"--bound 0\.5 is below the first weights"):
        train.compare(dataclasses.replace(base, bound=0.5), grid=grid, seeds=[0], folder=folder)
    assert not folder.exists()
    found = train.compare(dataclasses.replace(base, bound=9.0), grid=grid, seeds=[0], folder=folder)
    assert len(found["rows"]) == 2
    with pytest.raises(ValueError, match=r"--bound 8\.0 differs from the run's 9\.0"):  # what has begun stays as it was
        train.compare(dataclasses.replace(base, bound=8.0), grid=grid, seeds=[0], folder=folder)
    assert (folder / "base.json").exists()


def test_what_only_our_muon_has_is_left_behind_for_those_that_have_it_not(tiny, tmp_path):
    base = train.TrainConfig(**tiny | {"lr": None, "max_steps": 1, "muon_per_head": True})
    train.compare(base, grid={"muon": [1e-3], "adamw": [1e-3]}, seeds=[0], folder=tmp_path / "c")
    said = {path.parent.name.split("-")[0]: json.loads(path.read_text())["muon_per_head"]
            for path in (tmp_path / "c").glob("*/config.json")}  # fmt: skip
    assert said == {"muon": True, "adamw": False}
    with pytest.raises(ValueError, match="--muon-per-head must be left out: none of these optimizers knows it"):
        train.compare(base, grid={"adamw": [1e-3], "torch-muon": [1e-3]}, seeds=[0], folder=tmp_path / "d")


def test_a_peer_whose_package_is_missing_names_the_extra(monkeypatch, tiny):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"spectrain\[peers\]"):
        train.TrainConfig(**tiny | {"optimizer": "soap"})


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
    one = summarise(rows, curves=curves)
    found = one["against"]["muon"]
    assert found["ratio"] is None
    assert found["ratio_spread"] is None
    assert found["ratio_low"] is None
    assert found["ratio_by_seed"] == {0: 0.5, 1: None}
    assert found["ratio_at_least"] == (50 + 100) / 2 / 100
    assert found["not_reached"] == {1: 100}
    whole = {"rows": rows, "horizon": 7, "tables": {"swept": {"runs": [*curves], **one}}}
    said = [verb.table(whole), in_words(found), in_the_report(json.loads(json.dumps(whole)))]
    assert all("0.75" in text for text in said)
    assert not any("0.5 of its tokens" in text for text in said)
    assert "not reached on seed 1 within 100 tokens" in said[0]


@pytest.mark.parametrize(("final", "ratio"), [([0.0, 0.0], 0.5), ([0.0, 1.0], (50 + 200 / 3) / 200)])
def test_the_ratio_of_seeds_that_all_arrive_is_their_mean(final, ratio):
    rows, curves = rows_of(final)
    found = summarise(rows, curves=curves)["against"]["muon"]
    assert found["ratio"] == found["ratio_at_least"] == pytest.approx(ratio)
    assert found["not_reached"] == {}


def test_the_interval_over_three_seeds_is_students():
    """Mean 0.5 and standard deviation 0.1 of three: 4.3027 x 0.1 / sqrt(3), from a table of t."""
    rows, curves = [], {}
    for seed, at in enumerate([40, 50, 60]):
        for name, points in (("adamw", [(0, 4.0), (100, 2.0)]), ("soap", [(0, 4.0), (at, 2.0), (100, 1.0)])):
            rows.append({"optimizer": name, "seed": seed, "run": f"{name}{seed}", "final_loss": points[-1][1],
                         "tokens": 100})  # fmt: skip
            curves[f"{name}{seed}"] = points
    found = summarise(rows, curves=curves)["against"]["soap"]
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert found["ratio_low"] == pytest.approx(0.5 - half, rel=1e-6)
    assert found["ratio_high"] == pytest.approx(0.5 + half, rel=1e-6)


def test_the_ratio_of_seconds_is_that_of_tokens_times_that_of_median_steps():
    rows = [{"optimizer": o, "seed": 0, "run": o, "final_loss": f, "tokens": 100, "step_seconds": t}
            for o, f, t in (("adamw", 2.0, 0.5), ("muon", 1.0, 0.6))]  # fmt: skip
    curves = {"adamw": [(0, 4.0), (100, 2.0)], "muon": [(0, 4.0), (50, 2.0), (100, 1.0)]}
    found = summarise(rows, curves=curves)["against"]["muon"]
    assert (found["ratio"], found["step_time_ratio"]) == (0.5, pytest.approx(1.2))
    assert found["seconds_ratio"] == found["seconds_ratio_at_least"] == pytest.approx(0.6)


def test_a_target_reached_before_the_first_step_is_reached():
    rows, curves = rows_of([2.0])
    curves["muon0"] = [(0, 1.0), (100, 2.0)]
    assert summarise(rows, curves=curves)["against"]["muon"]["ratio"] == 0.0


@pytest.mark.parametrize("grid", [{"adamw": [1e-3, -1.0]}, {"adamw": [1e-3], "muon": [math.nan]}])
def test_a_rate_that_is_none_is_said_before_anything_runs(grid, tiny, tmp_path):
    base = train.TrainConfig(**tiny | {"lr": None})
    with pytest.raises(ValueError, match="--lr must be positive"):
        train.compare(base, grid=grid, seeds=[0], folder=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_depths_share_tokens_by_weights_and_are_drawn(tiny, tmp_path):
    small = tiny | {"lr": None, "width": None, "heads": None, "max_steps": 3, "depth": 2}
    base = train.TrainConfig(**small)
    result = train.compare_depths(base, depths=[1, 2, 3], optimizers=["adamw", "muon"], seeds=[0],
                                  folder=tmp_path, tune=2)  # fmt: skip
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


def test_no_saving_is_read_off_where_nothing_was_measured():
    """Muon below all that AdamW reached: how much more AdamW would need, no run has shown."""
    assert "saved" not in scaling(power_law(0.002, 0, factor=0.5))
    found = scaling([row for row in power_law(0.0, 0) if row["optimizer"] == "adamw" or row["flops"] < 2e13])["saved"]
    assert found["at_flops"] == pytest.approx(1e13 * 0.95 ** (-1 / 0.05), rel=1e-6)  # AdamW's to Muon's last loss
    assert found["ratio"] == pytest.approx(0.95 ** (-1 / 0.05), rel=1e-6)


def test_two_depths_are_no_line(tiny, tmp_path):
    with pytest.raises(ValueError, match="three depths"):
        train.compare_depths(train.TrainConfig(**tiny), depths=[1, 2], optimizers=["muon"], seeds=[0],
                             folder=tmp_path, tune=2)  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tune", "3", "--lr", "1e-3"], "leave --lr out"),
        (["--depths", "1", "2", "3"], "give --tune 2 or more, got 0"),
        (["--depths", "1", "2", "3", "--settings", "lr", "warmup", "--tune", "2"], "give --tune 3 or more, got 2"),
        (["--settings", "lr"], "give --tune N"),
        (["--depths", "1", "2", "3", "--max-minutes", "1", "--tune", "2"], "give --max-steps"),
        (["--tune", "-1"], "give at least 9"),
        (["--eval-tokens", "1024"], "--final-eval-tokens"),
        (["--optimizer", "muon"], "compare does not take --optimizer: give --optimizers"),
        (["--seed=0"], "compare does not take --seed: give --seeds"),
        (["--seeds", "1", "0", "1"], "--seeds has 1 twice"),
        (["--depths", "1", "2", "3", "--tune", "2", "--seeds", "0", "0"], "--seeds has 0 twice"),
        (["--lr", "1e-3", "0.001"], "--lr has 0.001 twice"),
    ],
)
def test_flags_that_do_not_go_together(flags, said, text_folder, tmp_path):
    common = ["--data", str(text_folder), "--depth", "1", "--out-dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=said):
        verb.main([*flags, *common])
