"""The first step comes soon: nothing is imported, and nothing is designed, that it does not need."""

import subprocess
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from spectrain._arrays.graphs import constant_in_graphs, outside_graphs
from spectrain.approx._schedules import sign
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
{more}
print(*(name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules))
"""


def _imported(more=""):
    call = [sys.executable, "-c", STEP.format(more=more)]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()


def test_a_step_does_not_import_the_compiler():
    assert _imported() == []
    assert "torch._dynamo" in _imported("torch.compiler.disable(print)")  # as a decorator in any file would


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [None, 3])
def test_a_first_step_designs_nothing(monkeypatch, tmp_path, dtype, steps):
    """With an empty cache folder; four steps, which no table holds, are designed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    designed, original = [], sign.design
    monkeypatch.setattr(sign, "design", lambda setting: designed.append(setting) or original(setting))
    for count in (steps, 4):
        _schedule_of.cache_clear()
        p = torch.nn.Parameter(torch.eye(5, 7))
        p.grad = torch.ones(5, 7)
        Muon([p], steps=count, compute_dtype=dtype).step()
        assert [setting.steps for setting in designed] == ([4] if count == 4 else [])
    _schedule_of.cache_clear()
