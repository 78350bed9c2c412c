"""A module of the user's in our loop: steps of a plain loop, resumes bit for bit, callbacks that only hear."""

import contextlib
import dataclasses
import json
import os
import random
import signal

import pytest
import safetensors.torch
import torch
from torch import nn

from spectrain import report, train
from spectrain.train._jobs import own
from spectrain.train.config import TrainConfig

X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
Y = X.roll(1, 1).tanh()
SETTINGS = {"lr": 3e-3, "max_steps": 9, "batch_size": 8, "warmup": 2, "eval_interval": 3, "save_interval": 3,
            "spectrum_interval": 4, "threads": 1, "muon_dtype": "float32", "device": "cpu"}  # fmt: skip


class Net(nn.Module):
    def __init__(self, dropout=0.3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 16), nn.Tanh())
        self.head = nn.Linear(16, 6)

    def forward(self, x):
        return self.head(self.body(x))


def loss(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def make(**changes):
    fixed = {"model": Net, "data": range(37), "held_out": range(37, 50), "collate": lambda i: (X[i], Y[i])}
    return train.Job(**{**fixed, "loss": loss, **changes})


def run(out, job=None, *, calls=None, **changes):
    return train.train(train.JobConfig(**{**SETTINGS, **changes}, out_dir=str(out)), job=job or make(), **(calls or {}))


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith(("seconds", "per_second"))} for line in lines]


def weights(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


def same(one, other):
    return rows(one) == rows(other) and all(torch.equal(weights(one)[n], w) for n, w in weights(other).items())


def stopped_and_gone_on(out, **changes):
    """A run with callbacks that draw, stopped in step 5 and gone on with."""

    def draw(moment):
        torch.rand(7)
        if moment.step == 5 and not (out / "stopped").exists():
            (out / "stopped").touch()
            os.kill(os.getpid(), signal.SIGTERM)

    calls = {"on_step": draw, "on_eval": lambda moment: torch.rand(3), "on_checkpoint": lambda moment: torch.rand(2)}
    with pytest.raises(train.runs.StopRequest):
        run(out, calls=calls, **changes)
    torch.rand(11)  # another process would be elsewhere in the global stream, too
    return run(out, calls=calls, resume="auto", **changes)


def test_it_goes_on_bit_for_bit_whatever_callbacks_draw(tmp_path):
    whole = run(tmp_path / "whole")
    torch.rand(5)
    assert same(whole, run(tmp_path / "again"))
    assert same(whole, stopped_and_gone_on(tmp_path / "cut"))
    assert not same(whole, run(tmp_path / "other", seed=1))


def test_draws_that_do_not_belong_to_the_step_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "draws_of", lambda *_: contextlib.nullcontext())
    torch.manual_seed(0)
    whole = run(tmp_path / "whole")
    torch.rand(5)
    assert not same(whole, run(tmp_path / "again"))


def test_steps_are_those_of_a_plain_loop_whatever_the_micro_batches(tmp_path):
    """AdamW as torch has it, over examples that are named as they come."""
    seen = []

    def collate(numbers):
        seen.append(numbers)
        return X[numbers], Y[numbers]

    job = make(model=lambda: Net(0.0), collate=collate)
    flags = {"optimizer": "adamw", "warmup": 0, "schedule": "wsd", "weight_decay": 0.0, "clip": 0.0, "max_steps": 4}
    first = run(tmp_path / "one", make(model=lambda: Net(0.0)), **{**flags, "max_steps": 1, "lr": 1e-30})
    parts = run(tmp_path / "parts", job, **flags, micro_batch_size=2)
    learned = [numbers for numbers in seen if max(numbers) < 37 and len(numbers) == 2]
    model = Net(0.0)
    safetensors.torch.load_model(model, first / "model.safetensors")
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    for step, row in enumerate(row for row in rows(parts) if row["kind"] == "step"):
        numbers = [number for part in learned[4 * step : 4 * step + 4] for number in part]
        assert len(set(numbers)) == 8
        optimizer.param_groups[0]["lr"] = row["lr"]
        optimizer.zero_grad()
        found = loss(model, (X[numbers], Y[numbers]))
        found.backward()
        optimizer.step()
        assert row["loss"] == pytest.approx(found.item(), rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(weights(parts)[name], p.detach(), rtol=1e-4, atol=1e-6)


def test_the_last_validation_is_the_mean_over_all_held_out_examples(tmp_path):
    judge = lambda model, batch: {"largest": (model(batch[0]) - batch[1]).abs().amax(1).mean()}  # noqa: E731
    folder = run(tmp_path / "run", make(judge=judge), eval_examples=5)
    model = Net().eval()
    safetensors.torch.load_model(model, folder / "model.safetensors")
    summary = json.loads((folder / "summary.json").read_text())
    with torch.no_grad():  # 13 examples are two batches of 8: the mean of their means is another number
        off = model(X[37:]) - Y[37:]
    assert summary["validation_loss"] == pytest.approx(off.square().mean().item(), rel=1e-5)
    assert summary["largest"] == pytest.approx(off.abs().amax(1).mean().item(), rel=1e-5)
    assert summary["held_out_examples"] == 13
    assert report.write([folder], out=tmp_path / "report.html").stat().st_size > 0


def test_an_epoch_has_each_example_once_and_a_data_set_of_torchs_will_do(tmp_path):
    pairs = torch.utils.data.TensorDataset(X, Y)
    data, held_out = (torch.utils.data.Subset(pairs, numbers) for numbers in (range(37), range(37, 50)))
    job = train.Job(model=Net, data=data, held_out=held_out, loss=loss)
    assert same(run(tmp_path / "one"), run(tmp_path / "two", job))


class Bare(nn.Module):
    """A matrix of which no type says what it is."""

    def __init__(self):
        super().__init__()
        self.map = nn.Parameter(torch.eye(6))
        self.other = nn.Linear(6, 6)

    def forward(self, x):
        return self.other(x @ self.map)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_rules_say_what_modules_do_not(tmp_path, optimizer):
    job = make(model=Bare, rules={"map": "muon"}, heads=["other.weight"])
    folder = run(tmp_path / "run", job, optimizer=optimizer)
    routed = {row["name"]: row["algorithm"] for row in json.loads((folder / "routing.json").read_text())}
    assert routed == {"map": optimizer, "other.weight": "adamw", "other.bias": "adamw"}
    assert {row["name"] for row in rows(folder) if row["kind"] == "spectrum"} == {"map"}
    with pytest.raises(ValueError, match="map"):
        run(tmp_path / "unruled", make(model=Bare, heads=[]), optimizer=optimizer)


def test_callbacks_hear_each_row_and_checkpoint_once_it_is_there(tmp_path):
    heard = []

    def remember(moment):
        there = moment.checkpoint is None or (moment.checkpoint / "manifest.json").exists()
        heard.append((moment, (moment.folder / "metrics.jsonl").read_text().count("\n"), there))

    calls = dict.fromkeys(("on_step", "on_eval", "on_checkpoint"), remember)
    folder = run(tmp_path / "run", calls=calls, spectrum_interval=0)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    told = [(moment, count) for moment, count, _ in heard if moment.checkpoint is None]
    assert [count for _, count in told] == list(range(1, 1 + len(lines)))
    for (moment, _), line in zip(told, lines, strict=True):
        assert (moment.step, moment.steps, moment.folder) == (line["step"], 9, folder)
        assert dict(moment.figures) == {k: v for k, v in line.items() if k not in ("kind", "step")}
    saved = [moment for moment, _, there in heard if moment.checkpoint is not None and there]
    assert [moment.step for moment in saved] == [3, 6, 9]
    with pytest.raises(TypeError, match="item assignment"):
        told[0][0].figures["loss"] = 0.0


def test_callbacks_hear_a_language_model_too(tiny, tmp_path):
    steps = []
    train.train(TrainConfig(**tiny, out_dir=str(tmp_path / "run")), on_step=lambda moment: steps.append(moment.step))
    assert steps == list(range(1, 13))


@pytest.mark.parametrize(("name", "step"), [("on_step", 4), ("on_eval", 3), ("on_checkpoint", 6)])
def test_a_callback_that_raises_is_named_with_its_step_and_the_run_can_go_on(name, step, tmp_path):
    def fail(moment):
        if moment.step == step:
            raise ZeroDivisionError("no luck")

    with pytest.raises(train.runs.CallbackError, match=f"{name} after step {step}: ZeroDivisionError: no luck") as info:
        run(tmp_path / "cut", calls={name: fail})
    assert isinstance(info.value.__cause__, ZeroDivisionError)
    assert same(run(tmp_path / "whole"), run(tmp_path / "cut", resume="auto"))


class Restless:
    """Examples that are others each time."""

    def __len__(self):
        return 37

    def __getitem__(self, i):
        return X[i] + random.random(), Y[i]


REFUSED = {
    "a module": (lambda: make(model=Net()), TypeError, "model must make the module, .*lambda"),
    "a loader": (lambda: make(data=torch.utils.data.DataLoader(X)), TypeError, "data must have .*DataLoader.*data set"),
    "an iterator": (lambda: make(held_out=iter([X])), TypeError, r"held_out must have len\(\)"),
    "no examples": (lambda: make(held_out=[]), ValueError, "held_out is empty"),
}


@pytest.mark.parametrize(("build", "kind", "said"), REFUSED.values(), ids=REFUSED)
def test_a_job_that_no_run_can_begin_with_is_refused(build, kind, said):
    with pytest.raises(kind, match=said):
        build()


def config(**changes):
    return train.JobConfig(**{**SETTINGS, **changes})


REFUSED_RUNS = {
    "no rate": (lambda: (config(lr=None), make()), "needs lr: it is not known"),
    "no job": (lambda: (config(), None), r"needs its job: train.train\(config, job="),
    "a job for the command": (lambda: (TrainConfig(max_steps=1), make()), "job= goes with train.JobConfig"),
    "data twice": (lambda: (config(data=("x",)), make()), "data must be left out: the Job has the data"),
    "restless": (lambda: (config(), make(data=Restless(), collate=torch.utils.data.default_collate)), "read again"),
    "many losses": (lambda: (config(), make(loss=lambda m, b: m(b[0]))), r"one number, got \(8, 6\)"),
    "no tensor": (lambda: (config(), make(loss=lambda m, b: 1.0)), "one number, got float"),
    "a taken name": (lambda: (config(), make(judge=lambda m, b: {"loss": 1.0})), "cannot call a figure 'loss'"),
}


@pytest.mark.parametrize(("build", "said"), REFUSED_RUNS.values(), ids=REFUSED_RUNS)
def test_a_run_that_cannot_be_is_refused(build, said, tmp_path):
    with pytest.raises((ValueError, TypeError), match=said):
        asked, job = build()
        train.train(dataclasses.replace(asked, out_dir=str(tmp_path / "run")), job=job)


def test_other_data_is_not_gone_on_with(tmp_path):
    run(tmp_path / "run")
    with pytest.raises(ValueError, match="the data is not what this run was started on"):
        run(tmp_path / "run", make(data=range(36)), resume="auto")
    with pytest.raises(ValueError, match=r"is of a run of 'train\.JobConfig', not of 'spectrain train'"):
        train.load_run(tmp_path / "run")
