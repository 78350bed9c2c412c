"""msign and mstep within a tolerance, as one differentiable node.

The cheapest stage of the plan runs first; its bound is checked, and where that fails the next one runs.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spectrain._arrays.scale import to_unit
from spectrain.matfun._derivative.derivative import change_of_part
from spectrain.matfun._derivative.node import Operator
from spectrain.matfun._derivative.sign import change_of_sign
from spectrain.matfun._entry.input import Real, default_tolerance, refuse
from spectrain.matfun._proven.algorithm import Algorithm, Sign
from spectrain.matfun._proven.algorithms import by_names, from_words
from spectrain.matfun._proven.cut import Cut, absolute
from spectrain.matfun._proven.plan import plan

_ROUNDS = 3  # cubic steps that undo a rounding to half precision: 0.004 becomes 1e-13


class Certified(NamedTuple):
    """msign of a batch in the output dtype, with its error bound, numerical rank and inverse condition."""

    Y: Float[Tensor, "b m n"]
    error: Float[Tensor, " b"]
    rank: Float[Tensor, " b"]
    smallest: Float[Tensor, " b"]


def certified_sign(
    X: Float[Tensor, "b m n"],
    *,
    tol: Real | None,
    rtol: Real | None,
    method: str | None,
    out_dtype: torch.dtype,
    name: str,
    slack: Real = 0.0,
    threshold: Real | None = None,
) -> Certified:
    """Return msign(X) with every error bound below tol, which includes the measured rounding to the output dtype.

    ``slack`` is kept free for what happens to Y afterwards. With ``threshold`` the singular values above it count,
    instead of those above the rank floor. ``method`` names one kind of algorithm, or all of a plan
    (`Plan.method`), else the plan of this process decides. Where not even the last stage proves tol, which it does not
    where a singular value is within its own error of the cut, a tol that was asked for is a ValueError and the default
    one a RuntimeWarning.
    """
    if X.numel() == 0:
        none = X.new_zeros(len(X), dtype=torch.float64)
        return Certified(X.to(out_dtype), none, none, none + 1)
    target = (default_tolerance(out_dtype) if tol is None else tol) - slack
    asked = by_names(plan(tuple(X.shape), out_dtype, tol).stages) if method is None else from_words(method)
    stages = [a for a in asked if a.fits(X.dtype, threshold is not None)]
    unit, k = to_unit(X, name)
    wide = unit if X.shape[-2] <= X.shape[-1] else unit.mT.contiguous()
    cut = Cut(X.dtype, rtol, None if threshold is None else absolute(threshold, k))
    best = _run_stages(wide, stages, target - torch.finfo(out_dtype).eps / 2, cut)
    Y = best.Y.to(out_dtype)
    error = best.error
    if Y.dtype != best.Y.dtype:
        error = error + torch.linalg.matrix_norm(Y.double() - best.Y.double()) / best.rank.clamp_min(1).sqrt()
    Y = Y if X.shape[-2] <= X.shape[-1] else Y.mT.contiguous()
    found = Certified(Y, error, best.rank, best.smallest)
    good = _is_settled(error, best.undecided, target)
    if not bool(good.all()):
        worst = int(torch.where(good, -1.0, error).argmax())
        refuse(_message(found, worst, best.undecided, cut, target, name), asked=tol is not None)
    return found


def _run_stages(X: Tensor, stages: list[Algorithm], tol: Real, cut: Cut) -> Sign:
    """Return the first stage whose bound is below tol, matrix by matrix, else the last one."""
    best = _run(stages[0], X, cut, tol)
    for stage in stages[1:]:
        again = (~_is_settled(best.error, best.undecided, tol)).nonzero().flatten()
        if len(again) == len(X):
            best = _run(stage, X, cut, tol)
        elif len(again):
            new = _run(stage, X[again], cut.of(again), tol)
            dtype = torch.promote_types(best.Y.dtype, new.Y.dtype)
            pairs = zip(best._replace(Y=best.Y.to(dtype)), new._replace(Y=new.Y.to(dtype)), strict=True)
            best = Sign(*(a.index_copy(0, again, b) for a, b in pairs))
    return best


def _is_settled(error: Float[Tensor, " b"], undecided: Float[Tensor, " b"], tol: Real) -> Bool[Tensor, " b"]:
    """Whether the bound is below tol, and the bound of the right rank: no singular value lies next to the cut."""
    return (error <= tol) & (undecided == 0)


def _run(stage: Algorithm, X: Tensor, cut: Cut, tol: Real) -> Sign:
    Y, *numbers = stage.run(X, cut, tol)
    return Sign(Y, *(number.double() for number in numbers))


def _message(found: Certified, worst: int, undecided: Tensor, cut: Cut, tol: Real, name: str) -> str:
    """Say what keeps the bound of the worst matrix above tol: values next to the cut, or small ones."""
    beside, smallest, bound = int(undecided[worst]), float(found.smallest[worst]), float(found.error[worst])
    start = f"{name}: cannot prove a relative error of {tol:g}"
    if beside:
        return (
            f"{start}: {beside} singular values of matrix {worst} lie within rounding of {cut}, and float64 cannot "
            f"tell on which side. Move it into a gap, 1e-13 of the largest singular value away from all of them"
        )
    return (
        f"{start}; the bound is {bound:.2g} for matrix {worst}, whose nonzero singular values reach down to "
        f"{smallest:.2g} of the largest, near the end of float64. Pass rtol= to count such small ones as zero, or a "
        "larger tol="
    )


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
        X, Y = _undo_rounding(X.double(), Y.double())
    return change_of_sign(X, Y, D) if options[-1] is None else change_of_part(X, Y, D)


def _undo_rounding(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Return Y as the partial isometry that it was before it was rounded to its dtype, and X with the spaces of Y.

    What rounding leaves in dropped directions would be divided by their singular values, which are noise: a derivative
    of 1e7 where the right one is 1. y -> y^3 (5 - 3 y^2) / 2 has the fixed points 0 and 1 with slope 0 at both; three
    of them take 0.004 and 1.004 there to 1e-13. X becomes P X R + (I - P) X (I - R), P = Y Y^T and R = Y^T Y. Neither
    moves matrices that fit exactly, so that derivatives of them stay what they are.
    """
    if Y.shape[-2] > Y.shape[-1]:
        X, Y = _undo_rounding(X.mT, Y.mT)
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
