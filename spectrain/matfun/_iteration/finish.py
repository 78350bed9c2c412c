"""The last few singular values brought to 1 exactly, where a composition of polynomials has no steps left for them."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spectrain._arrays.scale import recording
from spectrain.matfun._entry.batches import joined
from spectrain.matfun._iteration.largest import chirps
from spectrain.matfun._iteration.plain import grams, parts

_ROUNDS = 3
_CAUGHT = 0.7
_RESIDUAL, _RESIDUAL_HALF = 0.045, 0.1
_ENOUGH = 0.01  # a relative polar error that bfloat16 makes of a matrix without small singular values, too


def finish_size(short: int) -> int:
    """Return how many of the smallest singular values are finished: 1/32 of them, 16 to 64, none below a side of 160.

    That many lie below 0.025 of the largest for a square Gaussian matrix. For smaller matrices the bookkeeping costs
    more than a step.
    """
    return min(64, max(16, short // 32)) if short >= 160 else 0


def distance(Ys: Sequence[Float[Tensor, "_ _ _"]]) -> Float[Tensor, "b k k"]:
    """Return Y Y^T - I, on the short side, of every matrix of batches with one short side."""
    E = grams(Ys)
    E.diagonal(dim1=-2, dim2=-1).sub_(1)
    return E


def finish_where_needed(
    Ys: Sequence[Float[Tensor, "_ _ _"]],
    count: int,
    floor: Float[Tensor, " b"],
    E: Float[Tensor, "b k k"],
    error: float,
) -> list[Float[Tensor, "_ _ _"]]:
    """Return batches whose matrices are by :func:`finish_smallest` where they lack something, else as they are.

    Each matrix is decided about by itself, and finished in its whole batch: its bits do not hang on what others lack.

    A matrix lacks nothing where ||E||_F, with E = Y Y^T - I, is at most 2 k^(1/2) times the error of its schedule or
    0.01, whichever is larger: |s - 1| <= |s^2 - 1|, so its relative polar error is at most that, and half as much where
    it is small. A graph, and a device that would have to wait, do not look.
    """
    if recording() or E.device.type != "cpu":
        return finish_smallest(Ys, count, floor, E)
    sizes = torch.linalg.vector_norm(E, dim=(-2, -1))
    lacks = ~(sizes <= 2 * max(error, _ENOUGH) * E.shape[-1] ** 0.5)
    results, todo = list(Ys), [(i, some) for i, some in enumerate(parts(lacks, Ys)) if bool(some.any())]
    if todo:
        floors, Es = ([part[i] for i, _ in todo] for part in (parts(floor, Ys), parts(E, Ys)))
        done = finish_smallest([Ys[i] for i, _ in todo], count, torch.cat(floors), joined(Es))
        for (i, some), Y in zip(todo, done, strict=True):
            if not bool(some.all()):
                Y[~some] = Ys[i][~some].to(Y.dtype)
            results[i] = Y
    return results


def finish_smallest(
    Ys: Sequence[Float[Tensor, "_ _ _"]],
    count: int,
    floor: Float[Tensor, " b"],
    E: Float[Tensor, "b k k"] | None = None,
) -> list[Float[Tensor, "_ _ _"]]:
    """Return each Y with its ``count`` smallest singular values, those above ``floor``, at 1 if it lacks only that.

    Ys are batches of any shapes with one short side. In float32 where they are of half precision: what is added is not
    rounded again.

    ``E`` is their :func:`distance`, used in half precision, where products on the short side are cheap.
    Y is p(X) for an odd composition p: it has the singular vectors of X, and most of its singular values are near 1.
    The others span, by three rounds of the power method with I - Y Y^T, the columns of Q; then Y <- Y + Q (msign(T) -
    T) with T = Q^T Y, ``count`` x n, whose msign comes from the eigenvectors of T T^T. Where even the largest singular
    value of T is below 0.7, more are missing than ``count``, as in a matrix of low rank, and Y stays what it is.

    Where columns of Q lie in no singular space of Y, that is no msign: directions q and w, of T, that are raised while
    r = Y w - t q is not 0 give singular values up to sqrt(1 + ||r||), 1.41 at worst. So only those with a small r are
    raised, and none where all residuals together, in the Schatten-4 norm, exceed 0.045, in half precision 0.1.
    Deflation before an expensive iteration is old (Higham, Functions of Matrices, 8.9); here it comes after it and
    costs nine products with ``count`` columns, in half precision three and a Gram matrix.
    """
    dtype = Ys[0].dtype
    working = torch.promote_types(dtype, torch.float32)
    E = distance(Ys) if E is None and dtype.itemsize < 4 else E
    wide = [Y.mT if Y.shape[-2] > Y.shape[-1] else Y for Y in Ys]
    Q = torch.linalg.qr(_missing_rows(wide, count, E).mT)[0]
    Ts = [torch.bmm(q.mT.to(dtype), Y).to(working) for q, Y in zip(parts(Q, Ys), wide, strict=True)]
    squares, V = torch.linalg.eigh(joined([torch.bmm(T, T.mT) for T in Ts]).nan_to_num(0.0, 0.0, 0.0))  # NaN stays in Y
    t = squares.clamp_min(0).sqrt()[:, None, :]
    inverse = parts((V / t.clamp_min(torch.finfo(working).tiny)).mT, Ys)
    images = [torch.bmm(Y, torch.bmm(A, T).mT.to(dtype)) for Y, A, T in zip(wide, inverse, Ts, strict=True)]
    # T has its own singular vectors whether or not they are those of Y: only Y w - t q tells.
    residual = joined(images).to(working) - torch.bmm(Q, V * t)
    raised = _lift(t[:, 0], floor.to(working), residual, _RESIDUAL_HALF if dtype.itemsize == 2 else _RESIDUAL)
    change = parts(torch.bmm(V * raised[:, None, :], V.mT), Ys)
    return [_added(Y, q, torch.bmm(C, T)) for Y, q, C, T in zip(Ys, parts(Q, Ys), change, Ts, strict=True)]


def _added(Y: Float[Tensor, "b m n"], Q: Float[Tensor, "b k c"], change: Float[Tensor, "b c l"]) -> Tensor:
    """Return Y + Q change for wide Y, Y + (Q change)^T for tall, in the dtype of Q."""
    left, right = (change.mT, Q.mT) if Y.shape[-2] > Y.shape[-1] else (Q, change)
    return torch.baddbmm(Y, left, right) if Y.dtype == Q.dtype else Y.to(Q.dtype).baddbmm_(left, right)


def _missing_rows(
    Ys: Sequence[Float[Tensor, "_ k _"]], count: int, E: Float[Tensor, "b k k"] | None
) -> Float[Tensor, "b c k"]:
    """Return rows that span what wide Ys lack, by the power method with Y Y^T - I, by ``E`` where it is at hand."""
    few = chirps(Ys[0].shape[-2], count, Ys[0]).mT  # few rows are faster than columns
    rows = few.expand(sum(map(len, Ys)), -1, -1)
    if E is None:
        return joined([_lacking(part, Y) for part, Y in zip(parts(rows, Ys), Ys, strict=True)])
    rows, E = rows.float(), E.float()
    for _ in range(_ROUNDS):
        rows = torch.bmm(rows, E)
    return rows


def _lacking(rows: Float[Tensor, "b c k"], Y: Float[Tensor, "b k l"]) -> Float[Tensor, "b c k"]:
    for _ in range(_ROUNDS):
        rows = torch.baddbmm(rows, torch.bmm(rows, Y), Y.mT, alpha=-1)
    return rows


def _lift(
    t: Float[Tensor, "b c"], floor: Float[Tensor, " b"], residual: Float[Tensor, "b k c"], most: float
) -> Float[Tensor, "b c"]:
    """Return 1/t - 1 for the singular values t of the block, rising, and 0 for those that stay."""
    sizes = torch.linalg.vector_norm(residual, dim=-2)
    caught: Bool[Tensor, "b 1"] = t[:, -1:] >= _CAUGHT
    moves = caught & (t > floor[:, None]) & (sizes <= most)
    left = residual * moves[:, None, :]
    together = torch.linalg.matrix_norm(torch.bmm(left.mT, left)).sqrt()
    moves = moves & (together <= most)[:, None]
    return torch.where(moves, 1 / torch.where(moves, t, 1.0) - 1, 0.0)
