"""beta C + alpha A B for symmetric results: the tiles on and below the diagonal, each stored twice.

Half of the work of a product, as other Triton kernels for Newton-Schulz do it (Muon of modded-nanogpt, Dion of
Microsoft). Two things are decided otherwise. Programs exist for the lower triangle only. And on the diagonal tiles the
lower half alone is stored and mirrored, so that the result is exactly symmetric for factors that only commute, and no
entry is written with two values.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.kinds import Real


class Tiling(NamedTuple):
    """Side of a tile, entries of the inner dimension at once, and what the compiler is told of warps and stages."""

    side: int
    depth: int
    warps: int
    stages: int


TILINGS = (Tiling(64, 32, 4, 3), Tiling(128, 32, 8, 3), Tiling(128, 64, 8, 3))
"""What is compared; Triton's own autotuner would choose unseen, and otherwise in the next process."""


@triton.jit
def place(number):  # type: ignore[no-untyped-def]
    """Compute row and column of a tile: number = row (row + 1) / 2 + column, and column <= row."""
    row = ((tl.sqrt(8.0 * number + 1.0) - 1.0) * 0.5).to(tl.int32)
    row = tl.where((row + 1) * (row + 2) // 2 <= number, row + 1, row)  # where the root was rounded down
    row = tl.where(row * (row + 1) // 2 > number, row - 1, row)  # or up
    return row, number - row * (row + 1) // 2


@triton.jit
def symmetric_tile(  # type: ignore[no-untyped-def]
    A, B, C, OUT, k, inner, alpha, beta,
    a_batch, a_row, a_column, b_batch, b_row, b_column, c_batch, c_row, c_column, o_batch, o_row, o_column,
    SIDE: tl.constexpr, DEPTH: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """Compute one tile on or below the diagonal and store it with its mirror image."""
    across = (k + SIDE - 1) // SIDE
    tiles = across * (across + 1) // 2
    row, column = place(tl.program_id(0) % tiles)
    batch = (tl.program_id(0) // tiles).to(tl.int64)  # times a stride it may not fit into 32 bits
    rows = (row * SIDE + tl.arange(0, SIDE))[:, None]
    columns = (column * SIDE + tl.arange(0, SIDE))[None, :]
    A += batch * a_batch + rows * a_row
    B += batch * b_batch + columns * b_column
    total = tl.full((SIDE, SIDE), 0.0, tl.float32)
    for begin in range(0, inner, DEPTH):
        along = begin + tl.arange(0, DEPTH)
        a = tl.load(A + along[None, :] * a_column, mask=(rows < k) & (along[None, :] < inner), other=0.0)
        b = tl.load(B + along[:, None] * b_row, mask=(along[:, None] < inner) & (columns < k), other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    total = alpha * total
    below = (rows >= columns) & (rows < k)
    if ADDS:
        added = tl.load(C + batch * c_batch + rows * c_row + columns * c_column, mask=below, other=0.0)
        total += beta * added.to(tl.float32)
    found = total.to(OUT.dtype.element_ty)
    OUT += batch * o_batch
    tl.store(OUT + rows * o_row + columns * o_column, found, mask=below)
    tl.store(OUT + columns * o_row + rows * o_column, found, mask=below)


def symmetric_product(
    C: Float[Tensor, "b k k"] | None,
    A: Float[Tensor, "b k l"],
    B: Float[Tensor, "b l k"],
    *,
    beta: Real = 1.0,
    alpha: Real = 1.0,
    out: Float[Tensor, "b k k"] | None = None,
    tiling: Tiling = TILINGS[0],
) -> Float[Tensor, "b k k"]:
    """Return beta C + alpha A B, C and A B symmetric but for rounding; without C, or with beta = 0, alpha A B.

    Sums are float32 and rounded once to the dtype of A, which is float32, bfloat16 or float16, of any strides. Only
    the lower triangle of C is read. ``out`` shares no memory with the others. Cost: l k (k + side) operations.
    """
    b, k, inner = A.shape
    adds = C is not None and beta != 0
    out = A.new_empty(b, k, k) if out is None else out
    added = C if C is not None and adds else out
    across = -(-k // tiling.side)
    if out.numel():
        with torch.cuda.device_of(out):
            symmetric_tile[(b * across * (across + 1) // 2,)](
                A, B, added, out, k, inner, float(alpha), float(beta),
                *A.stride(), *B.stride(), *added.stride(), *out.stride(),
                SIDE=tiling.side, DEPTH=tiling.depth, ADDS=adds, num_warps=tiling.warps, num_stages=tiling.stages,
            )  # fmt: skip
    return out
