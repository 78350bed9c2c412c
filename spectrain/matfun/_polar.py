"""The polar decomposition X = U H with a proven error; and mstep, U restricted to directions above a threshold."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrain._arrays.finite import locate_errors
from spectrain._arrays.kinds import way_out
from spectrain._arrays.typed import Generic, Held, Ndarray, alike, results
from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.input import (
    Array,
    Real,
    check_rtol,
    check_tolerance,
    enter,
    is_complex,
    real_dtype,
    rounded,
    rounding_of_complex,
)
from spectrain.matfun._proven.stages import sign


@alike
@locate_errors("X")
def mstep(X: Array, threshold: Real = 1.0, *, tol: Real | None = None, out_dtype: torch.dtype | None = None) -> Array:
    """Return U step(S) V^T for X = U diag(S) V^T: singular values above the threshold become 1, the others 0.

    The relative Frobenius error is at most ``tol`` (by output dtype 5e-2, 1e-4 or 1e-10), proven as in :func:`polar`:
    it grows with the inverse of the gap between the singular values next to the threshold. Where float64 cannot
    prove tol because one lies on it, a tol that was given is a ValueError and the default one a RuntimeWarning.
    Shapes: X (*batch, m, n) and the result the same. Errors: as :func:`msign`, ValueError for a threshold that is
    negative or not finite. Cost: :func:`plan`. Source: article 11006 (kexue.fm/archives/11006), there by two
    signs of which the second is of a matrix that the first has already spoiled.

    >>> X = torch.tensor([[0.0, 0.5], [-3.0, 0.0]])
    >>> mstep(X).tolist(), mstep(X, 0.1).tolist()
    ([[0.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [-1.0, 0.0]])
    """
    source, (X, leave) = X, enter(X, "mstep")
    if not 0 <= threshold < float("inf"):
        raise ValueError(f"mstep: threshold must be a finite number from 0 up, got {threshold}")
    out_dtype = real_dtype(out_dtype or X.dtype)
    check_tolerance(tol, out_dtype, "mstep")
    slack = rounding_of_complex(source, out_dtype)
    Y = sign(flat(X), tol=tol, out_dtype=out_dtype, name="mstep", slack=slack, threshold=threshold).Y
    return leave(Y.reshape(X.shape))


class Polar(NamedTuple, Generic[Held]):
    """X = U H with U = msign(X) and H positive semidefinite, the error bound of U and the numerical rank."""

    U: Held
    H: Held
    error: Held
    rank: Held


@results(Polar[Tensor], Polar[Ndarray], Polar[Any])
@locate_errors("X")
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
    complex_input, numbers = is_complex(X), way_out(X, "polar")
    source = X
    X, leave = enter(X, "polar")
    out_dtype = real_dtype(out_dtype or X.dtype)
    check_tolerance(tol, out_dtype, "polar")
    check_rtol(rtol, "polar")
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
