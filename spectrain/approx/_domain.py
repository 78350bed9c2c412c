"""Intervals, and what symmetry and zeros make of a problem."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from spectrain.approx._problem import Problem


def intervals_of(interval: Sequence[Any]) -> list[tuple[float, float]]:
    """One interval or several as a list, checked: finite, not reversed, not empty, disjoint and in order."""
    pairs = [interval] if len(interval) == 2 and not hasattr(interval[0], "__len__") else list(interval)
    result = sorted((float(a), float(b)) for a, b in pairs)
    if not result:
        raise ValueError("interval: at least one [a, b] is needed, got none.")
    for a, b in result:
        if not (abs(a) < float("inf") and abs(b) < float("inf") and a < b):
            raise ValueError(f"interval must be finite with a < b, got [{a}, {b}].")
    for (_, b), (a, _) in pairwise(result):
        if a <= b:
            raise ValueError(f"intervals overlap or touch at {a}: merge them.")
    return result


def reduced(problem: Problem) -> Problem:
    """The problem on the positive half where parity allows it; checks weight and the value at 0."""
    check_weight(problem)
    _check_zero(problem)
    half = _positive_half(problem)
    if half is None or problem.stride != 2 or not _has_parity(problem):
        return problem
    return Problem(problem.target, problem.weight, problem.powers, half, problem.target_ball, problem.weight_ball)


def is_chebyshev(problem: Problem) -> bool:
    """Whether the powers are known to form a Chebyshev system on the domain (the point 0 apart)."""
    low, high = problem.pieces[0][0], problem.pieces[-1][1]
    return problem.full or low >= 0 or (high <= 0 and problem.stride > 0)


def _samples(problem: Problem) -> np.ndarray:
    return np.concatenate([np.linspace(a, b, 129) for a, b in problem.pieces])


def check_weight(problem: Problem) -> None:
    """Raise ValueError unless the weight is positive at samples of the domain."""
    if problem.weight is None:
        return
    x = _samples(problem)
    w = problem.values(x)[1]
    if not (w > 0).all():
        raise ValueError(
            f"minimax: weight must be positive on the whole interval, got {w[w <= 0][0]} at x = {x[w <= 0][0]:.6g}. "
            "A weight of 0 or of changing sign measures no error there; shorten the interval."
        )


def _check_zero(problem: Problem) -> None:
    holds_zero = any(a <= 0 <= b for a, b in problem.pieces)
    if not holds_zero or problem.powers[0] == 0:
        return
    f, w = problem.values(np.array([0.0]))
    size = float(np.abs(problem.values(_samples(problem))[0]).max())
    if abs(f[0]) > 1e-14 * size:
        raise ValueError(
            f"minimax: every polynomial of powers {problem.powers} is 0 at 0, but f(0) = {f[0]:g}, so the error is at "
            f"least {abs(f[0] * w[0]):g} whatever the coefficients. Take 0 out of the interval or add the power 0."
        )


def _positive_half(problem: Problem) -> tuple[tuple[float, float], ...] | None:
    """The positive half of a symmetric domain."""
    if tuple((-b, -a) for a, b in reversed(problem.pieces)) != problem.pieces:
        return None
    return tuple((max(a, 0.0), b) for a, b in problem.pieces if b > 0)


def _has_parity(problem: Problem) -> bool:
    """Whether f has the parity of the powers and the weight is even, at samples."""
    x = _samples(problem)
    (f, w), (f_back, w_back) = problem.values(x), problem.values(-x)
    sign = -1.0 if problem.powers[0] % 2 else 1.0
    size = 1e-13 * max(float(np.abs(f).max()), 1e-300)
    return bool(np.abs(f - sign * f_back).max() <= size and np.abs(w - w_back).max() <= 1e-13 * w.max())
