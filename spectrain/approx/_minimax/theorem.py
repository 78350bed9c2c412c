"""Chebyshev's theorem as a check."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spectrain.approx._minimax.answer import Minimax
from spectrain.approx._minimax.domain import intervals_of, is_chebyshev, reduce_by_parity
from spectrain.approx._minimax.problem import evaluate
from spectrain.approx._polynomial import Number, Polynomial


def equioscillates(
    result: Minimax | Polynomial,
    f: Callable[[Any], Any] | None = None,
    interval: Sequence[Any] | None = None,
    *,
    weight: Callable[[Any], Any] | None = None,
    rtol: Number = 1e-6,
) -> bool:
    """Whether the error of a polynomial alternates at one point more than it has powers, at its largest size.

    Chebyshev's theorem: for a Chebyshev system (all powers to n on any interval; odd, even or any powers on part of
    (0, inf)) this characterises the best approximation; article 10972 (kexue.fm/archives/10972) proves it with its odd
    and even variants. A `Minimax` brings target and interval along; a `Polynomial` needs them. Peaks within ``rtol`` of
    the largest count. On a grid of 20,000 points a piece, so it refuses a wrong polynomial but proves nothing:
    `Minimax.gap` does. Where the powers are no Chebyshev system alternation says nothing, and a ValueError says so.

    >>> from spectrain.approx import minimax
    >>> best = minimax(np.exp, 3, (-1, 1))
    >>> equioscillates(best)
    True
    >>> taylor = Polynomial((0, 1, 2, 3), (1.0, 1.0, 1 / 2, 1 / 6))
    >>> equioscillates(taylor, np.exp, (-1, 1))
    False
    """
    if isinstance(result, Minimax):
        f, weight = result.problem.target, result.problem.weight
        interval = result.interval
        if result.problem.conditions or not is_chebyshev(reduce_by_parity(result.problem)):
            raise ValueError(
                "equioscillates: these powers are no Chebyshev system here; see .lower and .upper instead."
            )
    if f is None or interval is None:
        raise ValueError("equioscillates: a Polynomial needs the target f and the interval, a Minimax brings them.")
    powers = result.polynomial.powers if isinstance(result, Minimax) else result.powers
    pieces = intervals_of(interval)
    x = np.concatenate([_grid(a, b) for a, b in pieces])
    if isinstance(result, Minimax):
        x = np.unique(np.concatenate([x, result.reference]))
    target = evaluate(f, x)
    e = target - evaluate(result, x)
    # The error is known to the rounding of the target only.
    rounding = 2.0**-48 * float(np.abs(target).max()) / max(float(np.abs(e).max()), 1e-300)
    e = e * evaluate(weight, x) if weight is not None else e
    return alternations(e, rtol=max(float(rtol), min(rounding, 0.01))) >= _needed_points(powers, pieces)


def _needed_points(powers: tuple[int, ...], pieces: list[tuple[float, float]]) -> int:
    """n + 1 points; both signs of x count where a parity halves the interval."""
    symmetric = pieces[0][0] == -pieces[-1][1]
    parity = len({n % 2 for n in powers}) == 1 and powers != (0,)
    if not symmetric or not parity:
        return len(powers) + 1
    return 2 * (len(powers) + 1) - (1 if powers[0] % 2 == 0 else 0)


def _grid(a: float, b: float) -> np.ndarray:
    chebyshev = a + (b - a) * (1 - np.cos(np.linspace(0, np.pi, 20_001))) / 2
    return np.unique(np.concatenate([chebyshev, np.geomspace(a, b, 5_001)])) if a > 0 else chebyshev


def alternations(e: np.ndarray, *, rtol: Number) -> int:
    """The longest alternation of values within ``rtol`` of the largest |e|."""
    large = e[np.abs(e) >= np.abs(e).max() * (1 - float(rtol))]
    return 1 + int(np.count_nonzero(np.sign(large[1:]) != np.sign(large[:-1]))) if len(large) else 0
