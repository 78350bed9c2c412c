"""msign and mstep with a certified error, as one differentiable node."""

from typing import Any

import torch
from torch import Tensor

from spectrain.matfun._certified import Certified, certified_sign
from spectrain.matfun._derivative import change_of_part, change_of_sign
from spectrain.matfun._input import Real
from spectrain.matfun._operator import Operator


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
    return change_of_sign(X, Y, D) if options[-1] is None else change_of_part(X, Y, D)


_operator = Operator(
    "sign(Tensor X, ScalarType out_dtype, str name, str? method, float? tol, float? rtol, float slack, "
    "float? threshold) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    compute=_compute,
    fake=_fake,
    change=_change,
)
