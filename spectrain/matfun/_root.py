"""Powers P^(s/r) of positive semidefinite matrices, with a residual that is computed from P."""

import math
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._batches import flat
from spectrain.matfun._input import Array, Real, checked_tolerance, entered
from spectrain.matfun._scale import to_unit

_norm = torch.linalg.matrix_norm


def mroot(
    P: Array,
    r: int,
    s: int = 1,
    *,
    times: Array | None = None,
    side: str = "right",
    tol: Real | None = None,
    rtol: Real | None = None,
    out_dtype: torch.dtype | None = None,
) -> Array:
    """Return P^(s/r) for positive semidefinite P, any integers r > 0 and s; or its product with a matrix.

    ``mroot(P, 2)`` is the square root, ``mroot(P, 2, -1)`` its inverse. With ``times=G`` the result is G P^(s/r), or
    P^(s/r) G for ``side="left"``, applied in the eigenbasis: no inverse is formed and rounded. The two-sided
    Q^(-1/2) G P^(-1/2) is ``mroot(Q, 2, -1, times=mroot(P, 2, -1, times=G), side="left")``. Eigenvalues at or below
    rtol times the largest (default n eps of float64, or of the rounding of P's own dtype where that is wider) count as
    zero and give zero, also for s < 0, which makes that the power of the pseudo-inverse.

    ``tol`` (by output dtype 5e-2, 1e-4, 1e-10) bounds the relative Frobenius error of P^(s/r). The bound is the
    residual ||P - V L V^T||, computed from P, times the steepest slope of x^(s/r) on the eigenvalues found
    (the largest divided difference, Higham, Functions of Matrices, 3.2). Where it is above tol, a tol that was given
    is a ValueError and the default one a RuntimeWarning.

    Shapes: P (*batch, n, n), G (*batch, m, n) or (*batch, n, m). Only the symmetric part of P is used. TypeError and
    ValueError for what is not a real finite square matrix, ValueError for r < 1, and for an eigenvalue below minus the
    rounding noise. Cost: one eigendecomposition in float64. Source: articles 11158 and 11175
    (kexue.fm/archives/11175), there by polynomials.

    >>> P = torch.tensor([[16.0, 0.0], [0.0, 81.0]])
    >>> mroot(P, 4, -3).diagonal().mul(216).tolist()
    [27.0, 8.0]
    """
    P, leave = entered(P, "mroot")
    _check_request(P, r, side)
    out_dtype = out_dtype or P.dtype
    limit = checked_tolerance(tol, out_dtype, "mroot")
    unit, k = to_unit(flat(P).double(), "mroot")
    L, V, bound = _powers(unit, s / r, P.dtype, rtol)
    _check_bound(bound, limit - torch.finfo(out_dtype).eps / 2, asked=tol is not None)
    scale = torch.exp2(k.double() * (s / r))[:, None]
    if times is None:
        root = torch.bmm(V * (L * scale)[:, None, :], V.mT)
        return leave(root.to(out_dtype).reshape(P.shape))
    G, _ = entered(times, "mroot(times=)")
    return leave(_applied(L * scale, V, G, P.shape[:-2], side).to(out_dtype))


def _check_request(P: Tensor, r: int, side: str) -> None:
    if P.shape[-1] != P.shape[-2]:
        raise ValueError(f"mroot: needs square matrices, got shape {tuple(P.shape)}; X.mT @ X is square")
    if r < 1:
        raise ValueError(f"mroot: r must be at least 1, got {r}; a negative power is s < 0")
    if side not in ("left", "right"):
        raise ValueError(f'mroot: side must be "left" or "right", got {side!r}')


def _powers(
    P: Float[Tensor, "b n n"], power: float, dtype: torch.dtype, rtol: Real | None
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n n"], Float[Tensor, " b"]]:
    """Return L^power, V and a bound on the relative error of V L^power V^T, for P of unit size."""
    P = 0.5 * (P + P.mT)
    L, V = torch.linalg.eigh(P)
    largest = L.abs().amax(-1, keepdim=True) if L.shape[-1] else L.new_zeros(len(L), 1)
    noise = P.shape[-1] * max(torch.finfo(torch.float64).eps, torch.finfo(dtype).eps / max(1, P.shape[-1]) ** 0.5)
    if bool((-noise * largest > L).any()):
        raise ValueError(
            f"mroot: P is not positive semidefinite, its smallest eigenvalue is {float((L / largest).min()):.3g} times "
            "the largest; add a multiple of the identity, or use polar(P).H for its absolute value"
        )
    keep = (noise if rtol is None else rtol) * largest < L
    image = torch.where(keep, torch.where(keep, L, 1.0) ** power, 0.0)
    rounding = torch.finfo(P.dtype).eps * math.sqrt(max(1, P.shape[-1])) * _norm(P)
    delta = _norm(P - torch.bmm(V * L[:, None, :], V.mT)) + rounding
    smallest = torch.where(keep, L, torch.inf).amin(-1) if L.shape[-1] else delta
    slope = abs(power) * torch.maximum(smallest ** (power - 1), largest[:, 0] ** (power - 1))
    slope = torch.where(keep.all(-1), slope, torch.maximum(slope, smallest**power / smallest))
    size = torch.linalg.vector_norm(image, dim=-1)
    return image, V, torch.where(size > 0, slope * delta / size, 0.0)


def _check_bound(bound: Float[Tensor, " b"], tol: Real, *, asked: bool) -> None:
    if bool((bound <= tol).all()):
        return
    message = (
        f"mroot: cannot prove a relative error of {tol:.3g}, the bound is {float(bound.max()):.2g}: eigenvalues "
        "reach down to the rounding noise. Add a multiple of the identity, pass rtol= to count small ones as zero, or "
        "a larger tol="
    )
    if asked:
        raise ValueError(message)
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def _applied(L: Tensor, V: Tensor, G: Tensor, batch: torch.Size, side: str) -> Tensor:
    """Return G V L V^T or V L V^T G."""
    n = V.shape[-1]
    if G.shape[:-2] != batch or G.shape[-1 if side == "right" else -2] != n:
        raise ValueError(
            f"mroot: times= of shape {tuple(G.shape)} does not fit a power of shape {(*batch, n, n)} on its {side} side"
        )
    X = flat(G).double()
    if side == "right":
        Y = torch.bmm(torch.bmm(X, V) * L[:, None, :], V.mT)
    else:
        Y = torch.bmm(V, L[..., None] * torch.bmm(V.mT, X))
    return Y.reshape(G.shape)
