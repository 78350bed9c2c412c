"""The polar decomposition X = U H, with a proven error."""

from typing import NamedTuple

import torch

from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.finite import located
from spectrain.matfun._entry.input import (
    Array,
    Real,
    checked_rtol,
    checked_tolerance,
    entered,
    is_complex,
    real_dtype,
    rounded,
    rounding_of_complex,
    scalar_door,
)
from spectrain.matfun._sign import sign


class Polar(NamedTuple):
    """X = U H with U = msign(X) and H positive semidefinite, the error bound of U and the numerical rank."""

    U: Array
    H: Array
    error: Array
    rank: Array


@located("X")
def polar(
    X: Array, *, tol: Real | None = None, rtol: Real | None = None, out_dtype: torch.dtype | None = None
) -> Polar:
    """Return U, H, error and rank with X = U H, U = msign(X) and H = (X^T X)^(1/2) positive semidefinite.

    ``error`` bounds ||U - msign(X)||_F / ||msign(X)||_F, one number for each matrix, and is at most ``tol`` (by
    output dtype 5e-2, 1e-4 or 1e-10). It is computed from X and the result: the residual of the decomposition, the
    loss of orthonormality, divided by the gap between the smallest singular value that counts as nonzero and the
    largest that does not; so it needs sigma_min and grows with the condition. It includes rounding to the output
    dtype. ``rank`` is the number of singular values above the rounding noise of the input (see :func:`msign`) or
    rtol * sigma_max; ``error`` is that of U for this rank. Where one lies within its own error of the cut, the rank is
    not certain, and that is refused like a tolerance. H is the symmetric part of U^T X, formed in float64 and rounded;
    its relative error is about that of U; ValueError where it does not fit its dtype. Shapes: X (*batch, m, n), U the
    same, H (*batch, n, n), error and rank (*batch). U and H are differentiable, as :func:`msign` is.

    Errors: as :func:`msign`. Where the input is so ill conditioned that float64 cannot prove tol, a tol that was
    given is a ValueError, the default one a RuntimeWarning, and ``error`` says what holds. Cost: :func:`plan`, and
    m n^2 for H. Source: Higham, Functions of Matrices, chapter 8.

    >>> X = torch.tensor([[0.0, -2.0], [3.0, 0.0]])
    >>> U, H, error, rank = polar(X)
    >>> U.tolist(), H.tolist(), int(rank), bool(error < 1e-6)
    ([[0.0, -1.0], [1.0, 0.0]], [[3.0, 0.0], [0.0, 2.0]], 2, True)
    """
    complex_input, numbers = is_complex(X), scalar_door(X)
    source = X
    X, leave = entered(X, "polar")
    out_dtype = real_dtype(out_dtype or X.dtype)
    checked_tolerance(tol, out_dtype, "polar")
    checked_rtol(rtol, "polar")
    slack = rounding_of_complex(source, out_dtype)
    with torch.autocast(X.device.type, enabled=False):
        Y, error, rank, _ = sign(flat(X), tol=tol, rtol=rtol, out_dtype=out_dtype, name="polar", slack=slack)
        T = torch.bmm(0.5 * Y.double().mT, flat(X).double())
        H = rounded(T + T.mT, out_dtype, "polar")
    if complex_input:
        error, rank = error + slack, rank / 2
    lead = X.shape[:-2]
    return Polar(
        leave(Y.reshape(X.shape)),
        leave(H.reshape(*lead, *H.shape[-2:])),
        numbers(error.reshape(lead)),
        numbers(rank.reshape(lead)),
    )
