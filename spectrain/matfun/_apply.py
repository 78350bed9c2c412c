"""Any function of the singular values, exactly, by SVD in float64; and the nearest positive semidefinite matrix."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.embedding import adjoint
from spectrain._arrays.finite import locate_errors
from spectrain._arrays.scale import recording, times_power_of_two
from spectrain._arrays.typed import alike, alike_to_second
from spectrain.matfun._derivative.derivative import spectral_function, will_be_differentiated
from spectrain.matfun._derivative.differences import (
    Differential,
    change_of_odd,
    change_of_symmetric,
    differences,
    differentiable_once,
    empty_eigh,
    packed_eigh,
    packed_svd,
)
from spectrain.matfun._derivative.node import Operator
from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.input import (
    Array,
    Real,
    check_tolerance,
    enter,
    like,
    real_dtype,
    refuse,
    rounded,
    unit_size,
)

_norm = torch.linalg.matrix_norm


@alike
@locate_errors("A")
def mpsd(A: Array, *, tol: Real | None = None, out_dtype: torch.dtype | None = None) -> Array:
    """Return V max(L, 0) V^T for the symmetric part of A, V L V^T: the nearest positive semidefinite matrix.

    Nearest in the Frobenius norm, to A as to its symmetric part (Higham, LAA 103, 1988). The error relative to
    ||A||_F is at most ``tol`` (by output dtype 5e-2, 1e-4, 1e-10): the residual of an eigendecomposition in float64,
    since the projection on a convex set moves no two matrices apart; relative to A, because the result may be zero.
    The matrix absolute value of any A, (A^T A)^(1/2), is ``polar(A).H``.

    Shapes: A (*batch, n, n), real or complex. Differentiable once; at a zero eigenvalue with the slope 0. TypeError and
    ValueError for what is not a finite square matrix. Cost: one eigendecomposition.

    >>> mpsd(torch.tensor([[0.0, 2.0], [2.0, 0.0]])).round(decimals=6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    A, leave = enter(A, "mpsd", embed=False)
    if A.shape[-1] != A.shape[-2]:
        raise ValueError(f"mpsd: needs square matrices, got shape {tuple(A.shape)}; X.mT @ X is square")
    dtype = like(A, out_dtype, "mpsd")
    check_tolerance(tol, real_dtype(dtype), "mpsd")
    Y = _operator(flat(A), None if tol is None else float(tol), will_be_differentiated(A), dtype)[0]
    return leave(Y.reshape(A.shape))


def _compute(A: Tensor, tol: float | None, keep: bool, dtype: torch.dtype) -> tuple[Tensor, ...]:
    unit, k = unit_size(A, "mpsd")
    S = 0.5 * (unit + adjoint(unit))
    L, V = torch.linalg.eigh(S)
    Y = torch.bmm(V * L.clamp_min(0)[:, None, :], adjoint(V))
    Y = 0.5 * (Y + adjoint(Y))
    size = _norm(unit)
    delta = _norm(S - torch.bmm(V * L[:, None, :], adjoint(V))) + torch.finfo(S.dtype).eps * A.shape[-1] ** 0.5 * size
    error = torch.where(size > 0, 2 * delta / torch.where(size > 0, size, 1.0), 0.0)
    limit = check_tolerance(tol, real_dtype(dtype), "mpsd") - torch.finfo(dtype).eps / 2
    if not bool((error <= limit).all()):
        refuse(
            f"mpsd: cannot prove an error of {limit:g} ||A||, the bound is {float(error.max()):.2g}; ask for a larger "
            "tol=",
            asked=tol is not None,
        )
    kept = packed_eigh(times_power_of_two(L[..., None], k)[..., 0], V) if keep else empty_eigh(A, keep)
    return rounded(_rescale(Y, k), dtype, "mpsd"), error, kept


def _rescale(Y: Tensor, k: Tensor) -> Tensor:
    if not Y.is_complex():
        return times_power_of_two(Y, k)
    return torch.complex(times_power_of_two(Y.real, k), times_power_of_two(Y.imag, k))


def _fake(A: Tensor, tol: float | None, keep: bool, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return A.new_empty(A.shape, dtype=dtype), A.new_empty(len(A), dtype=torch.float64), empty_eigh(A, keep)


def _change(A: Tensor, kept: Tensor, D: Tensor, *_: object) -> Tensor:
    rule = partial(change_of_symmetric, pairs=_pairs)
    return Differential.apply(A, D, kept, rule, differentiable_once("mpsd"))


def _pairs(L: Float[Tensor, "b n"]) -> Float[Tensor, "b n n"]:
    return differences(L, L.clamp_min(0), (L > 0).to(L.dtype))


_operator = Operator(
    "psd(Tensor A, float? tol, bool keep, ScalarType dtype) -> (Tensor, Tensor, Tensor)",
    compute=_compute,
    fake=_fake,
    change=_change,
    keeps=2,
)


@alike_to_second
@locate_errors("X")
def mapply(f: Callable[[Tensor], Tensor], X: Array, *, rtol: Real = 0.0, out_dtype: torch.dtype | None = None) -> Array:
    """Return U f(S) V^T for X = U diag(S) V^T, by SVD in float64.

    ``f`` maps a float64 tensor of singular values, falling along the last dimension, to one of the same shape.
    Singular values at or below rtol times the largest, and exact zeros, give zero whatever f says: where S is zero
    U and V are arbitrary. Examples: ``lambda s: s**p`` for U S^p V^T, odd powers among them; ``torch.tanh`` for a soft
    clip. X (*batch, m, n) real or complex; output dtype that of X unless ``out_dtype`` says.

    The result is that of a matrix within about 1e-15 ||X|| of X; how far that carries depends on f: at most the
    largest divided difference of f, continued as an odd function, between the singular values. Differentiable once,
    forward and backward, by divided differences that are finite at ties, for f that acts on each singular value by
    itself (ValueError for another). A singular value within rounding of the cut may fall on either side of it.
    Errors: TypeError and ValueError for what is not a finite matrix, ValueError where f changes the shape or is not
    finite, and where the result does not fit its dtype. Cost: one SVD; it is kept where a derivative will be taken,
    which is products then.

    >>> X = torch.tensor([[0.0, 4.0], [-9.0, 0.0]])
    >>> mapply(torch.sqrt, X).tolist()
    [[0.0, 2.0], [-3.0, 0.0]]
    """
    return apply_function(f, X, name="mapply", rtol=rtol, out_dtype=out_dtype)


def apply_function(
    f: Callable[[Tensor], Tensor], X: Array, *, name: str, rtol: Real = 0.0, out_dtype: torch.dtype | None = None
) -> Array:
    """Return what :func:`mapply` does, with the name of the function that was called in its errors."""
    X, leave = enter(X, name, embed=False)
    dtype = like(X, out_dtype, name)
    if not 0 <= rtol < 1:
        raise ValueError(f"{name}: rtol must be in [0, 1), got {rtol}")

    keep = will_be_differentiated(X)

    def compute(batch: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(X.device.type, enabled=False):
            Y, kept = _apply(f, batch, rtol, name, keep)
            return rounded(Y, dtype, name), kept

    def change(X: Tensor, kept: Tensor, D: Tensor) -> Tensor:
        rule = partial(change_of_odd, values=partial(_values, f=f, rtol=rtol))
        return Differential.apply(X, D, kept, rule, differentiable_once(name))

    return leave(spectral_function(flat(X), compute, change, keeps=1)[0].reshape(X.shape))


def _apply(f: Callable[[Tensor], Tensor], X: Tensor, rtol: Real, name: str, keep: bool) -> tuple[Tensor, Tensor]:
    unit, k = unit_size(X, name)
    U, S, Vh = torch.linalg.svd(unit, full_matrices=False)
    true = times_power_of_two(S[..., None], k)[..., 0]
    image = f(true)
    if image.shape != S.shape:
        raise ValueError(
            f"{name}: f must keep the shape {tuple(S.shape)} of the singular values, got {tuple(image.shape)}"
        )
    image = torch.where(_which_count(S, rtol), image, 0.0)
    if not recording() and not bool(image.isfinite().all()):
        raise ValueError(
            f"{name}: f is {float(image[~image.isfinite()][0])} at the singular value "
            f"{float(true[~image.isfinite()][0]):.3g}; pass rtol= to leave small ones out, or another f"
        )
    kept = packed_svd(U, true, Vh) if keep else U.new_empty(len(U), 0, 0)
    return torch.bmm(U * image[..., None, :], Vh), kept


def _which_count(S: Float[Tensor, "b k"], rtol: Real) -> Tensor:
    return (rtol * S[..., :1] < S) & (S > 0)


def _values(
    S: Float[Tensor, "b k"], *, f: Callable[[Tensor], Tensor], rtol: Real
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
    """Return f and its slope at the singular values; at an exact zero the slope counts where f(0) = 0."""
    image, backward = torch.func.vjp(f, S)[:2]
    if not torch.equal(f(S[..., ::2].contiguous()), image[..., ::2]):
        raise ValueError(
            "mapply: a derivative needs an f that acts on each singular value by itself; this one gives other values "
            "when some are left out"
        )
    (slope,) = backward(torch.ones_like(image))
    kept = _which_count(S, rtol)
    smooth = kept | ((S == 0) & (image == 0))
    return torch.where(kept, image, 0.0), torch.where(smooth, slope, 0.0)
