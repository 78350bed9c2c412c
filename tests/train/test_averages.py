"""``--average`` and ``--decay-estimate``: the weights that the formulas give, judged beside a run that they leave."""

import math

import pytest
import safetensors.torch
import torch

from spectrain import report, train
from spectrain.report._sections.curves import progress
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run import loop
from spectrain.train._run.folder import RunFolder
from spectrain.train.config import TrainConfig

from .test_run import assert_same_run, interrupted, rows

STEPS = 10
PLAIN = {"max_steps": STEPS, "lr": 0.02, "schedule": "wsd", "final_lr": 0.0, "spectrum_interval": 0,
         "eval_interval": 2, "save_interval": 1, "keep_last": 20, "weight_decay": 0.3}  # fmt: skip
AVERAGED = {"average": 0.2, "decay_estimate": 3}


@pytest.fixture(scope="module")
def trained(trained_once):
    """A run for each choice of flags."""
    return lambda tiny, **flags: trained_once({**tiny, **PLAIN, **flags})


def history(run):
    """The weights after each step, from the checkpoints."""
    files = [run / "checkpoints" / f"step-{step:08d}" / "model.safetensors" for step in range(1, STEPS + 1)]
    return [{name: p.double() for name, p in safetensors.torch.load_file(file).items()} for file in files]


def mean(weights, past):
    total = sum(weights)
    return {name: sum(w * each[name] for w, each in zip(weights, past, strict=True)) / total for name in past[0]}


def off(found, wanted):
    """The distance over that of the last weights to the first."""
    return max(float((found[name].double() - wanted[name]).norm() / wanted[name].norm()) for name in wanted)


def test_the_average_is_a_power_of_time(tiny, trained):
    """A half-life that is the share h of the steps so far: weights (s + 1)^p - s^p of step s, p = log 2 / h."""
    run = trained(tiny, **AVERAGED)
    found, past = safetensors.torch.load_file(run / "average.safetensors"), history(run)
    p = math.log(2) / 0.2
    wanted = [(s + 1) ** p - s**p for s in range(1, STEPS + 1)]
    assert off(found, mean(wanted, past)) < 1e-5
    wrong = {
        "the last weights": [0.0] * (STEPS - 1) + [1.0],
        "all alike": [1.0] * STEPS,
        "a fixed half-life of two steps": [2 ** (s / 2) for s in range(STEPS)],
        "without the natural logarithm": [(s + 1) ** 5 - s**5 for s in range(1, STEPS + 1)],
    }
    for name, weights in wrong.items():
        assert off(found, mean(weights, past)) > 1e-3, name


def test_it_is_judged_as_a_model_with_these_weights_and_the_run_is_left_as_it_was(tiny, trained, tmp_path):
    run, plain = trained(tiny, **AVERAGED), trained(tiny)
    for file in ("model.safetensors", "samples.txt"):
        assert (run / file).read_bytes() == (plain / file).read_bytes()
    kept = [{name: value for name, value in row.items() if not name.startswith(("average_", "decayed_"))}
            for row in rows(run)]  # fmt: skip
    assert kept == rows(plain)
    assert not (plain / "average.safetensors").exists()
    config, _ = TrainConfig(**{**tiny, **PLAIN}, out_dir=str(tmp_path)).derive()
    job = LanguageJob(config, RunFolder(tmp_path), resuming=False)
    job.build(config, device=torch.device("cpu"))
    safetensors.torch.load_model(job.model, str(run / "average.safetensors"))
    score = job.score()
    summary = report.read(run).summary
    assert (summary["average_loss"], summary["average_bits_per_byte"]) == (score.loss, score.bits_per_byte)
    assert summary["average_loss"] != summary["validation_loss"]


def test_a_decay_is_estimated_while_the_rate_is_at_its_peak(tiny, trained):
    found = {row["step"]: row for row in rows(trained(tiny, **AVERAGED)) if row["kind"] == "eval"}
    rates = [row["lr"] for row in rows(trained(tiny, **AVERAGED)) if row["kind"] == "step"]
    there = [step for step, row in found.items() if "decayed_loss" in row]
    peak = [step for step in found if step >= 3 and all(rate == 0.02 for rate in rates[step - 3 : step])]
    assert there == peak != []
    assert all(0 < found[step]["decayed_error"] < 0.4 for step in there)
    assert found[10]["average_loss"] > 0
    assert "average_loss" not in found[0]


def test_the_decay_of_one_step_is_the_step(tiny, trained):
    """Its only update has the whole rate, whatever the weights decay by: what was reached is the estimate."""
    found = [row for row in rows(trained(tiny, decay_estimate=1)) if "decayed_loss" in row]
    assert len(found) >= 3
    for row in found:
        assert row["decayed_loss"] == pytest.approx(row["loss"], rel=1e-5)
        assert row["decayed_error"] < 1e-5


@pytest.mark.parametrize("step", [3, STEPS])
def test_stopping_and_resuming_changes_nothing(tiny, trained, tmp_path, step):
    whole, flags = trained(tiny, **AVERAGED), {**tiny, **PLAIN, **AVERAGED}
    if step < STEPS:
        interrupted(flags, tmp_path / "run", step)
    else:
        train.train(TrainConfig(**flags, out_dir=str(tmp_path / "run")))
        (tmp_path / "run" / "average.safetensors").unlink()
    again = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "run"), resume="auto"))
    assert_same_run(again, whole)
    assert (again / "average.safetensors").read_bytes() == (whole / "average.safetensors").read_bytes()
    assert report.read(again).final("average_loss") == report.read(whole).final("average_loss")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"average": 1.0}, "--average must be between 0 and 1"),
        ({"average": math.nan}, "--average must be between 0 and 1"),
        ({"decay_estimate": 0, "schedule": "wsd"}, "--decay-estimate must be at least 1"),
        ({"decay_estimate": 9}, "--decay-estimate must be given with --schedule wsd or --final-lr 1"),
        ({"decay_estimate": 9, "schedule": "cosine"}, "--decay-estimate must be given with --schedule wsd"),
        ({"decay_estimate": 9, "schedule": "wsd", "decay": "cautious"}, "--decay-estimate must be left out with"),
        ({"decay_estimate": 9, "schedule": "wsd", "parametrisation": "mup"}, "left out with --parametrisation mup"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig(**flags)


@pytest.mark.parametrize(
    ("flags", "most"),
    [
        ({"schedule": "wsd", "warmup": 2}, 8),  # 2 up, the second to the peak; the last 2 fall, the first by nothing
        ({"schedule": "wsd", "warmup": 0}, 9),
        ({"schedule": "linear", "final_lr": 1.0, "warmup": 4}, 7),
    ],
)
def test_an_estimate_that_no_step_could_be_judged_by_is_refused_and_leaves_nothing(tiny, tmp_path, flags, most):
    given = {**tiny, **PLAIN, "final_lr": 0.0, **flags, "out_dir": str(tmp_path / "run")}
    with pytest.raises(ValueError, match=f"--decay-estimate must be at most {most}, the steps of this run at its peak"):
        train.train(TrainConfig(**given, decay_estimate=most + 1))
    assert not (tmp_path / "run").exists()
    run = train.train(TrainConfig(**{**given, "eval_interval": 1}, decay_estimate=most))
    assert sum("decayed_loss" in row for row in rows(run) if row["kind"] == "eval") >= 1


def test_a_clock_that_fixes_too_few_steps_for_an_estimate_says_so(tiny, tmp_path, capsys, monkeypatch):
    """How many there will be is known after 20 steps: too late to refuse. Of 30 the first and the last are off it."""
    monkeypatch.setattr(loop, "steps_by_clock", lambda *_, **__: 30)
    given = {**without_limit(tiny), "max_minutes": 1.0, "schedule": "wsd", "final_lr": 0.0, "warmup": 2}
    for wanted, said in ((20, False), (400, True)):
        train.train(TrainConfig(**given, decay_estimate=wanted, out_dir=str(tmp_path / str(wanted))))
        printed = capsys.readouterr()
        found = "no --decay-estimate is judged: it needs more than the 28 steps" in printed.out + printed.err
        assert found == said


def without_limit(flags):
    """The flags without --max-steps, with as little to judge on the way as there can be."""
    return {**{k: v for k, v in flags.items() if k != "max_steps"}, "sample_tokens": 0, "eval_interval": 50}


def test_the_report_draws_averages_beside_the_validation(tiny, trained):
    run = report.read(trained(tiny, **AVERAGED))
    view = next(view for view in progress([run]).views.values() if "bits" in view.title)
    drawn = {trace["name"]: trace for trace in view.traces}
    assert drawn["averaged weights"]["y"][-1] == run.evals[-1]["average_bits_per_byte"]
    assert sum(y is not None for y in drawn["estimate after a decay"]["y"]) == 3
    plain = next(iter(progress([report.read(trained(tiny))]).views.values()))
    assert not {"averaged weights", "estimate after a decay"} & {trace["name"] for trace in plain.traces}


def test_a_report_of_several_runs_says_whose_averages_they_are(tiny, trained):
    averaged, plain = report.read(trained(tiny, **AVERAGED)), report.read(trained(tiny))
    views = [view for view in progress([averaged, plain]).views.values() if "bits" in view.title]
    drawn = {trace["name"]: trace for trace in views[0].traces}
    beside = {name for name in drawn if name.endswith(("averaged weights", "estimate after a decay"))}
    assert beside == {f"{averaged.name}, averaged weights", f"{averaged.name}, estimate after a decay"}
    assert drawn[f"{averaged.name}, averaged weights"]["y"][-1] == averaged.evals[-1]["average_bits_per_byte"]
    assert drawn[averaged.name]["y"][-1] == averaged.evals[-1]["bits_per_byte"]
