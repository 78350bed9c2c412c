"""What ``torch.compile`` is told of a function, without importing the compiler, a second of work, before it is used."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def constant_in_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function whose result a graph may take as a constant, as ``torch.compiler.assume_constant_result``.

    >>> constant_in_graphs(lambda: 3)()
    3
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """Let a graph break at a function, as ``torch.compiler.disable``; nobody compiles where nobody has the compiler.

    >>> outside_graphs(lambda x: x + 1)(1)
    2
    """
    disabled = torch._disable_dynamo(function)  # imports the compiler when it is called

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs) if "torch._dynamo" not in sys.modules else disabled(*args, **kwargs)

    return call
