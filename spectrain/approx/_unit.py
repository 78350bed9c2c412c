"""The best ``x q(x^r)`` for the constant 1: one step of every iteration in this layer."""

from functools import lru_cache
from math import log2

import flint
import numpy as np
from flint import arb, arb_mat, arb_poly

from spectrain.approx._precision import ball, precise

# Below this relative width of the interval all solutions agree with their limit to far more than any
# dtype holds; a wider interval than needed is still a bound.
_NARROWEST = 1e-40


def unit_step(lower: arb, upper: arb, terms: int, stride: int = 2) -> tuple[list[arb], arb]:
    """Coefficients c and error E of the best ``c0 x + c1 x^(r+1) + ... `` for 1 on [lower, upper].

    ``terms`` counts the coefficients, ``stride`` is r. The error of the best one alternates ``terms + 1``
    times, at both ends and at every zero of p' (article 10996, kexue.fm/archives/10996). Exchange: solve for
    the level at the reference, move the reference to the zeros of p', which are all real and inside, and repeat. Balls
    are used as high-precision numbers here; proofs are made elsewhere, from the result.
    """
    width = max(float((upper - lower) / upper), _NARROWEST)
    with precise(120 + int((2 * terms + 4) * max(0.0, log2(1 / width)))):
        rho = arb(1) - ball(width).mid() if width == _NARROWEST else (lower / upper).mid()
        points = _seed(float(rho), terms, stride) if width > 0.1 else _chebyshev(rho, terms)
        c, error = _exchange(rho, points, terms, stride)
        return [(c[j] / upper ** (1 + j * stride)).mid() for j in range(terms)], error


def _chebyshev(rho: arb, terms: int) -> list[arb]:
    """Interior Chebyshev points of [rho, 1]: where the alternation points go as rho tends to 1."""
    half, centre = (1 - rho) / 2, (1 + rho) / 2
    return [(centre - half * arb.cos_pi_fmpq(flint.fmpq(i, terms))).mid() for i in range(1, terms)]


@lru_cache(maxsize=4096)
def _seed(rho: float, terms: int, stride: int) -> tuple[float, ...]:
    """Interior alternation points in double precision, about 8 digits."""
    x = (1 + rho) / 2 - (1 - rho) / 2 * np.cos(np.pi * np.arange(terms + 1) / terms)
    signs = (-1.0) ** np.arange(terms + 1)
    powers = 1 + stride * np.arange(terms)
    for _ in range(60):
        c = np.linalg.solve(np.column_stack([x[:, None] ** powers, signs]), np.ones(terms + 1))[:-1]
        y = np.sort(np.roots((c * powers)[::-1]).real)
        moved = np.clip(y, rho**stride, 1.0) ** (1 / stride)
        if np.abs(moved - x[1:-1]).max(initial=0.0) < 1e-9:
            break
        x[1:-1] = moved
    return tuple(float(value) for value in x[1:-1])


def _exchange(rho: arb, interior: object, terms: int, stride: int) -> tuple[list[arb], arb]:
    """Solve for the level, let every interior point take Newton steps to its zero of p', until none moves."""
    x = [rho, *(ball(p) for p in interior), arb(1)]  # type: ignore[attr-defined]
    small = (1 - rho) * ball(2.0 ** -(flint.ctx.prec // 3))
    while True:
        c, error = _level(x, terms, stride)
        slope = arb_poly([c[j] * (1 + j * stride) for j in range(terms)])
        moved = [_zero(slope, x[i - 1] ** stride, x[i] ** stride, x[i + 1] ** stride) for i in range(1, terms)]
        moved = [y.root(stride).mid() for y in moved]
        shift = max((abs(a - b) for a, b in zip(moved, x[1:-1], strict=True)), key=float, default=arb(0))
        if shift < small:
            return c, error
        x[1:-1] = moved


def _level(x: list[arb], terms: int, stride: int) -> tuple[list[arb], arb]:
    """p and E with p(x_i) = 1 - (-1)^i E at the terms + 1 points."""
    rows = [[xi ** (1 + j * stride) for j in range(terms)] + [arb((-1) ** i)] for i, xi in enumerate(x)]
    solution = arb_mat(rows).solve(arb_mat([[1]] * (terms + 1)), algorithm="approx")
    values = [solution[i, 0].mid() for i in range(terms + 1)]
    return values[:-1], values[-1]


def _zero(slope: arb_poly, left: arb, start: arb, right: arb) -> arb:
    """The zero of ``slope`` near ``start``, by three Newton steps that stay between the neighbours."""
    bend = slope.derivative()
    y = start
    for _ in range(3):
        step = (y - (slope(y) / bend(y)).mid()).mid()
        if step <= left:
            step = ((left + y) / 2).mid()
        elif step >= right:
            step = ((right + y) / 2).mid()
        y = step
    return y
