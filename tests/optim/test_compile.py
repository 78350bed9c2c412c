"""The whole step under torch.compile, as one graph where it may read no value; and steps that read none."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from spectrain._arrays import scale
from spectrain.optim import Muon
from spectrain.optim._variants.variants import VARIANTS

RULES = {"3.weight": "sign", "0.weight": "rows", "1.weight": {"split": (8, 4)}}
SETTINGS = {
    "plain": {},
    "normuon": {"variant": "normuon", "decay": "cautious", "maximize": True},
    "adam": {"variant": "adam", "decay": "spectral", "rules": RULES, "nesterov": False},
} | {variant.name: {"variant": variant.name} for variant in VARIANTS[3:]}


def made(**settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 12), nn.Conv2d(2, 4, 3), nn.LayerNorm(4), nn.Linear(12, 7))
    return model, Muon(model, compute_dtype="float32", **settings)


def drive(model, step, steps=3):
    for i in range(steps):
        for k, p in enumerate(model.parameters()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * i + k))
        step()


def differences(backend):
    command = [sys.executable, str(Path(__file__).with_name("compiled.py")), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_step_is_one_graph_that_takes_the_same_steps():
    """KellerJordan/Muon #40: no compiling, no capturable; modded-nanogpt #268: NaN when compiled."""
    found = differences("eager")
    assert found.pop("graphs") == [2]  # one for the first rate, one for all others
    assert set(found) == {"every_variant", "checked"}
    assert max(itertools.chain(*found.values())) < 2e-6


@pytest.mark.full
def test_inductor_takes_the_same_steps():
    found = differences("inductor")
    found.pop("graphs")
    assert max(itertools.chain(*found.values())) < 1e-4


class NoReading(TorchDispatchMode):
    """Refuses every operation that brings a value to Python."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("a value was read")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_capturable_step_reads_no_value(settings, monkeypatch):
    """As a CUDA graph demands; that one is being recorded is put on here, for there is no GPU."""
    model, optimizer = made(lr=torch.tensor(0.01), capturable=True, **settings)
    monkeypatch.setattr(scale, "recording", lambda: True)
    with NoReading():
        drive(model, optimizer.step)
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_check_sees_a_value_that_is_read():
    model, optimizer = made(lr=torch.tensor(0.01))
    with NoReading(), pytest.raises(AssertionError, match="a value was read"):
        drive(model, optimizer.step)


def test_capturable_and_a_check_contradict_each_other():
    with pytest.raises(ValueError, match="CUDA graph"):
        made(capturable=True, check_finite=True)


@pytest.mark.parametrize(("start", "left"), [(0.02, 0.95), (0.0, 1.0)])
def test_independent_decay_reads_no_value_of_where_the_rate_began(start, left, monkeypatch):
    monkeypatch.setattr(scale, "recording", lambda: True)
    p = nn.Parameter(torch.ones(2, 2))
    p.grad = torch.zeros(2, 2)
    optimizer = Muon([p], lr=torch.tensor(0.01), weight_decay=0.1, decay="independent", capturable=True)
    optimizer.param_groups[0]["initial_lr"] = torch.tensor(start)
    with NoReading():
        optimizer.step()
    torch.testing.assert_close(p, torch.full((2, 2), left))
