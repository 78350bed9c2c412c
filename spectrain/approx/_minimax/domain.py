"""Intervals, and what symmetry and zeros make of a problem."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from flint import arb, arb_series

from spectrain.approx._balls.jet import follow
from spectrain.approx._balls.range import ball, precise
from spectrain.approx._minimax.problem import Callable1, Problem

_PARITY_BITS = 1200
"""More than any error above the range of doubles needs."""


def intervals_of(interval: Sequence[Any]) -> list[tuple[float, float]]:
    """One interval or several as a list, checked: finite, not reversed, not empty, disjoint and in order."""
    pairs = [interval] if len(interval) == 2 and not hasattr(interval[0], "__len__") else list(interval)
    try:
        result = sorted((float(a), float(b)) for a, b in pairs)
    except OverflowError:
        raise ValueError("interval must lie within the range of doubles: scale x.") from None
    if not result:
        raise ValueError("interval: at least one [a, b] is needed, got none.")
    for a, b in result:
        if not (abs(a) < float("inf") and abs(b) < float("inf") and a < b):
            raise ValueError(f"interval must be finite with a < b, got [{a}, {b}].")
    if not result[-1][1] - result[0][0] < float("inf"):
        raise ValueError(f"interval [{result[0][0]}, {result[-1][1]}] is longer than the largest double: scale x.")
    for (_, b), (a, _) in pairwise(result):
        if a <= b:
            raise ValueError(f"intervals overlap or touch at {a}: merge them.")
    return result


def reduce_by_parity(problem: Problem) -> Problem:
    """The problem on the positive half where parity allows it; checks weight and the value at 0."""
    check_weight(problem)
    _check_zero(problem)
    half = _positive_half(problem)
    parity = _parity(problem) if half else None
    if half is None or parity is None:
        return problem
    # The mean of p(x) and p(-x), or of p(x) and -p(-x), is no worse than p, so powers of the other parity are idle.
    more = (tuple(abs(x) for x in problem.watched), problem.sampled)
    kept = tuple(n for n in problem.powers if n % 2 == parity)
    if not kept:
        return problem
    if kept == problem.powers:
        return Problem(problem.target, problem.weight, kept, half, problem.target_ball, problem.weight_ball, *more)
    sign = -1 if parity else 1
    return Problem(
        _part(problem.target, sign), _mean(problem.weight), kept, half,
        _part(problem.target_ball, sign), _mean(problem.weight_ball), *more,
    )  # fmt: skip


def check_bounded(problem: Problem, x: np.ndarray) -> None:
    """Raise ValueError where the target grows without end at one of these points: a pole that no double meets.

    At the largest value the target is looked at from distances of 2^-30 and 2^-46: the inverse of a root of the
    distance grows by 2^8. A high narrow peak that balls enclose is none.
    """
    if not len(x):
        return
    values = np.abs(problem.values(x)[0])
    at, half = float(x[np.argmax(values)]), float(problem.half)
    low, high = problem.pieces[0][0], problem.pieces[-1][1]
    far, near = (np.clip(at + half * 2.0**-k * np.array([-1, 1]), low, high) for k in (30, 46))
    far, near = (np.abs(problem.values(v)[0]).max() for v in (far, near))
    if max(near, values.max()) < 64 * far or (problem.followed and _is_enclosed(problem, at)):
        return
    raise ValueError(
        f"minimax: the function has no bound near x = {at:.17g}, where it is {values.max():.3g}: a pole inside the "
        "interval. Leave its neighbourhood out: interval=[(a, b), (c, d)]."
    )


def _is_enclosed(problem: Problem, at: float) -> bool:
    """Whether balls bound the target around this point."""
    wide = arb(ball(at), problem.half * ball(2.0**-46))
    return bool(follow(problem.target_ball, [arb_series([wide], prec=1)], 1)[0][0].is_finite())


def is_chebyshev(problem: Problem) -> bool:
    """Whether the powers are known to form a Chebyshev system on the domain (the point 0 apart)."""
    return problem.full or problem.pieces[0][0] >= 0 or problem.pieces[-1][1] <= 0


def _samples(problem: Problem) -> np.ndarray:
    return np.concatenate([*(np.linspace(a, b, 129) for a, b in problem.pieces), problem.watched])


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


def _part(f: Callable1, sign: int) -> Callable1:
    """The even or the odd part of f: its error bounds that of f from below, exactly."""
    return lambda x: (f(x) + sign * f(-x)) / 2


def _mean(weight: Callable1 | None) -> Callable1 | None:
    """The harmonic mean of w(x) and w(-x): what duality on pairs of points divides by."""
    return None if weight is None else lambda x: 2 / (1 / weight(x) + 1 / weight(-x))


def _parity(problem: Problem) -> int | None:
    """0 for an even target, 1 for an odd one, weight even, at samples; None without parity."""
    x = _samples(problem)
    (f, w), (f_back, w_back) = problem.values(x), problem.values(-x)
    size = 1e-13 * max(float(np.abs(f).max()), 1e-300)
    if np.abs(w - w_back).max() > 1e-13 * w.max():
        return None
    matches = [parity for parity in (0, 1) if np.abs(f - (1 - 2 * parity) * f_back).max() <= size]
    matches = [parity for parity in matches if _exactly(problem, x[::16], parity)]
    # The zero function is both: it takes the parity of the powers.
    return (problem.powers[0] % 2 if len(matches) == 2 else matches[0]) if matches else None


def _exactly(problem: Problem, x: np.ndarray, parity: int) -> bool:
    """Whether balls agree that target and weight have this parity: 1 + 1e-20 x is no even function."""
    if not problem.followed:
        return True
    with precise(_PARITY_BITS):
        there, back = (problem.values_ball([sign * ball(float(v)) for v in x]) for sign in (1, -1))
        pairs = zip(there, back, strict=True)
        return all((f - (1 - 2 * parity) * g).contains(0) and (w - v).contains(0) for (f, w), (g, v) in pairs)
