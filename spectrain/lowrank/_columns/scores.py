"""Columns by a score of each: leverage, interpolation points of singular vectors, norms, or none.

Osinsky's rule is among them: k columns within sqrt(1 + k) of the best rank-k error, by one SVD and no luck.
"""

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from spectrain.lowrank._columns.pivoted_qr import pivoted_qr


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


def leverage_scores(Vh: Num[Tensor, "k n"]) -> Float[Tensor, " n"]:
    """Return the squared norms of the columns of the k leading right singular vectors (rows of Vh); their sum is k."""
    return Vh.abs().square().sum(0)


def by_leverage(Vh: Num[Tensor, "k n"]) -> Int[Tensor, " k"]:
    """Return the k columns of largest leverage.

    When the scores fall like a power j^-(1 + a), a squared error (1 + eps) times the best needs a number of columns
    that Papailiopoulos, Kyrillidis and Boutsidis (2014) state. Equal columns share their leverage, and the rule then
    takes all or none of them: there is no guarantee without that decay.
    """
    return leverage_scores(Vh).topk(len(Vh)).indices


def draw_columns(weights: Float[Tensor, " n"], k: int, draw: torch.Generator) -> Int[Tensor, " k"]:
    """Return k different columns, drawn one after the other with probability in proportion to ``weights``.

    With leverage as weights, O(k log k / eps^2) columns give (1 + eps) times the best error of rank k with constant
    probability (Drineas, Mahoney and Muthukrishnan 2008); with norms (article 10662) equal columns share nothing, and
    there is no guarantee. Columns of weight zero come only when nothing else is left.
    """
    weights = weights.double().to(draw.device)
    tiny = torch.finfo(torch.float64).tiny
    lifted = (weights / weights.sum().clamp_min(tiny)).clamp_min(torch.finfo(torch.float64).eps ** 2)
    return torch.multinomial(lifted, k, generator=draw)


def deim(Vh: Num[Tensor, "k n"]) -> Int[Tensor, " k"]:
    """Return discrete empirical interpolation points: where the next vector is least explained by those before.

    Sorensen and Embree (2016): ||A - A_J pinv(A_J) A||_2 <= ||inv(Vh[:, J])||_2 sigma_(k+1), the norm known after the
    fact, and at most sqrt(n k / 3) 2^k before it.
    """
    chosen = [int(Vh[0].abs().argmax())]
    for j in range(1, len(Vh)):
        coefficients = torch.linalg.solve(Vh[:j, chosen].mT, Vh[j, chosen])
        left = (Vh[j] - coefficients @ Vh[:j]).abs()
        left[chosen] = -1.0
        chosen.append(int(left.argmax()))
    return torch.tensor(chosen, device=Vh.device)


def qdeim(Vh: Num[Tensor, "k n"]) -> Int[Tensor, " k"]:
    """Return the pivots of QR on the leading right singular vectors (Drmac and Gugercin 2016).

    The bound of :func:`deim` with the smaller growth sqrt(n - k + 1) 2^k in the worst case; independent of the order
    and signs of the vectors, where deim depends on the order.
    """
    return pivoted_qr(Vh, len(Vh)).columns


def by_norm(A: Num[Tensor, "m n"], k: int) -> Int[Tensor, " k"]:
    """Return the k columns of largest norm. No guarantee: equal columns are taken together."""
    return torch.linalg.vector_norm(A, dim=0).topk(k).indices


def uniform(A: Num[Tensor, "m n"], k: int, draw: torch.Generator) -> Int[Tensor, " k"]:
    """Return k different columns, all sets alike. Good only where all columns are alike (incoherent)."""
    return torch.randperm(A.shape[-1], generator=draw, device=draw.device)[:k].to(A.device)


def near_centres(A: Num[Tensor, "m n"], k: int, draw: torch.Generator, *, rounds: int = 20) -> Int[Tensor, " k"]:
    """Return the columns nearest to the k centres of k-means, seeded by k-means++ (article 10662).

    Clusters of columns are represented by one each. Seeding is within O(log k) of the best clustering in the mean
    (Arthur and Vassilvitskii 2007), rounds of Lloyd's method only improve it; nothing follows for the span.
    """
    centres = A[:, _plus_plus(A, k, draw)]
    for _ in range(rounds):
        label = _squared_distances(A, centres).argmin(0)
        member = torch.zeros(k, A.shape[-1], dtype=A.dtype, device=A.device)
        member[label, torch.arange(A.shape[-1], device=A.device)] = 1
        size = member.real.sum(1)
        new = torch.where(size > 0, (A @ member.mT) / size.clamp_min(1), centres)
        if torch.equal(new, centres):
            break
        centres = new
    chosen: list[int] = []
    for row in _squared_distances(A, centres):
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return torch.tensor(chosen, device=A.device)


def _squared_distances(A: Tensor, centres: Tensor) -> Tensor:
    """Return the squared distance of each column of A (along the last axis) from each centre (along the first)."""
    square = A.abs().square().sum(0) + centres.abs().square().sum(0)[:, None]
    return (square - 2 * (centres.mH @ A).real).clamp_min(0.0)


def _plus_plus(A: Tensor, k: int, draw: torch.Generator) -> list[int]:
    """Return k columns by k-means++: each drawn by its squared distance from those before."""
    chosen = [int(torch.randint(A.shape[-1], (), generator=draw, device=draw.device))]
    distance = _squared_distances(A, A[:, chosen])[0]
    while len(chosen) < k:
        distance[chosen] = 0.0
        weight = distance if bool(distance.sum() > 0) else torch.ones_like(distance)
        weight[chosen] = 0.0
        chosen.append(int(torch.multinomial(weight.double().to(draw.device), 1, generator=draw)))
        distance = torch.minimum(distance, _squared_distances(A, A[:, chosen[-1:]])[0])
    return chosen
