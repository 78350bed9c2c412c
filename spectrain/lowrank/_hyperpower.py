"""The pseudo-inverse by iteration: products only."""

import math

import torch
from torch import Tensor

from spectrain.lowrank._matrix.error import frobenius, matrix_norm
from spectrain.lowrank._matrix.matrix import Real

FLOOR = 1e-4  # of rtol: rounding in directions that are zero doubles each step, to about 40 u / rtol^2


def by_iteration(A: Tensor, *, rtol: Real, name: str) -> Tensor:
    """Return A^+ as the limit of X <- X (2 I - A X) from X = A^H / (||A||_1 ||A||_inf), in double precision.

    The step squares 1 - a s^2 for each singular value s, a = 1 / (||A||_1 ||A||_inf) <= 1 / sigma_max^2 (Ben-Israel and
    Cohen 1966): after log2(40 / (a c^2)) steps all s above the cutoff c = rtol sigma_max are inverted to rounding, and
    those far below are still zero. X X^H A^H removes, to second order, what rounding put where A is zero. About values
    near the cutoff it cannot decide: their projector is neither 0 nor 1, or X is larger than 1 / c. That is found and
    refused. Cost: two products a step, about 2 log2(1 / rtol) + 8 steps.
    """
    if rtol < FLOOR:
        raise ValueError(
            f"{name}: method='iteration' needs rtol >= {FLOOR:g}, got {rtol:.3g}: rounding grows as 1 / rtol^2. Pass a "
            "larger rtol, or method='svd'"
        )
    with torch.no_grad():
        W = A.to(torch.complex128 if A.is_complex() else torch.float64)
        wide = W.mH if W.shape[-2] > W.shape[-1] else W
        bound = wide.abs().sum(-1).amax(-1) * wide.abs().sum(-2).amax(-1)
        X = wide.mH / torch.where(bound > 0, bound, 1.0)[..., None, None]
        cutoff = rtol * matrix_norm(wide, 2)
        least = torch.where(bound > 0, cutoff.square() / bound, 1.0)
        for _ in range(math.ceil(math.log2(40 / float(least.min()))) if least.numel() else 0):
            X = 2 * X - X @ (wide @ X)
        X = (X @ X.mH) @ wide.mH
        X = 2 * X - X @ (wide @ X)
        projector = wide @ X
        loose = frobenius(projector @ projector - projector)
        if not bool(((loose <= 1e-6) & (matrix_norm(X, 2) * cutoff <= 1)).all()):
            raise ValueError(
                f"{name}: iteration cannot decide the rank: a singular value is near rtol = {rtol:.3g} times the "
                "largest; pass another rtol, or method='svd'"
            )
        return X.mH if W.shape[-2] > W.shape[-1] else X
