"""The refusal of NaN and infinite entries, at the index that they have in what the caller passed."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


class NotFiniteError(ValueError):
    """Entries are NaN or infinite; ``place`` is that of their matrix in a list, where one was passed."""

    def __init__(self, message: str, place: int | None = None) -> None:
        super().__init__(message)
        self.place = place


def refusal(X: Tensor, name: str, place: int | None = None) -> NotFiniteError:
    """Return the error for X (*batch, m, n), of which some entry is not finite."""
    bad = ~X.isfinite()
    where = tuple(bad.nonzero()[0].tolist())
    which = "" if place is None else f" of matrix {place} of the list"
    return NotFiniteError(
        f"{name}: {int(bad.sum())} of {X.numel()} entries{which} are NaN or infinite, the first at index {where}. "
        "Singular values and factors need finite entries; find where these came from (a loss that overflowed?), or "
        "impute them (missing data?).",
        place,
    )


def all_finite(X: Tensor) -> bool:
    """Whether no entry is NaN or infinite: by the norm, ten times faster than entry by entry unless it overflows."""
    return bool(torch.linalg.vector_norm(X.detach()).isfinite()) or bool(torch.isfinite(X).all())


def locate_errors(argument: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that a ``NotFiniteError`` out of it speaks of ``argument`` as the caller passed it.

    Inside, matrices are gathered, flattened, widened and embedded, and the index would be one of those. Nothing is
    looked at until an error is on its way.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def door(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except NotFiniteError as error:
                given = inspect.signature(function).bind(*args, **kwargs).arguments[argument]
                raise _find(given, function.__name__, error) from None

        return door

    return decorate


def _find(given: Any, name: str, error: NotFiniteError) -> NotFiniteError:
    """The error for what was passed; the one at hand where nothing of it is wrong."""
    listed = isinstance(given, list | tuple)
    for place, matrix in enumerate(given if listed else [given]):
        # A copy of an array, which may be read-only, and no part of a graph.
        X = (
            torch.from_numpy(matrix.copy())
            if isinstance(matrix, np.ndarray)
            else torch.asarray(matrix, requires_grad=False)
        )
        if not bool(X.isfinite().all()):
            return refusal(X, name, place if listed else None)
    return error
