"""The exchange where the error is far below the target: in doubles, on what a polynomial in many digits leaves over."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from flint import arb

from spectrain.approx._balls.range import ball, precise
from spectrain.approx._minimax.exchange import Balls, Doubles, Exchange, between, exchange
from spectrain.approx._minimax.level import Known, alternating_signs, solve_level
from spectrain.approx._minimax.problem import Array, Problem
from spectrain.approx._minimax.start import first_reference, initial_grid

_ROUNDS = 8
_FEW = 100
_SMOOTH = 40
"""Bits below the target from where on what kinks there are is smooth enough for parabolas."""
_TRUSTED = 2.0**-22
"""The share of the remainder below which its level is a matter of rounding in doubles."""
_CROWDINGS = (0.0, 3.0, 5.0, 2.0)


class Deep(NamedTuple):
    """Where a search ended, and how many bits its level is below the size of the target."""

    reference: Array
    depth: float
    gap: float
    iterations: int


class Remainder(Doubles):
    """Exchange in doubles for ``(f - p) / unit``, whose values come from balls, each point once.

    The unit is the largest weighted remainder on ``s``.
    """

    def __init__(self, balls: Balls, coefficients: list[arb], s: Array) -> None:
        super().__init__(balls.problem)
        self.balls = balls
        self.polynomial = balls.problem.polynomial(coefficients)
        left = self._left(s)
        self.unit = max((abs(w * r).upper() for _, r, w in left), key=_order)
        self.known = self._scaled(s, left)

    def _left(self, s: Array) -> list[Known]:
        """The scaled variable, the remainder and the weight at points."""
        shift, size = self.problem.shift, self.problem.scale
        places = [((x - shift) / size, f, w) for x, f, w in self.balls.points(s)]
        return [(z, (f - self.polynomial(z)).mid(), w) for z, f, w in places]

    def _scaled(self, s: Array, left: list[Known]) -> dict[float, tuple[float, float, float]]:
        return {v: (float(z), float(r / self.unit), float(w)) for v, (z, r, w) in zip(s.tolist(), left, strict=True)}

    def tables(self, s: Array) -> tuple[Array, Array, Array]:
        new = np.array([v for v in s.tolist() if v not in self.known])
        self.known.update(self._scaled(new, self._left(new)))
        z, r, w = np.array([self.known[v] for v in s.tolist()]).reshape(-1, 3).T
        return self.problem.basis_at(z), r, w


def by_remainders(
    problem: Problem, size: float, bits: int, digits: int, *, start: Array | None, last: bool
) -> Deep | None:
    """The exchange for ``f - p0`` in doubles, p0 the polynomial of a reference in balls; None where it does not close.

    The best approximation of f is p0 and that of the remainder. Where the remainder is no larger than the level times
    2^22 doubles find its reference as they do for any function; where it is larger, p0 is made anew from the reference
    where they ended. So balls are asked for the target once a point, and for a polynomial once a round, where an
    exchange in balls asks for both at every trial of every peak. A remainder below 2^-digits of the target is lost.
    """
    with precise(bits):
        balls = Balls(replace(problem))
        count = problem.unknowns + 1
        grid = initial_grid(problem, count)
        s = start if start is not None else first_reference(problem, grid, count)
        iterations, before = 0, math.inf
        for _ in range(_ROUNDS):
            c, _ = solve_level(balls.problem, balls.points(s), alternating_signs(count))
            points = np.unique(np.concatenate([grid, s, between(problem, s)]))
            # A few points say already that more digits are wanted; that no more are left is said by all.
            depth = _depth(Remainder(balls, c, points[:: len(points) // _FEW + 1]).unit, size)
            if depth < digits or last:
                remainder = Remainder(balls, c, points)
                depth = _depth(remainder.unit, size)
            if depth >= digits:
                return Deep(s, depth, 1.0, iterations)
            run = _exchange(remainder, s, sparing=depth > _SMOOTH)
            s, iterations = run.reference, iterations + run.iterations
            if abs(run.level) > _TRUSTED and run.gap <= 1e-3:
                return Deep(s, depth - math.log2(abs(run.level)), run.gap, iterations)
            if not depth > before + 1 and before < math.inf:
                return None
            before = depth
    return None


def _exchange(remainder: Remainder, s: Array, *, sparing: bool) -> Exchange:
    """Another weight of distances is another chance, as for targets that doubles see."""
    for crowding in _CROWDINGS:
        run = exchange(
            remainder.problem, remainder, s, close=(lambda _: 1e-11) if crowding else _closeness, floor=2.0**-46,
            crowding=crowding, sparing=sparing,
        )  # fmt: skip
        if run.gap <= 1e-3 or abs(run.level) <= _TRUSTED:
            break
    return run


def _closeness(level: float) -> float:
    """Newton's method does the rest."""
    return max(1e-11, min(1e-4, 2.0**-44 / max(level, 1e-300)))


def _depth(value: arb, size: float) -> float:
    """Bits by which a value is smaller than the size of the target."""
    return -float((value / ball(size)).log() / arb(2).log()) if value > 0 else math.inf


def _order(value: arb) -> tuple[bool, float]:
    return value > 0, float(value.log()) if value > 0 else 0.0
