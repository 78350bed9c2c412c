"""The first step comes soon: nothing is imported, and nothing is designed, that it does not need."""

import subprocess
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from spectrain._arrays.graphs import constant_in_graphs, outside_graphs
from spectrain.approx._minimax import minimax
from spectrain.approx._schedules import best_steps, sign, unit
from spectrain.matfun import msign
from spectrain.matfun._iteration.design import _schedule_of
from spectrain.optim import Muon

STEP = """
import sys
import torch
from spectrain.optim import Muon

model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 5))
optimizer = Muon(model, lr=0.1)
for _ in range(2):
    model(torch.ones(2, 6)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
{more}
print(*(name for name in ("torch._dynamo", "torch._inductor", "torch.distributed.tensor") if name in sys.modules))
"""


def _imported(more=""):
    call = [sys.executable, "-c", STEP.format(more=more)]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()


def test_a_step_does_not_import_the_compiler():
    assert _imported() == []
    assert "torch._dynamo" in _imported("torch.compiler.disable(print)")  # as a decorator in any file would
    assert "torch._dynamo" in _imported("torch.optim.Optimizer.zero_grad(optimizer)")


def test_marks_are_those_of_torch():
    ours, theirs = (mark(lambda: 3) for mark in (constant_in_graphs, torch.compiler.assume_constant_result))
    assert vars(ours) == vars(theirs) != {}


def test_a_graph_breaks_where_it_is_told_to():
    reads = outside_graphs(lambda x: float(x.sum()))
    count = CompileCounter()
    compiled = torch.compile(lambda x: (x + 1) * reads(x), backend=count)
    x = torch.ones(3)
    assert torch.equal(compiled(x), torch.full((3,), 6.0))
    assert torch.equal(compiled(x + 1), torch.full((3,), 18.0))
    assert count.frame_count >= 2
    whole = CompileCounter()
    torch.compile(lambda x: (x + 1) * x.sum(), backend=whole)(x)
    assert whole.frame_count == 1


FIRST_STEPS = {
    "default": {},
    "bfloat16": {"compute_dtype": "bfloat16"},
    "float32": {"compute_dtype": "float32"},
    "normuon": {"variant": "normuon"},
    "muoneq": {"variant": "muoneq"},
    **{f"{steps} steps": {"steps": steps} for steps in range(3, 9)},
    **{f"{steps} steps in bfloat16": {"steps": steps, "compute_dtype": "bfloat16"} for steps in range(3, 9)},
}


@pytest.fixture
def nothing_remembered(monkeypatch, tmp_path):
    """An empty cache folder and no schedule of before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _schedule_of.cache_clear()
    yield
    _schedule_of.cache_clear()


@pytest.fixture
def designs_refused(monkeypatch, nothing_remembered):
    """Whoever designs a schedule, or the best polynomial of a step, fails."""

    def refuse(*given, **said):
        raise AssertionError(f"designed: {given}, {said}")

    for module, name in ((sign, "design"), (unit, "unit_step"), (best_steps, "unit_step"), (minimax, "minimax")):
        monkeypatch.setattr(module, name, refuse)


def _first_step(p, **said):
    p.grad = torch.ones_like(p)
    Muon([p], **said).step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("said", FIRST_STEPS.values(), ids=FIRST_STEPS)
def test_a_first_step_designs_nothing(designs_refused, said, dtype):
    _first_step(torch.nn.Parameter(torch.eye(5, 7, dtype=dtype)), **said)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_five_steps_for_a_measured_spectrum_design_nothing(designs_refused, dtype):
    assert msign(torch.eye(5, 7, dtype=dtype), steps=5, lower="measured").isfinite().all()


DESIGNED = {
    "steps that no table holds": lambda: _first_step(torch.nn.Parameter(torch.eye(5, 7)), steps=9),
    "an interval that no table holds": lambda: msign(torch.eye(5, 7), steps=5, lower=0.0123),
    "a measured spectrum, six steps": lambda: msign(torch.eye(5, 7), steps=6, lower="measured"),
    "a best approximation": lambda: minimax.minimax(abs, 3, (-1, 1)),
}


@pytest.mark.parametrize("call", DESIGNED.values(), ids=DESIGNED)
def test_a_design_would_be_seen(designs_refused, call):
    with pytest.raises(AssertionError, match="designed"):
        call()


def test_a_number_of_steps_that_no_table_holds_is_designed(monkeypatch, nothing_remembered):
    designed, original = [], sign.design
    monkeypatch.setattr(sign, "design", lambda setting: designed.append(setting.steps) or original(setting))
    _first_step(torch.nn.Parameter(torch.eye(5, 7, dtype=torch.float64)), steps=9)
    assert designed == [9]
