"""Functions that never move two matrices apart: soft clip, soft threshold, projection on the definite matrices.

For an odd f with slopes in [0, 1], ||f(X) - f(B)||_F <= ||X - B||_F. So the residual of a decomposition bounds the
error whatever the condition, and a tolerance is proven without a look at small singular values.
"""

import torch
from torch import Tensor

from spectrain.matfun._apply import applied
from spectrain.matfun._clipping.change import Interval, change_of_clip
from spectrain.matfun._clipping.exact import clipped
from spectrain.matfun._derivative.node import Operator
from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.finite import located
from spectrain.matfun._entry.input import Array, Real, checked_tolerance, entered, real_dtype, rounded
from spectrain.matfun._refusal import refuse


@located("X")
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
    return applied(lambda s: s / torch.hypot(torch.ones_like(s), s / upper), X, name="msoftclip", out_dtype=out_dtype)


@located("X")
def mthreshold(X: Array, threshold: Real, *, tol: Real | None = None, out_dtype: torch.dtype | None = None) -> Array:
    """Return U max(S - threshold, 0) V^T: singular value thresholding, the proximal map of threshold * nuclear norm.

    It is X - mclip(X, 0, threshold) (Cai, Candes and Shen, SIAM J. Optim. 20, 2010). The error relative to ||X||_F is
    at most ``tol`` (by output dtype 5e-2, 1e-4, 1e-10), proven as for :func:`mclip`; relative to X, since the result
    is zero for a threshold above sigma_max. Differentiable any number of times. Shapes, dtypes, errors and cost
    as :func:`mclip`; ValueError for a negative threshold.

    >>> mthreshold(torch.tensor([[0.0, 1.0], [-3.0, 0.0]]), 2.0).tolist()
    [[0.0, 0.0], [-1.0, 0.0]]
    """
    X, leave = entered(X, "mthreshold")
    if not threshold >= 0:
        raise ValueError(f"mthreshold: threshold must not be negative, got {threshold}")
    out_dtype = real_dtype(out_dtype or X.dtype)
    checked_tolerance(tol, out_dtype, "mthreshold")
    Y, _ = _threshold(flat(X), float(threshold), None if tol is None else float(tol), out_dtype)
    return leave(Y.reshape(X.shape))


def _thresholded(X: Tensor, threshold: float, tol: float | None, out_dtype: torch.dtype) -> tuple[Tensor, ...]:
    limit = checked_tolerance(tol, out_dtype, "mthreshold") - torch.finfo(out_dtype).eps / 2
    wide = X.double()
    found = clipped(wide, Interval(0.0, threshold, 0.0), tol=limit, method=None)
    if not bool((found.error <= limit).all()):
        refuse(
            f"mthreshold: cannot prove a relative error of {limit:g}, the bound is {float(found.error.max()):.2g}; ask "
            "for a larger tol=",
            asked=tol is not None,
        )
    return rounded(wide - found.Y, out_dtype, "mthreshold"), found.error


def _empty(X: Tensor, threshold: float, tol: float | None, out_dtype: torch.dtype) -> tuple[Tensor, ...]:
    return X.new_empty(X.shape, dtype=out_dtype), X.new_empty(len(X), dtype=torch.float64)


def _change(X: Tensor, Y: Tensor, D: Tensor, threshold: float, *_: object) -> Tensor:
    return D - change_of_clip(X, Y, D, interval=Interval(0.0, threshold, 0.0))


_threshold = Operator(
    "threshold(Tensor X, float threshold, float? tol, ScalarType out_dtype) -> (Tensor, Tensor)",
    compute=_thresholded,
    fake=_empty,
    change=_change,
)
