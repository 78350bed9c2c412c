"""msign within a tolerance: the cheapest stage of the plan first, its bound checked, the next where that fails."""

import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._exact import Cut, Sign, absolute, by_eigh, by_svd
from spectrain.matfun._input import Real, default_tolerance
from spectrain.matfun._iterative import by_iteration
from spectrain.matfun._plan import plan
from spectrain.matfun._qdwh import by_qdwh
from spectrain.matfun._scale import to_unit

Stage: TypeAlias = Callable[[Tensor, Cut, Real], Sign]

STAGES: dict[str, Stage] = {
    "iterate float32": lambda X, cut, tol: by_iteration(X.float(), cut, tol),
    "eigh float32": lambda X, cut, _: by_eigh(X.float(), cut),
    "eigh float64": lambda X, cut, _: by_eigh(X.double(), cut),
    "qdwh float64": lambda X, cut, _: by_qdwh(X.double(), cut),
    "svd float64": lambda X, cut, _: by_svd(X.double(), cut),
}


_METHODS = {
    "eigh": ("eigh float64",),
    "svd": ("svd float64",),
    "qdwh": ("qdwh float64", "svd float64"),
    "iterate": ("iterate float32", "svd float64"),
}


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
    instead of those above the rank floor. ``method`` names one kind of stage, or all stages of a plan with " > "
    between, else the plan of this process decides. Where not even the
    last stage proves tol, a tol that was asked for is a ValueError and the default one a RuntimeWarning.
    """
    if X.numel() == 0:
        none = X.new_zeros(len(X), dtype=torch.float64)
        return Certified(X.to(out_dtype), none, none, none + 1)
    target = (default_tolerance(out_dtype) if tol is None else tol) - slack
    stages = _stages(method, tuple(X.shape), out_dtype, tol)
    if threshold is not None or X.dtype == torch.float64:
        stages = [s for s in stages if s != "iterate float32" and (threshold is None or s != "qdwh float64")]
    unit, k = to_unit(X, name)
    wide = unit if X.shape[-2] <= X.shape[-1] else unit.mT.contiguous()
    cut = Cut(X.dtype, rtol, None if threshold is None else absolute(threshold, k))
    best = _staged(wide, stages, target - torch.finfo(out_dtype).eps / 2, cut)
    Y = best.Y.to(out_dtype)
    error = best.error
    if Y.dtype != best.Y.dtype:
        error = error + torch.linalg.matrix_norm(Y.double() - best.Y.double()) / best.rank.clamp_min(1).sqrt()
    Y = Y if X.shape[-2] <= X.shape[-1] else Y.mT.contiguous()
    found = Certified(Y, error, best.rank, best.smallest)
    _check(found, target, asked=tol is not None, name=name)
    return found


def _stages(method: str | None, shape: tuple[int, ...], dtype: torch.dtype, tol: Real | None) -> list[str]:
    if method is None:
        return list(plan(shape, dtype, tol).stages)
    return list(_METHODS[method]) if method in _METHODS else method.split(" > ")


def _staged(X: Tensor, stages: list[str], tol: Real, cut: Cut) -> Sign:
    """Return the first stage whose bound is below tol, matrix by matrix, else the last one."""
    best = _run(stages[0], X, cut, tol)
    for stage in stages[1:]:
        again = (~(best.error <= tol)).nonzero().flatten()
        if len(again) == len(X):
            best = _run(stage, X, cut, tol)
        elif len(again):
            new = _run(stage, X[again], cut.of(again), tol)
            dtype = torch.promote_types(best.Y.dtype, new.Y.dtype)
            pairs = zip(best._replace(Y=best.Y.to(dtype)), new._replace(Y=new.Y.to(dtype)), strict=True)
            best = Sign(*(a.index_copy(0, again, b) for a, b in pairs))
    return best


def _run(stage: str, X: Tensor, cut: Cut, tol: Real) -> Sign:
    Y, *numbers = STAGES[stage](X, cut, tol)
    return Sign(Y, *(number.double() for number in numbers))


def _check(found: Certified, tol: Real, *, asked: bool, name: str) -> None:
    """Raise or warn where the bound of some matrix is above tol."""
    if bool((found.error <= tol).all()):
        return
    worst = int(found.error.argmax())
    bound, smallest = float(found.error[worst]), float(found.smallest[worst])
    message = (
        f"{name}: cannot prove a relative error of {tol:g}; the bound is {bound:.2g} for matrix {worst}, whose nonzero "
        f"singular values reach down to {smallest:.2g} of the largest, near the end of float64. Pass rtol= to count "
        "such small ones as zero, or a larger tol="
    )
    if asked:
        raise ValueError(message)
    warnings.warn(message, RuntimeWarning, stacklevel=4)
