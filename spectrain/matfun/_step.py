"""mstep: the projection on the singular directions above a threshold, as a partial isometry."""

import torch

from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.finite import located
from spectrain.matfun._entry.input import Array, Real, checked_tolerance, entered, real_dtype, rounding_of_complex
from spectrain.matfun._sign import sign


@located("X")
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
    source, (X, leave) = X, entered(X, "mstep")
    if not 0 <= threshold < float("inf"):
        raise ValueError(f"mstep: threshold must be a finite number from 0 up, got {threshold}")
    out_dtype = real_dtype(out_dtype or X.dtype)
    checked_tolerance(tol, out_dtype, "mstep")
    slack = rounding_of_complex(source, out_dtype)
    Y = sign(flat(X), tol=tol, out_dtype=out_dtype, name="mstep", slack=slack, threshold=threshold).Y
    return leave(Y.reshape(X.shape))
