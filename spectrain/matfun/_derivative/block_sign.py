"""The change of msign by the matrix sign of a block matrix, from products and a few inverses, with a proven error.

The matrix sign of [[H, -S], [0, -H]] is [[I, -2 K], [0, -I]] with H K + K H = S (article 11025,
kexue.fm/archives/11025). Newton's step for it, M <- (M + M^-1) / 2, squares the Cayley transform
(M - p) (M + p)^-1. So one inverse brings us there, and all further steps are products, three each: with
G = (H - p) (H + p)^-1,

    K_0 = 2 p (H + p)^-1 S (H + p)^-1,    K <- K + G K G,    G <- G^2

(the squared iteration of Smith, SIAM J. Appl. Math. 16, 1968). In the eigenvectors of H an entry of K is off by the
factor 1 - (g_i g_j)^(2^j). The Newton-Schulz iteration of the article, which has no inverse, takes seven products a
quintic and two to three times as many in all. Two shifts instead of one, the best ones for [lo, hi] (Wachspress), turn
the condition hi / lo into (lo + hi) / (2 sqrt(lo hi)) before the first squaring.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_NARROW = 1e-6  # a tolerance from where the squarings run in float32 and are refined from residuals in float64
_ROUNDS = 3  # of refinement; each takes a factor of about condition * unit roundoff


def by_block_sign(X: Tensor, Y: Tensor, D: Tensor, *, tol: float) -> tuple[Float[Tensor, "b m n"], Float[Tensor, " b"]]:
    """Return the change of Y = msign(X) for wide X (b, m, n) in float64, and a bound on its relative Frobenius error.

    The bound is that of the linear equations for the H = X Y^T at hand, by residuals in float64: with
    r = ||S - H K - K H|| the error of K is at most r ||H^-1|| / 2, and ||H^-1|| at most ||N|| / (1 - ||I - H N||) for
    the N that was computed. No step of the iteration is trusted. It is infinite where H is not definite to rounding.
    """
    T = X @ Y.mT
    H = 0.5 * (T + T.mT)
    N, reach = _inverse(H)
    sound = reach.isfinite()
    H, N = (torch.where(sound[:, None, None], A, _eye(A)) for A in (H, N))
    reach = torch.where(sound, reach, 1.0)
    C = D @ Y.mT
    K, of_skew = _solve(H, C - C.mT, reach, tol)
    outside = D - C @ Y
    Z = N @ outside
    of_rest = reach * _norm(outside - H @ Z)
    change = K @ Y + Z
    error = 0.5 * reach * of_skew + of_rest + 8 * torch.finfo(H.dtype).eps * (reach * _norm(H)) * _norm(change)
    size = _norm(change) - error
    nothing = (size <= 0) & (error == 0)
    return change, torch.where(sound & (size > 0), error / size, torch.where(nothing & sound, 0.0, torch.inf))


def _inverse(H: Tensor) -> tuple[Tensor, Tensor]:
    """Return N ~ H^-1 and a bound on ||H^-1||_2, infinite where none follows."""
    factor, info = torch.linalg.cholesky_ex(H)
    N = torch.cholesky_inverse(torch.where(info[:, None, None] == 0, factor, _eye(H)))
    off = _norm(_eye(H) - H @ N)
    safe = (info == 0) & (off < 0.5)
    return N, torch.where(safe, _at_most(N) / (1 - torch.where(safe, off, 0.0)), torch.inf)


def _solve(H: Tensor, S: Tensor, reach: Tensor, tol: float) -> tuple[Tensor, Tensor]:
    """Return K with H K + K H ~ S for skew S, and the norms of the residuals."""
    dtype = torch.float32 if tol >= _NARROW else torch.float64
    squared = _Squared(H, 1 / reach, _at_most(H), dtype, tol)
    K = squared.apply(S)
    for _ in range(_ROUNDS):
        HK = H @ K
        rest = S - (HK - HK.mT)
        size = _norm(rest)
        if bool((0.5 * reach * size <= 0.1 * tol * _norm(K)).all()):
            break
        K = K + squared.apply(rest)
    HK = H @ K
    return K, _norm(S - (HK - HK.mT))


class _Squared:
    """The linear map S -> K for one H, as a sum of products: its shifted inverses and the squares of its transform."""

    def __init__(self, H: Tensor, lo: Tensor, hi: Tensor, dtype: torch.dtype, tol: float) -> None:
        root = (lo * hi).sqrt()
        total = (2 * root * (lo + hi)).sqrt()
        apart = (total.square() - 4 * root.square()).clamp_min(0).sqrt()
        self.dtype = dtype
        self.shifts = [(0.5 * (total + sign * apart)).to(dtype)[:, None, None] for sign in (1, -1)]
        narrow = H.to(dtype)
        self.inverses = [torch.linalg.inv_ex(narrow + p * _eye(narrow))[0] for p in self.shifts]
        self.steps = [_eye(narrow) - 2 * p * N for p, N in zip(self.shifts, self.inverses, strict=True)]
        worst = ((lo + hi) / (2 * root)).sqrt()
        self.doublings = _doublings(float(((worst - 1) / (worst + 1)).amax()), tol)
        self.powers = [self.steps[0] @ self.steps[1]]
        for _ in range(self.doublings - 1):
            self.powers.append(self.powers[-1] @ self.powers[-1])

    def apply(self, S: Tensor) -> Tensor:
        """Return K in float64."""
        size = _norm(S)[:, None, None].clamp_min(torch.finfo(torch.float64).tiny)
        s = (S / size).to(self.dtype)
        first, second = (2 * p * (N @ s @ N) for p, N in zip(self.shifts, self.inverses, strict=True))
        K = second + self.steps[1] @ first @ self.steps[1]
        for G in self.powers[: self.doublings]:
            K = K + G @ K @ G
        K = K.double()
        return size * 0.5 * (K - K.mT)


def _doublings(rate: float, tol: float) -> int:
    """Return the least j with rate^(2^(j + 1)) at most a tenth of tol."""
    if rate <= 0:
        return 0
    needed = math.log(0.1 * tol) / math.log(rate)
    return max(0, math.ceil(math.log2(max(needed, 1.0))) - 1)


def _at_most(A: Tensor) -> Tensor:
    """Return an upper bound on the spectral norm of symmetric A: the least of its Frobenius norm and its row sums."""
    return torch.minimum(_norm(A), A.abs().sum(-1).amax(-1))


def _norm(A: Tensor) -> Tensor:
    return torch.linalg.vector_norm(A, dim=(-2, -1))


def _eye(A: Tensor) -> Tensor:
    return torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
