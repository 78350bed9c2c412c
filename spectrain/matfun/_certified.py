"""msign within a tolerance: the cheapest stage of the plan first, its bound checked, the next where that fails."""

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._exact import Cut, Sign, absolute, by_eigh, by_svd
from spectrain.matfun._input import Real, default_tolerance
from spectrain.matfun._plan import plan
from spectrain.matfun._scale import to_unit

STAGES = {
    "eigh float32": (by_eigh, torch.float32),
    "eigh float64": (by_eigh, torch.float64),
    "svd float64": (by_svd, torch.float64),
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
    threshold: Real | None = None,
) -> Certified:
    """Return msign(X) with every error bound below tol, which includes the measured rounding to the output dtype.

    With ``threshold`` the singular values above it count, instead of those above the rank floor. ``method`` names
    one kind of stage, else the plan decides. Where not even the last stage proves tol, a tol that
    was asked for is a ValueError and the default one a RuntimeWarning.
    """
    if X.numel() == 0:
        none = X.new_zeros(len(X), dtype=torch.float64)
        return Certified(X.to(out_dtype), none, none, none + 1)
    target = default_tolerance(out_dtype) if tol is None else tol
    stages = [s for s in plan(tuple(X.shape), out_dtype, target).stages if method is None or s.startswith(method)]
    unit, k = to_unit(X.double(), name)
    wide = unit if X.shape[-2] <= X.shape[-1] else unit.mT.contiguous()
    cut = Cut(X.dtype, rtol, None if threshold is None else absolute(threshold, k))
    best = _staged(wide, stages, target - torch.finfo(out_dtype).eps / 2, cut)
    Y = best.Y.to(out_dtype)
    rounding = torch.linalg.matrix_norm(Y.double() - best.Y) / best.rank.clamp_min(1).sqrt()
    Y = Y if X.shape[-2] <= X.shape[-1] else Y.mT.contiguous()
    found = Certified(Y, best.error + rounding, best.rank, best.smallest)
    _check(found, target, asked=tol is not None, name=name)
    return found


def _staged(X: Tensor, stages: list[str], tol: Real, cut: Cut) -> Sign:
    """Return the first stage whose bound is below tol, matrix by matrix, else the last one, in float64."""
    best = _run(stages[0], X, cut)
    for stage in stages[1:]:
        again = (~(best.error <= tol)).nonzero().flatten()
        if len(again):
            new = _run(stage, X[again], cut.of(again))
            best = Sign(*(a.index_copy(0, again, b) for a, b in zip(best, new, strict=True)))
    return best


def _run(stage: str, X: Tensor, cut: Cut) -> Sign:
    algorithm, working = STAGES[stage]
    return Sign(*(part.double() for part in algorithm(X.to(working), cut)))


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
