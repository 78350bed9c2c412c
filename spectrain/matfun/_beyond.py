"""The eigenvectors of a Gram matrix that lie beyond bounds, with a proof that none was missed."""

from typing import NamedTuple

import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._iteration.plain import gram

_norm = torch.linalg.matrix_norm
_LEAST_SIZE = 256  # below it all eigenvectors cost no more than some: LAPACK's evr against evd, measured


class Beyond(NamedTuple):
    """Eigenvectors whose eigenvalues have roots above ``upper``, below ``lower`` or up to ``rtol`` times the largest.

    ``largest`` is the root of the largest eigenvalue, within ``error``. ``excess`` bounds in the Frobenius norm by how
    much the roots of the eigenvalues that belong to no column of V are out of the interval.
    """

    V: Float[Tensor, "b k a"]
    largest: Float[Tensor, "b 1"]
    error: Float[Tensor, " b"]
    excess: Float[Tensor, " b"]


def beyond(
    G: Float[Tensor, "b k k"], lower: Float[Tensor, "b 1"], upper: Float[Tensor, "b 1"], rtol: float, noise: Tensor
) -> Beyond:
    """Return the eigenvectors of G beyond the bounds; ``noise`` (b) bounds the rounding error of G itself.

    One large matrix on CPU with a bound from above alone: LAPACK computes only those eigenvectors; the others
    are proven to be below by a Cholesky factorization (Rump, BIT 46, 2006), a thirtieth of the price of all
    eigenvectors. Else, and where LAPACK or that proof fails, all of them are computed; the eigenvalues of G are then
    those found within the residual (Hoffman and Wielandt).
    """
    if len(G) == 1 and G.shape[-1] >= _LEAST_SIZE and G.device.type == "cpu" and not bool(lower) and rtol == 0:
        found = _above(G, float(upper), float(noise))
        if found is not None:
            return found
    L, V = torch.linalg.eigh(G)
    S = L.clamp_min(0).sqrt()
    largest = S[:, -1:]
    cut = rtol * largest
    out = (upper < S) | (lower > S) | (cut >= S)
    edge = torch.minimum(upper, torch.where(lower > 0, lower, torch.inf))[:, 0]
    residual = _norm(torch.bmm(G, V) - V * L[:, None, :]) + noise
    excess = torch.minimum(residual / edge, residual.sqrt() * G.shape[-1] ** 0.25)
    error = residual / torch.where(largest > 0, largest, 1.0)[:, 0]
    if rtol > 0:
        clear = torch.where(out, torch.inf, S).amin(-1) - excess > cut[:, 0] + rtol * error
        excess = torch.where(clear, excess, torch.inf)
    return Beyond(V[..., out.any(0)], largest, error, excess)


def float64_gram(X: Float[Tensor, "b m n"]) -> Float[Tensor, "b k k"]:
    """Return the Gram matrix on the short side; for one large matrix on CPU at half the price, as NumPy knows syrk."""
    if len(X) > 1 or X.device.type != "cpu" or min(X.shape[-2:]) < _LEAST_SIZE:
        return gram(X)
    A = X[0].numpy()
    return torch.from_numpy(A.T @ A if A.shape[0] > A.shape[1] else A @ A.T)[None]


def _above(G: Tensor, upper: float, noise: float) -> Beyond | None:
    """Return the eigenvectors of one matrix above upper, or None where LAPACK fails or the proof that these are all."""
    k, eps = G.shape[-1], torch.finfo(G.dtype).eps
    if upper**2 >= float(_norm(G)):
        nothing = G.new_zeros(1)
        return Beyond(G.new_zeros(1, k, 0), nothing[:, None], nothing, nothing)
    try:
        values, vectors = scipy.linalg.eigh(G[0].numpy(), subset_by_value=(upper**2, float("inf")), driver="evr")
    except scipy.linalg.LinAlgError:  # evr gives up on clusters of equal eigenvalues with "Internal Error."
        return None
    L, V = torch.from_numpy(values), torch.from_numpy(vectors)
    rest = (V * L) @ V.mT - G[0]
    slack = 2 * noise + k**1.5 * eps * upper**2
    rest.diagonal().add_(upper**2 + slack)
    if int(torch.linalg.cholesky_ex(rest).info) != 0:
        return None
    most = min(slack / max(upper, 1e-300), (2 * slack) ** 0.5) * (k - len(L)) ** 0.5
    largest = L.clamp_min(0).sqrt()[-1:][None]
    return Beyond(V[None], largest, G.new_zeros(1), G.new_full((1,), most))
