"""Columns by chance: drawn in proportion to what is left of them, or chosen by elimination on a sketch.

They are drawn one at a time, or in blocks that are filtered; a sketch is a few random combinations of the rows, which
stand for all of them.
"""

import torch
from jaxtyping import Int, Num
from torch import Tensor

from spectrain.lowrank._columns.pivoted_qr import pivoted_qr
from spectrain.lowrank._matrix.matrix import Matrix, gaussian


def row_sketch(A: Num[Tensor, "m n"], size: int, *, power: int, draw: torch.Generator) -> Num[Tensor, "size n"]:
    """Return :func:`sketch_of` of a dense matrix."""
    Y = gaussian(size, A.shape[0], dtype=A.dtype, device=A.device, generator=draw) @ A
    return _apply_power(A, A.mH, Y, power)


def sketch_of(A: Matrix, size: int, power: int, draw: torch.Generator) -> Num[Tensor, "size n"]:
    """Return Omega A (A^H A)^power for Gaussian Omega, its rows made orthonormal between products.

    Columns of the sketch span what columns of A span, and its column norms and angles are those of A to within
    sqrt(rank / size). Each power costs two more products with A and damps the tail.
    """
    Omega = gaussian(A.shape[0], size, dtype=A.dtype, device=A.device, generator=draw)
    return _apply_power(A, A.mH, (A.mH @ Omega).mH, power)


def _apply_power(A: Tensor | Matrix, adjoint: Tensor | Matrix, Y: Tensor, power: int) -> Tensor:
    for _ in range(power):
        Q = torch.linalg.qr(Y.mH).Q
        Y = (adjoint @ torch.linalg.qr(A @ Q).Q).mH
    return Y


def by_elimination(Y: Num[Tensor, "size n"], k: int) -> Int[Tensor, " k"]:
    """Return the first k pivots of Gaussian elimination with partial pivoting on Y^H.

    Dong and Martinsson (2023), "Simpler is better": elimination on a sketch finds columns about as good as pivoted
    QR, at a third of its cost and with one call that every device has. In the worst case |Z| grows like 2^k.
    """
    _, pivots, _ = torch.linalg.lu_factor_ex(Y.mH)
    order = list(range(Y.shape[-1]))
    for i, p in enumerate(pivots[:k].tolist()):
        order[i], order[p - 1] = order[p - 1], order[i]
    return torch.tensor(order[:k], device=Y.device)


def pivots_of_some(A: Num[Tensor, "m n"], k: int, *, extra: int, draw: torch.Generator) -> Int[Tensor, " k"]:
    """Return the k pivots of QR among k + extra columns drawn evenly: Optim-RID (article 10501).

    Lucas, Stahnke and others, "Efficient algorithms for constructing an interpolative decomposition", arXiv 2105.07076:
    columns, and no mixtures of rows, so that m (k + extra) numbers are read instead of m n. No guarantee: a column that
    nothing else says is drawn with probability (k + extra) / n only. Where k + extra >= n these are the pivots of QR.
    """
    drawn = torch.randperm(A.shape[-1], generator=draw, device=draw.device)[: k + extra].sort().values.to(A.device)
    return drawn[pivoted_qr(A[:, drawn], k).columns]


def random_pivoting(A: Num[Tensor, "m n"], k: int, *, block: int, draw: torch.Generator) -> Int[Tensor, " k"]:
    """Return k columns, each block drawn with probability |e_j|^2 / ||E||_F^2 and filtered (block = 1: one by one).

    Robust blockwise random pivoting (Dong, Chen, Martinsson and Pearce, arXiv 2309.16002). A block drawn at once may
    hold the same direction many times; so pivoted QR of the block's residuals keeps only the columns that carry all
    but 1/b of its square, b the block size, and the next block is drawn from what is then left. Plain pivoting one by
    one is fooled by outliers, plain blocks by repeats; this by neither.

    Guarantee: with blocks of 1 this is adaptive sampling, mean squared error at most (k + 1)! times the best for k
    columns and (1 + eps) times the best r for k = O(r / eps + r log r) (Deshpande and others 2006). What is left is
    known at every step. O(m n k), most of it in products.
    """
    Q, E = A.new_zeros(A.shape[0], 0), A
    chosen = torch.empty(0, dtype=torch.long, device=A.device)
    while len(chosen) < k:
        left = E.abs().square().sum(0).double()
        left[chosen] = 0.0
        if not bool(left.sum() > (torch.finfo(A.dtype).eps * max(A.shape)) ** 2 * A.abs().square().sum()):
            break
        size = min(block, k - len(chosen), int((left > 0).sum()))
        drawn = torch.multinomial(left.to(draw.device), size, generator=draw).to(A.device)
        new = drawn[_carriers(E[:, drawn], size)]
        part = E[:, new] - Q @ (Q.mH @ E[:, new])
        fresh = torch.linalg.qr(part).Q
        E = E - fresh @ (fresh.mH @ E)
        Q, chosen = torch.cat([Q, fresh], 1), torch.cat([chosen, new])
    return chosen


def _carriers(block: Tensor, size: int) -> Tensor:
    """Return which columns of the block carry all but 1 / size of its square."""
    if size == 1:
        return torch.zeros(1, dtype=torch.long, device=block.device)
    total = torch.linalg.vector_norm(block)
    order = pivoted_qr(block, size, stop=total / size**0.5)
    return order.columns[: max(1, int(order.rank))]
