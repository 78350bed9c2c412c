"""A problem of best approximation: target, weight, powers and domain, in double precision and in balls."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, no_type_check

import numpy as np
from flint import arb, arb_poly, arb_series

from spectrain.approx._balls.branches import NotFollowedError, UndecidedError
from spectrain.approx._balls.jet import follow
from spectrain.approx._balls.range import ball

Array = np.ndarray
Callable1 = Callable[[Any], Any]


@dataclass(frozen=True)
class Problem:
    """Minimise ``max weight |target - sum c_j x^powers[j]|`` over the union of ``pieces``.

    Points are doubles s in [-1, 1] for x = centre + half s, the hull of the domain, so that neither tiny nor huge
    intervals lose digits. ``stride`` is the common difference of the powers (0: none); with it the basis is
    z^first T_k(affine(z^stride)), well conditioned, else the monomials z^power, z = (x - shift) / scale. ``watched``
    are points that a search met between those of its grid, ``sampled`` says that balls are of no use.
    """

    target: Callable1
    weight: Callable1 | None
    powers: tuple[int, ...]
    pieces: tuple[tuple[float, float], ...]
    target_ball: Callable1
    weight_ball: Callable1 | None
    watched: tuple[float, ...] = ()
    sampled: bool = False

    @cached_property
    def centre(self) -> arb:
        return ((ball(self.pieces[0][0]) + ball(self.pieces[-1][1])) / 2).mid()

    @cached_property
    def half(self) -> arb:
        return ((ball(self.pieces[-1][1]) - ball(self.pieces[0][0])) / 2).mid()

    @property
    def conditions(self) -> tuple[Any, ...]:
        """What the polynomial has to meet besides."""
        return ()

    @property
    def unknowns(self) -> int:
        """Number of free coefficients."""
        return len(self.powers)

    @cached_property
    def stride(self) -> int:
        """The common difference of the powers, 0 when there is none."""
        if len(self.powers) == 1:
            return 1
        steps = {b - a for a, b in zip(self.powers, self.powers[1:], strict=False)}
        return steps.pop() if len(steps) == 1 else 0

    @property
    def spare(self) -> int:
        """Bits of a working precision that only the coefficients of powers need, not systems in the basis."""
        if not self.stride:
            return 0
        return (2 if len(self.pieces) == 1 else 1) * self.powers[-1]

    @property
    def full(self) -> bool:
        """Whether the powers are 0, 1, ..., n."""
        return self.powers[0] == 0 and self.stride == 1

    @cached_property
    def shift(self) -> arb:
        return self.centre if self.full else arb(0)

    @cached_property
    def scale(self) -> arb:
        ends = ball(self.pieces[0][0]), ball(self.pieces[-1][1])
        return self.half if self.full else (abs(ends[0]) if abs(ends[0]) > abs(ends[1]) else abs(ends[1]))

    @cached_property
    def _bulk(self) -> tuple[arb, arb]:
        """Centre and half width of z^stride over the domain."""
        if self.full:
            return arb(0), arb(1)
        first, last = self.pieces[0][0], self.pieces[-1][1]
        ends = [(ball(e) / self.scale) ** max(self.stride, 1) for e in (first, last)]
        if first < 0 < last and self.stride % 2 == 0:
            ends = [arb(0), arb(1)]
        return (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2

    @cached_property
    def ends(self) -> Array:
        """The ends of the pieces as s, two a row."""
        rows = [[float((ball(e) - self.centre) / self.half) for e in piece] for piece in self.pieces]
        ends = np.clip(np.array(rows), -1.0, 1.0)
        # Rounding may leave the ends of the hull inside by a bit, which is far from them where the target is steep.
        ends[0, 0], ends[-1, 1] = -1.0, 1.0
        return ends

    @no_type_check  # called for every point
    def exact(self, s: float) -> arb:
        """The point of the domain that s stands for: ends are met exactly, no point is outside."""
        x = (self.centre + self.half * ball(float(s))).mid()
        k = 0
        if len(self.pieces) > 1:
            k = int(np.argmin(np.maximum(self.ends[:, 0] - s, s - self.ends[:, 1])))
        low, high = map(ball, self.pieces[k])
        return low if x < low or s <= self.ends[k, 0] else high if x > high or s >= self.ends[k, 1] else x

    def doubles(self, s: Array) -> Array:
        """The same in double precision."""
        low, high = self.pieces[0][0], self.pieces[-1][1]
        x = low * ((1 - s) / 2) + high * ((1 + s) / 2)
        outside = np.maximum(self.ends[:, 0] - s[:, None], s[:, None] - self.ends[:, 1])
        k = np.argmin(outside, axis=1)
        a, b = np.array(self.pieces).T
        x = np.clip(x, a[k], b[k])
        return np.where(s <= self.ends[k, 0], a[k], np.where(s >= self.ends[k, 1], b[k], x))

    # The basis

    def basis(self, x: Array) -> Array:
        """One row a point, one column a basis function, in double precision."""
        return self.basis_at((x - float(self.shift)) / float(self.scale))

    def basis_at(self, z: Array) -> Array:
        """The same at points of the scaled variable: on an interval that few doubles lie in these are exact."""
        if not self.stride:
            return z[:, None] ** np.array(self.powers)
        centre, half = map(float, self._bulk)
        t = np.clip((z**self.stride - centre) / half, -1, 1) if half else z * 0
        return np.polynomial.chebyshev.chebvander(t, len(self.powers) - 1) * z[:, None] ** self.powers[0]

    def basis_ball(self, x: arb) -> list[arb]:
        """The same row in balls."""
        z = (x - self.shift) / self.scale
        if not self.stride:
            return [z**n for n in self.powers]
        t = self.affine(z)
        row = [z ** self.powers[0]]
        row.append(row[0] * t)
        for _ in range(len(self.powers) - 2):
            row.append(2 * t * row[-1] - row[-2])
        return row[: len(self.powers)]

    def affine(self, z: arb) -> arb:
        """The argument of the Chebyshev polynomials of the basis."""
        centre, half = self._bulk
        return (z**self.stride - centre) / half

    def polynomial(self, c: list[arb]) -> arb_poly:
        """The polynomial of z with these coefficients in the basis, exact coefficients (midpoints)."""
        if not self.stride:
            dense = [arb(0)] * (self.powers[-1] + 1)
            for n, cj in zip(self.powers, c, strict=True):
                dense[n] = cj.mid()
            return arb_poly(dense)
        centre, half = self._bulk
        t = arb_poly([-centre / half, 1 / half])
        # Clenshaw's recurrence on polynomials of y = z^stride.
        ahead, here = arb_poly([0]), arb_poly([0])
        for cj in reversed(c[1:]):
            here, ahead = 2 * t * here - ahead + cj, here
        q = t * here - ahead + c[0]
        dense = [arb(0)] * (self.powers[-1] + 1)
        for k, coefficient in enumerate(q.coeffs()):
            dense[self.powers[0] + k * self.stride] = coefficient.mid()
        return arb_poly(dense)

    # Target and weight

    def values(self, x: Array) -> tuple[Array, Array]:
        """Target and weight at doubles."""
        return evaluate(self.target, x), (np.ones_like(x) if self.weight is None else evaluate(self.weight, x))

    def values_ball(self, points: list[arb]) -> list[tuple[arb, arb]]:
        """Target and weight at points, in balls where they can be followed, else as the doubles they return."""
        if not self.followed:
            f, w = self.values(np.array([float(x) for x in points]))
            return [(ball(float(a)), ball(float(b))) for a, b in zip(f, w, strict=True)]
        series = [arb_series([x], prec=1) for x in points]
        targets = follow(self.target_ball, series, 1)
        weights = follow(self.weight_ball, series, 1) if self.weight_ball else [arb_series([1])] * len(points)
        values = [(a[0], b[0]) for a, b in zip(targets, weights, strict=True)]
        if not all(f.is_finite() and w.is_finite() for f, w in values):
            raise NotFollowedError("finite in doubles, not in balls")
        return values

    @cached_property
    def followed(self) -> bool:
        """Whether target and weight are known in ball arithmetic."""
        if self.sampled:
            return False
        x = self.exact(0.15625 * self.ends[0, 0] + 0.84375 * self.ends[0, 1])
        try:
            for g in filter(None, (self.target_ball, self.weight_ball)):
                value = follow(g, [arb_series([x], prec=1)], 1)[0][0]
                if not value.is_finite():
                    return False
            self.values(np.array([float(x)]))
        except (NotFollowedError, UndecidedError):
            return False
        return True


def evaluate(f: Callable1, x: Array) -> Array:
    """f at doubles: on the array, or one by one where it only takes numbers. Raises ValueError unless finite."""
    with np.errstate(all="ignore"):
        try:
            values = np.broadcast_to(_real(f(x)), x.shape)
        except (TypeError, ValueError):
            values = np.array([_real(f(float(v))) for v in x]).reshape(x.shape)
    _check_real(values, x)
    if not np.isfinite(values).all():
        bad = x[~np.isfinite(values)][0]
        raise ValueError(
            f"minimax: the function is {values[~np.isfinite(values)][0]} at x = {bad:.17g}. It must be finite on the "
            "whole interval; leave the singular point out."
        )
    return np.array(values)


def _real(values: Any) -> Array:
    """Values as doubles; NaN with an imaginary part, which `_check_real` refuses, where they are complex."""
    given = np.asarray(values)
    return np.asarray(given if np.iscomplexobj(given) else np.asarray(given, dtype=float))


def _check_real(values: Array, x: Array) -> None:
    if np.iscomplexobj(values):
        raise ValueError(
            f"minimax: the function must be real, got {values[0]} at x = {x[0]:.17g}. Approximate the real and the "
            "imaginary part, each by itself."
        )
