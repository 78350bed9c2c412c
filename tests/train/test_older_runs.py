"""Run folders that the code of commit 9652c41 wrote (``fixtures/make.py``): read, and gone on with to the same weights.

Each was finished after six steps and has its checkpoint of step 3. Weights are compared, not bits: another machine's
products are rounded elsewhere.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from spectrain import optim, train
from spectrain.train._jobs import image_judge as _image_judge
from spectrain.train._run import recorded as _recorded
from spectrain.train._saved.search import Search

FIXTURES = Path(__file__).parent / "fixtures"
OLDER = ("train", "embed", "draw")
NEAR = 2e-3
"""Largest distance to the weights of that time, as a share of the way from the checkpoint to them: gradients of norms
and of attention have been rounded in another order since."""


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A copy of the folders and of what they learned from, which their configurations name relative to it."""
    shutil.copytree(FIXTURES, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_image_judge, "_STEPS", 3)  # the judge decides no weight
    return tmp_path


def weights(folder):
    """All but a router's: with one expert a token its gradient is rounding alone, of which AdamW makes whole steps."""
    found = safetensors.torch.load_file(folder / "model.safetensors")
    return torch.cat([found[name].flatten().double() for name in sorted(found) if "router" not in name])


def off(found, job):
    """How far weights are from those of that time, over the way there from the checkpoint."""
    then, start = weights(FIXTURES / f"{job}-run"), weights(FIXTURES / f"{job}-run" / "checkpoints" / "step-00000003")
    return float((found - then).norm() / (then - start).norm())


def gone_on(job):
    """The run after its checkpoint, as if it had been killed there."""
    run = Path(f"{job}-run")
    for name in ("model.safetensors", "summary.json"):
        (run / name).unlink()
    recorded = _recorded.read_any(run / "config.json")
    return train.train(dataclasses.replace(recorded, resume="auto"))


@pytest.mark.parametrize("job", ["train", "draw"])
def test_an_older_run_goes_on_to_the_weights_it_had(job, workshop):
    run = gone_on(job)
    assert off(weights(run), job) < NEAR
    old, new = ((folder / "metrics.jsonl").read_text().splitlines() for folder in (FIXTURES / run.name, run))
    cut = next(i for i, line in enumerate(old) if '"step": 4' in line)
    assert new[:cut] == old[:cut]
    losses = [[json.loads(line)["loss"] for line in lines if '"kind": "step"' in line] for lines in (old, new)]
    assert losses[1] == pytest.approx(losses[0], rel=NEAR)


def test_a_run_whose_last_map_was_taken_for_its_head_is_refused_with_the_difference(workshop):
    """A text encoder of one block: its last map went to AdamW, as the last of the model, and is Muon's now."""
    before = sorted(path.read_bytes() for path in Path("embed-run").rglob("*") if path.is_file())
    with pytest.raises(ValueError, match=r"another model or routing[^$]*text\.blocks\.0\.feed_forward\.down\.weight"):
        gone_on("embed")
    after = sorted(path.read_bytes() for path in Path("embed-run").rglob("*") if path.is_file())
    assert len(set(before) - set(after)) <= 2  # the two files that the test itself took away


@pytest.mark.parametrize("job", OLDER)
def test_the_comparison_sees_a_lost_optimizer_and_lost_weights(job, workshop, monkeypatch):
    assert off(weights(Path(f"{job}-run") / "checkpoints" / "step-00000003"), job) == pytest.approx(1)
    monkeypatch.setattr(optim.Muon, "load_state_dict", lambda *_: None)
    assert off(weights(gone_on(job)), job) > 20 * NEAR


def test_older_runs_write_and_search(workshop):
    assert train.load_run("train-run").sample("a norm", tokens=3).startswith("a norm")
    assert len(Search("embed-run")("p the k", top=2)) == 2


@pytest.mark.parametrize("job", OLDER)
def test_a_configuration_says_today_what_it_said_then(job, workshop):
    """Every value is read and written as it was: no field has gone, or changed its meaning by another default."""
    file = Path(f"{job}-run") / "config.json"
    then = json.loads(file.read_text(encoding="utf-8"))
    _recorded.write(_recorded.read_any(file), file)
    now = json.loads(file.read_text(encoding="utf-8"))
    assert {name: now[name] for name in then} == then
