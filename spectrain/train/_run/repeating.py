"""Kernels that give the same bits each time, for as long as a run lasts; the caller's settings come back afterwards."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_INDUCTOR = "TORCHINDUCTOR_DETERMINISTIC"
"""What Inductor reads when it is loaded."""


@contextmanager
def repeating() -> Iterator[None]:
    """Deterministic kernels inside, those that are compiled among them.

    It is ``torch.use_deterministic_algorithms``, which besides loads Inductor, and with it the compiler and sympy, to
    tell it so: a second before the first step of a run that compiles nothing. Here Inductor is told if it is there, and
    otherwise finds it said when somebody loads it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
    before = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over each tensor
    try:
        with _inductor():
            yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


@contextmanager
def _inductor() -> Iterator[None]:
    said, known = os.environ.get(_INDUCTOR), _config()
    before = said == "1" if known is None else known.deterministic
    os.environ[_INDUCTOR] = "1"
    if known is not None:
        known.deterministic = True
    try:
        yield
    finally:
        del os.environ[_INDUCTOR]
        if said is not None:
            os.environ[_INDUCTOR] = said
        if (loaded := _config()) is not None:
            loaded.deterministic = before


def _config() -> Any:
    """Inductor's settings; None while nobody has loaded it."""
    return sys.modules.get("torch._inductor.config")
