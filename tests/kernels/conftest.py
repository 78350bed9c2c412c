"""Kernels in Triton's interpreter, on a processor, where Triton is installed; elsewhere their tests are skipped."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spectrain._arrays._triton import choice

WHY = "kernels for CUDA need triton, for Linux: make test-integrations"
FOLDER = Path(choice.__file__).parent


@pytest.fixture(autouse=True)
def nothing_compared(monkeypatch):
    monkeypatch.setattr(choice, "_TRIALS", {})


@pytest.fixture
def capable(monkeypatch):
    """Let a processor count as a device that kernels are for."""
    monkeypatch.setattr(choice, "_capable", lambda device: True)


@pytest.fixture(scope="session")
def triton():
    return pytest.importorskip("triton", reason=WHY)


@pytest.fixture
def load(triton, monkeypatch, tmp_path):
    """Load a file of kernels as it is compiled, or with a line of it changed."""

    def load(name, old="", new=""):
        source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        assert not old or source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {name}.py"
        file = tmp_path / f"{name}_{len(list(tmp_path.iterdir()))}.py"
        file.write_text(source.replace(old, new) if old else source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"spectrain._arrays._triton.{name}", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def interpreted(load, monkeypatch):
    """The same in the interpreter, which here knows bfloat16."""
    from triton.runtime.interpreter import InterpreterBuilder

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl
    monkeypatch.setattr(InterpreterBuilder, "create_dot", lambda self, a, b, *rest: dot(self, wide(a), wide(b), *rest))
    monkeypatch.setattr(
        InterpreterBuilder, "cast_impl", lambda self, x, to: to_bfloat16(x) if rounds(x, to) else cast(self, x, to)
    )
    return load


@pytest.fixture
def device(interpreted, capable, monkeypatch):
    """A processor as a device that kernels run on, four times as fast as what is torch's."""
    for name in ("symmetric", "quintics"):
        interpreted(name)
    ours = lambda run: 1.0 if "spectrain._arrays._triton" in run.func.__module__ else 4.0  # noqa: E731
    monkeypatch.setattr(choice, "_by_events", ours)


# The interpreter of Triton 3.7 holds bfloat16 as integers of 16 bits. It multiplies these (triton-lang/triton#11584,
# "we just don't support it yet"), and cuts float32 off where a GPU rounds. These two do what a GPU does.


def wide(x):
    """A block of bfloat16 as one of float32; others as they are."""
    import triton.language as tl

    if x.dtype.scalar != tl.bfloat16:
        return x
    return type(x)(torch.from_numpy(x.data.view(np.int16)).view(torch.bfloat16).float().numpy(), tl.float32)


def rounds(x, to):
    import triton.language as tl

    return (x.dtype.scalar, to.scalar) == (tl.float32, tl.bfloat16)


def to_bfloat16(x):
    """A block of float32, each entry to the nearest."""
    import triton.language as tl

    bits = torch.from_numpy(np.ascontiguousarray(x.data)).bfloat16().view(torch.int16).numpy()
    return type(x)(bits.view(np.uint16), tl.bfloat16)
