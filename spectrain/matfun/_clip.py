"""mclip: singular values clipped to an interval, by changing only those that lie outside of it.

Beside it functions that never move two matrices apart: soft clip and soft threshold.

For an odd f with slopes in [0, 1], ||f(X) - f(B)||_F <= ||X - B||_F. So the residual of a decomposition bounds the
error whatever the condition, and a tolerance is proven without a look at small singular values.
"""

from typing import Any

import torch
from torch import Tensor

from spectrain._arrays.finite import locate_errors
from spectrain._arrays.typed import alike
from spectrain.matfun._apply import apply_function
from spectrain.matfun._clipping.change import Interval, change_of_clip
from spectrain.matfun._clipping.exact import clip, empty_basis
from spectrain.matfun._clipping.signs import clip_by_signs
from spectrain.matfun._derivative.derivative import spectral_function, will_be_differentiated
from spectrain.matfun._derivative.node import Operator
from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.input import (
    Array,
    Real,
    check_out_dtype,
    check_tolerance,
    enter,
    real_dtype,
    refuse,
    rounded,
    rounding_of_complex,
)
from spectrain.matfun._modes import ClipMethod

_METHODS = ("eigh", "svd", "signs")


@alike
@locate_errors("X")
def msoftclip(X: Array, upper: Real, *, out_dtype: torch.dtype | None = None) -> Array:
    """Return U f(S) V^T with f(s) = s / sqrt(1 + (s / upper)^2): close to s below upper, close to upper above.

    It is (I + X X^T / upper^2)^(-1/2) X, smooth where mclip has a corner, so that its derivative has no jump (the soft
    clip of spectral clipping for training, as in SPECTRA). Within about 1e-15 ||X|| of the exact result before it
    is rounded to the output dtype: a contraction of an SVD in float64. Shapes, dtypes, derivative and cost
    as :func:`mapply`. ValueError for an upper that is not positive.

    >>> [[round(v, 4) for v in row] for row in msoftclip(torch.tensor([[0.0, 3.0], [-4.0, 0.0]]), 4.0).tolist()]
    [[0.0, 2.4], [-2.8284, 0.0]]
    """
    if not upper > 0:
        raise ValueError(f"msoftclip: upper must be positive, got {upper}; mclip(X, 0, 0) is zero")
    return apply_function(
        lambda s: s / torch.hypot(torch.ones_like(s), s / upper), X, name="msoftclip", out_dtype=out_dtype
    )


@alike
@locate_errors("X")
def mthreshold(X: Array, threshold: Real, *, tol: Real | None = None, out_dtype: torch.dtype | None = None) -> Array:
    """Return U max(S - threshold, 0) V^T: singular value thresholding, the proximal map of threshold * nuclear norm.

    It is X - mclip(X, 0, threshold) (Cai, Candes and Shen, SIAM J. Optim. 20, 2010). The error relative to ||X||_F is
    at most ``tol`` (by output dtype 5e-2, 1e-4, 1e-10), proven as for :func:`mclip`; relative to X, since the result
    is zero for a threshold above sigma_max. Differentiable any number of times. Shapes, dtypes, errors and cost
    as :func:`mclip`; ValueError for a negative threshold.

    >>> mthreshold(torch.tensor([[0.0, 1.0], [-3.0, 0.0]]), 2.0).tolist()
    [[0.0, 0.0], [-1.0, 0.0]]
    """
    X, leave = enter(X, "mthreshold")
    if not threshold >= 0:
        raise ValueError(f"mthreshold: threshold must not be negative, got {threshold}")
    out_dtype = real_dtype(out_dtype or X.dtype)
    check_tolerance(tol, out_dtype, "mthreshold")
    keep = will_be_differentiated(X)
    Y = _threshold(flat(X), float(threshold), None if tol is None else float(tol), keep, out_dtype)[0]
    return leave(Y.reshape(X.shape))


def _soft_threshold(
    X: Tensor, threshold: float, tol: float | None, keep: bool, out_dtype: torch.dtype
) -> tuple[Tensor, ...]:
    limit = check_tolerance(tol, out_dtype, "mthreshold") - torch.finfo(out_dtype).eps / 2
    wide = X.double()
    found = clip(wide, Interval(0.0, threshold, 0.0), tol=limit, method=None, keep=keep)
    if not bool((found.error <= limit).all()):
        refuse(
            f"mthreshold: cannot prove a relative error of {limit:g}, the bound is {float(found.error.max()):.2g}; ask "
            "for a larger tol=",
            asked=tol is not None,
        )
    return rounded(wide - found.Y, out_dtype, "mthreshold"), found.error, found.basis


def _change_of_contraction(X: Tensor, kept: Tensor, D: Tensor, threshold: float, *_: object) -> Tensor:
    return D - change_of_clip(X, kept, D, interval=Interval(0.0, threshold, 0.0))


def _fake(X: Tensor, *options: Any) -> tuple[Tensor, ...]:
    *_, keep, out_dtype = options
    return X.new_empty(X.shape, dtype=out_dtype), X.new_empty(len(X), dtype=torch.float64), empty_basis(X, keep)


_threshold = Operator(
    "threshold(Tensor X, float threshold, float? tol, bool keep, ScalarType out_dtype) -> (Tensor, Tensor, Tensor)",
    compute=_soft_threshold,
    fake=_fake,
    change=_change_of_contraction,
    keeps=2,
)


@alike
@locate_errors("X")
def mclip(
    X: Array,
    lower: Real,
    upper: Real,
    *,
    tol: Real | None = None,
    steps: int | None = None,
    method: ClipMethod | None = None,
    rtol: Real = 0.0,
    out_dtype: torch.dtype | None = None,
) -> Array:
    """Return U clip(S) V^T for X = U diag(S) V^T, with clip(s) = min(max(s, lower), upper).

    ``lower <= 0`` leaves small singular values alone. ``lower > 0`` lifts every nonzero computed singular value to at
    least ``lower``; those at or below ``rtol`` times the largest become zero instead. ``upper`` may be infinite.
    The relative Frobenius error is at most ``tol`` (by output dtype 5e-2, 1e-4, 1e-10), rounding to the output dtype
    included. It is proven from the result: clipping from above alone is a contraction, so the bound is a residual and
    needs no condition; a lift multiplies it by lower / sigma_min. Where float64 cannot prove tol, a tol that was
    given is a ValueError and the default one a RuntimeWarning.

    X = V Z with V the eigenvectors of X X^T in float64 and Z = V^T X; only the rows of Z whose singular value changes
    are computed, scaled and put back: X + V_a (f(S_a) / S_a - 1) Z_a. No part of the result is a difference of large
    numbers, which is where the formulas by msign lose large singular values. From above alone only the eigenvectors
    beyond ``upper`` are computed (large matrices on CPU); that none was missed is proven by a Cholesky factorization.
    Where the bound is above tol, LAPACK's SVD follows. ``method`` "eigh" or "svd" leaves out the other.

    ``steps=k`` (or ``method="signs"``, k = 4) takes the odd-symmetric formula of article 11059
    (kexue.fm/archives/11059) instead, three msigns of k quintics in the dtype of X: matrix products only, in one graph
    under ``torch.compile``. It carries no bound: a singular value s >> upper is off by a fraction of s, and values
    within a few percent of a bound are rounded off.

    Differentiable any number of times, forward and backward. At a singular value on a bound there is no derivative:
    what is returned is that of the side on which rounding found it, the limit of derivatives there, on the bound itself
    of the clipped side. The first derivative has a relative error of at most 1e-4 (1e-10 in float64, 5e-2 in half
    precision) against that of a matrix within the rounding noise of X; eigenvectors found are kept for it (k^2
    doubles), and it is products. Shapes: X (*batch, m, n), the result the same; any real or complex floating dtype.
    Errors: as :func:`msign`, ValueError for lower > upper, upper < 0 or bounds that are NaN. Cost: k^2 l + 12 k^3 in
    float64 (5 k^3 from above alone) and 2 k l for each changed value.

    >>> X = torch.tensor([[0.0, 0.1, 0.0], [-3.0, 0.0, 0.0]])
    >>> [[round(v, 4) for v in row] for row in mclip(X, 0.2, 1.0).tolist()]
    [[0.0, 0.2, 0.0], [-1.0, 0.0, 0.0]]
    """
    source, (X, leave) = X, enter(X, "mclip")
    _check_request(lower, upper, tol, steps, method, rtol)
    interval = Interval(float(lower), float(upper), float(rtol))
    check_out_dtype(out_dtype, "mclip")
    out_dtype = real_dtype(out_dtype or X.dtype)
    if steps is not None or method == "signs":
        return leave(_by_steps(X, interval, steps or 4).to(out_dtype).reshape(X.shape))
    check_tolerance(tol, out_dtype, "mclip")
    slack = rounding_of_complex(source, out_dtype)
    limit, keep = None if tol is None else float(tol), will_be_differentiated(X)
    Y = _operator(flat(X), *interval, limit, method, slack, keep, out_dtype)[0]
    return leave(Y.reshape(X.shape))


def _check_request(
    lower: Real, upper: Real, tol: Real | None, steps: int | None, method: str | None, rtol: Real
) -> None:
    if not (lower <= upper and upper >= 0):
        raise ValueError(f"mclip: needs lower <= upper and upper >= 0, got lower={lower}, upper={upper}")
    if lower == float("inf"):
        raise ValueError("mclip: lower must be finite, got inf; a matrix has no infinite singular values")
    if not 0 <= rtol < 1:
        raise ValueError(f"mclip: rtol must be in [0, 1), got {rtol}")
    if method is not None and method not in _METHODS:
        raise ValueError(f"mclip: method must be one of {', '.join(_METHODS)} or None, got {method!r}")
    by_signs = steps is not None or method == "signs"
    if by_signs and (tol is not None or rtol > 0 or method in ("eigh", "svd") or not (steps is None or steps >= 1)):
        raise ValueError(
            f"mclip: steps={steps} with the formula by signs must be at least 1 and takes no tol=, rtol= or exact "
            f"method=, got tol={tol}, rtol={rtol}, method={method!r}; it carries no bound and cannot tell zeros"
        )


def _by_steps(X: Tensor, interval: Interval, steps: int) -> Tensor:
    def compute(batch: Tensor) -> tuple[Tensor]:
        with torch.autocast(X.device.type, enabled=False):
            return (clip_by_signs(batch, interval.lower, interval.upper, steps=steps),)

    return spectral_function(flat(X), compute, lambda X, Y, D: change_of_clip(X, None, D, interval=interval))[0]


def _compute(
    X: Tensor,
    lower: float,
    upper: float,
    rtol: float,
    tol: float | None,
    method: str | None,
    slack: float,
    keep: bool,
    out_dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    limit = check_tolerance(tol, out_dtype, "mclip") - torch.finfo(out_dtype).eps / 2 - slack
    found = clip(X, Interval(lower, upper, rtol), tol=limit, method=method, keep=keep)
    _check(found.error, limit, asked=tol is not None)
    return rounded(found.Y, out_dtype, "mclip"), found.error, found.basis


def _check(error: Tensor, tol: Real, *, asked: bool) -> None:
    if not bool((error <= tol).all()):
        worst = int(error.argmax())
        refuse(
            f"mclip: cannot prove a relative error of {tol:g}; the bound is {float(error[worst]):.2g} for matrix "
            f"{worst}: a positive lower bound lifts singular values at the rounding noise of float64, or one lies "
            "within rounding of rtol times the largest. Pass an rtol= in a gap below them to make them zero, lower=0 "
            "to leave them alone, or a larger tol=",
            asked=asked,
        )


def _change(X: Tensor, kept: Tensor, D: Tensor, lower: float, upper: float, rtol: float, *_: object) -> Tensor:
    return change_of_clip(X, kept, D, interval=Interval(lower, upper, rtol))


_operator = Operator(
    "clip(Tensor X, float lower, float upper, float rtol, float? tol, str? method, float slack, bool keep, "
    "ScalarType out_dtype) -> (Tensor, Tensor, Tensor)",
    compute=_compute,
    fake=_fake,
    change=_change,
    keeps=2,
)
