"""Osinsky's rule: k columns within sqrt(1 + k) of the best rank-k error, by one SVD and no luck."""

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor


def osinsky(A: Num[Tensor, "m n"], k: int) -> Int[Tensor, " k"]:
    """Return k columns J with ||A - A_J pinv(A_J) A||_F <= sqrt(1 + k) ||A - A_k||_F, A_k the best of rank k.

    Osinsky (2023), "Close to optimal column approximation using a single SVD". Let W = V_k^H and E = A - A V_k V_k^H.
    Taking column j projects obliquely: with u = w_j / |w_j|,

        E <- E - e_j (u^H W) / |w_j|,    W <- W - u (u^H W),

    and ||E||_F^2 grows by exactly |e_j|^2 / |w_j|^2, since rows of W stay orthogonal to rows of E. The rule takes the
    column that grows it least; the least is no more than the average under weights |w_j|^2, and so after k steps the
    factor is at most prod (1 + 1 / (k - t)) = 1 + k. No constant independent of n can be smaller (Deshpande,
    Rademacher, Vempala, Wang 2006).

    Rounding: every |e_j|^2 gets the square of the rounding level of A, so that among columns with no error left the
    best conditioned is taken. Cost: one SVD and O(min(m, n) n k).
    """
    _, S, Vh = torch.linalg.svd(A, full_matrices=False)
    return by_residual_and_leverage(S, Vh, k)


def by_residual_and_leverage(S: Float[Tensor, " r"], Vh: Num[Tensor, "r n"], k: int) -> Int[Tensor, " k"]:
    """Osinsky's rule from singular values and right vectors: rows of Vh after the k-th carry the error."""
    eps = torch.finfo(S.dtype).eps
    W, E = Vh[:k].clone(), S[k:, None] * Vh[k:]
    noise = (eps * S[0]) ** 2
    chosen: list[int] = []
    for _ in range(k):
        size = W.abs().square().sum(0)
        size[chosen] = 0.0
        growth = torch.where(size > eps, (E.abs().square().sum(0) + noise) / size.clamp_min(eps), torch.inf)
        j = int(growth.argmin())
        u = W[:, j] / size[j].sqrt()
        row = u.conj() @ W
        E = E - E[:, j, None] * (row / row[j])
        W = W - torch.outer(u, row)
        W = W - torch.outer(u, u.conj() @ W)
        chosen.append(j)
    return torch.tensor(chosen, device=S.device)


def adaptive_random(Vh: Num[Tensor, "k n"], draw: torch.Generator) -> Int[Tensor, " k"]:
    """Adaptive randomized pivoting: column j with probability |w_j|^2 / (k - t), then W <- W - u u^H W.

    Cortinovis and Kressner (2024), arXiv 2412.13992: the mean of ||A - A_J pinv(A_J) A||_F^2 is at most (1 + k) times
    the best. O(n k^2) once the k leading right vectors (rows of Vh) are known.
    """
    W = Vh.clone()
    chosen: list[int] = []
    for _ in range(len(Vh)):
        size = W.abs().square().sum(0)
        size[chosen] = 0.0
        j = int(torch.multinomial(size.double(), 1, generator=draw))
        u = W[:, j] / size[j].sqrt()
        for _ in range(2):
            W = W - torch.outer(u, u.conj() @ W)
        chosen.append(j)
    return torch.tensor(chosen, device=Vh.device)
