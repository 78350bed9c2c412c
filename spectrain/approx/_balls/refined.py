"""Large linear systems in many digits: factored in doubles, refined in balls."""

import flint
import numpy as np
from flint import arb, arb_mat

from spectrain.approx._balls.range import precise

_SMALL = 24
"""Up to this size elimination in balls is as fast."""

_GUARD = 32
"""Bits beyond the working precision that sums of products need."""


def solve_refined(rows: list[list[arb]], right: list[arb], about: np.ndarray) -> list[arb] | None:
    """The solution as midpoints, to about the working precision; None where doubles are no help.

    ``about`` is the matrix in doubles. Each round solves for the residual with the inverse of that matrix and gains
    up to 50 bits, for n^2 products of balls where elimination takes n^3 / 3 (Wilkinson 1963; Moler, *Iterative
    refinement in floating point*, J. ACM 1967). A round that gains less than eight bits ends the attempt.
    """
    if len(rows) < _SMALL or not np.isfinite(about).all():
        return None
    try:
        inverse = np.linalg.inv(about)
    except np.linalg.LinAlgError:
        return None
    with precise(flint.ctx.prec + _GUARD):
        return _refine(arb_mat(rows), arb_mat([[v.mid()] for v in right]), inverse)


def _refine(A: arb_mat, b: arb_mat, inverse: np.ndarray) -> list[arb] | None:
    n = len(inverse)
    x, rest, size = arb_mat(n, 1), b, _largest(b)
    goal = size * arb(2) ** (_GUARD - flint.ctx.prec)
    while size > goal:
        step = inverse @ np.array([float((v / size).mid()) for v in rest.entries()])
        if not np.isfinite(step).all():
            return None
        moved = [(v + size * arb(d)).mid() for v, d in zip(x.entries(), step.tolist(), strict=True)]
        x = arb_mat(n, 1, moved)
        rest = b - A * x
        before, size = size, _largest(rest)
        if not size < before / 256:
            return None
    return list(x.entries())


def _largest(column: arb_mat) -> arb:
    return max((abs(v.mid()) for v in column.entries()), key=float, default=arb(0))
