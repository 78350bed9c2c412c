"""Any function of the singular values, exactly: U f(S) V^T by SVD in float64."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._complex import unit_size
from spectrain.matfun._derivative.derivative import spectral_function
from spectrain.matfun._derivative.differences import Differential, change_of_odd, differentiable_once
from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.finite import located
from spectrain.matfun._entry.input import Array, Real, entered, like, rounded
from spectrain.matfun._entry.scale import recording, times_power_of_two


@located("X")
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
    finite, and where the result does not fit its dtype. Cost: one SVD, and one more for a derivative.

    >>> X = torch.tensor([[0.0, 4.0], [-9.0, 0.0]])
    >>> mapply(torch.sqrt, X).tolist()
    [[0.0, 2.0], [-3.0, 0.0]]
    """
    return applied(f, X, name="mapply", rtol=rtol, out_dtype=out_dtype)


def applied(
    f: Callable[[Tensor], Tensor], X: Array, *, name: str, rtol: Real = 0.0, out_dtype: torch.dtype | None = None
) -> Array:
    """Return what :func:`mapply` does, with the name of the function that was called in its errors."""
    X, leave = entered(X, name, embed=False)
    dtype = like(X, out_dtype, name)
    if not 0 <= rtol < 1:
        raise ValueError(f"{name}: rtol must be in [0, 1), got {rtol}")

    def compute(batch: Tensor) -> tuple[Tensor]:
        with torch.autocast(X.device.type, enabled=False):
            return (rounded(_applied(f, batch, rtol, name), dtype, name),)

    def change(X: Tensor, Y: Tensor, D: Tensor) -> Tensor:
        rule = partial(change_of_odd, values=partial(_values, f=f, rtol=rtol))
        return Differential.apply(X, D, rule, differentiable_once(name))

    return leave(spectral_function(flat(X), compute, change)[0].reshape(X.shape))


def _applied(f: Callable[[Tensor], Tensor], X: Tensor, rtol: Real, name: str) -> Tensor:
    unit, k = unit_size(X, name)
    U, S, Vh = torch.linalg.svd(unit, full_matrices=False)
    true = times_power_of_two(S[..., None], k)[..., 0]
    image = f(true)
    if image.shape != S.shape:
        raise ValueError(
            f"{name}: f must keep the shape {tuple(S.shape)} of the singular values, got {tuple(image.shape)}"
        )
    image = torch.where(_kept(S, rtol), image, 0.0)
    if not recording() and not bool(image.isfinite().all()):
        raise ValueError(
            f"{name}: f is {float(image[~image.isfinite()][0])} at the singular value "
            f"{float(true[~image.isfinite()][0]):.3g}; pass rtol= to leave small ones out, or another f"
        )
    return torch.bmm(U * image[..., None, :], Vh)


def _kept(S: Float[Tensor, "b k"], rtol: Real) -> Tensor:
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
    kept = _kept(S, rtol)
    smooth = kept | ((S == 0) & (image == 0))
    return torch.where(kept, image, 0.0), torch.where(smooth, slope, 0.0)
