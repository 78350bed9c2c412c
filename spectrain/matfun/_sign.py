"""msign and mstep with a certified error, as one differentiable node."""

from typing import Any

import torch
from torch import Tensor

from spectrain.matfun._derivative.derivative import change_of_part, change_of_sign
from spectrain.matfun._derivative.node import Operator
from spectrain.matfun._entry.input import Real
from spectrain.matfun._proven.stages import Certified, certified_sign

_ROUNDS = 3


def sign(
    X: Tensor,
    *,
    out_dtype: torch.dtype,
    name: str,
    tol: Real | None = None,
    rtol: Real | None = None,
    method: str | None = None,
    slack: Real = 0.0,
    threshold: Real | None = None,
) -> Certified:
    """Return ``certified_sign`` of matrices (b, m, n), with the derivative of its ``Y``."""
    numbers = (None if value is None else float(value) for value in (tol, rtol, slack, threshold))
    return Certified(*_operator(X, out_dtype, name, method, *numbers))


def _compute(
    X: Tensor,
    out_dtype: torch.dtype,
    name: str,
    method: str | None,
    tol: float | None,
    rtol: float | None,
    slack: float,
    threshold: float | None,
) -> tuple[Tensor, ...]:
    kept: dict[str, Any] = {"method": method, "slack": slack, "threshold": threshold}
    return tuple(certified_sign(X, tol=tol, rtol=rtol, out_dtype=out_dtype, name=name, **kept))


def _fake(X: Tensor, out_dtype: torch.dtype, *_: object) -> tuple[Tensor, ...]:
    numbers = (X.new_empty(len(X), dtype=torch.float64) for _ in range(3))
    return X.new_empty(X.shape, dtype=out_dtype), *numbers


def _change(X: Tensor, Y: Tensor, D: Tensor, *options: object) -> Tensor:
    """At a threshold the singular values below it count; those that msign drops are noise, whatever their size."""
    if Y.dtype != torch.float64:
        X, Y = _unrounded(X.double(), Y.double())
    return change_of_sign(X, Y, D) if options[-1] is None else change_of_part(X, Y, D)


def _unrounded(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Return Y as the partial isometry that it was before it was rounded to its dtype, and X with the spaces of Y.

    What rounding leaves in dropped directions would be divided by their singular values, which are noise: a derivative
    of 1e7 where the right one is 1. y -> y^3 (5 - 3 y^2) / 2 has the fixed points 0 and 1 with slope 0 at both; three
    of them take 0.004 and 1.004 there to 1e-13. X becomes P X R + (I - P) X (I - R), P = Y Y^T and R = Y^T Y. Neither
    moves matrices that fit exactly, so that derivatives of them stay what they are.
    """
    if Y.shape[-2] > Y.shape[-1]:
        X, Y = _unrounded(X.mT, Y.mT)
        return X.mT, Y.mT
    for _ in range(_ROUNDS):
        G = Y @ Y.mT
        cube = G @ Y
        Y = 2.5 * cube - 1.5 * (G @ cube)
    left, right = Y @ (Y.mT @ X), (X @ Y.mT) @ Y
    return X - left - right + 2 * (Y @ (Y.mT @ right)), Y


_operator = Operator(
    "sign(Tensor X, ScalarType out_dtype, str name, str? method, float? tol, float? rtol, float slack, "
    "float? threshold) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    compute=_compute,
    fake=_fake,
    change=_change,
)
