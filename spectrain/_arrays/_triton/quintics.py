"""Odd quintics of many small matrices in one launch: the short side, at most 32, stays on the chip for all steps.

A step of the iteration on 16 x 4096 does so little that launches and the traffic of X take its time. Here one program
takes one matrix: it reads X to form G = X X^T, walks all steps on k x k matrices, and reads X again to multiply.
All on the short side is float32, whatever the dtype of X, so that the result is rounded once. Between steps nothing
goes through memory: a race is what Triton's interpreter could not show.
"""

import functools

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

MOST = 32
"""The longest short side: at 64 the matrices no longer fit into registers, as the compiler says without a GPU."""
_LEAST = 16  # the shortest side that tl.dot takes
_TILE = 64  # columns of X at once


@triton.jit
def all_steps(  # type: ignore[no-untyped-def]
    X, STEPS, SCALES, OUT, short, long, count, x_batch, x_short, x_long, o_batch, o_short, o_long,
    SIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Compute r R X for one X, R the product of all steps at r^2 X X^T; rows beyond ``short`` are zero throughout."""
    batch = tl.program_id(0).to(tl.int64)
    rows, tile = tl.arange(0, SIDE), tl.arange(0, TILE)
    X += batch * x_batch + rows[:, None] * x_short
    OUT += batch * o_batch + rows[:, None] * o_short
    inside = rows[:, None] < short
    G = tl.full((SIDE, SIDE), 0.0, tl.float32)
    for begin in range(0, long, TILE):
        columns = begin + tile[None, :]
        x = tl.load(X + columns * x_long, mask=inside & (columns < long), other=0.0)
        G = tl.dot(x, tl.trans(x), G, input_precision="ieee")
    r = tl.load(SCALES + batch)
    G = r * r * G
    R = tl.where(rows[:, None] == rows[None, :], r, 0.0)
    for i in range(count):
        c0, c1, c2 = tl.load(STEPS + 3 * i), tl.load(STEPS + 3 * i + 1), tl.load(STEPS + 3 * i + 2)
        B = c1 * G + c2 * tl.dot(G, G, input_precision="ieee")
        R = c0 * R + tl.dot(B, R, input_precision="ieee")
        M = c0 * G + tl.dot(B, G, input_precision="ieee")  # c0 is added to products, never to B: relative to c0 its
        G = c0 * M + tl.dot(M, B, input_precision="ieee")  # rounding would turn the small singular directions
    for begin in range(0, long, TILE):
        columns = begin + tile[None, :]
        seen = inside & (columns < long)
        x = tl.load(X + columns * x_long, mask=seen, other=0.0).to(tl.float32)
        tl.store(OUT + columns * o_long, tl.dot(R, x, input_precision="ieee").to(OUT.dtype.element_ty), mask=seen)


def odd_quintics(
    X: Float[Tensor, "b m n"],
    steps: tuple[tuple[float, ...], ...],
    *,
    scales: Float[Tensor, " b"],
    out: Float[Tensor, "b m n"] | None = None,
) -> Float[Tensor, "b m n"]:
    """Return every U p(r S) V^T of X = U S V^T, p the composition of c0 x + c1 x^3 + c2 x^5 and r its scale.

    ``steps`` are the triples (c0, c1, c2), the first applied first. X is float32, bfloat16 or float16, of any strides;
    min(m, n) is at most ``MOST``. ``out`` shares no memory with X. Cost: 4 k^2 l for the long side l, 8 k^3 a step.
    """
    out = torch.empty_like(X) if out is None else out
    short, long = (1, 2) if X.shape[1] <= X.shape[2] else (2, 1)
    if not X.numel():
        return out
    with torch.cuda.device_of(X):
        all_steps[(len(X),)](
            X, _on(X.device, steps), scales.float().contiguous(), out, X.shape[short], X.shape[long],
            len(steps), X.stride(0), X.stride(short), X.stride(long), out.stride(0), out.stride(short),
            out.stride(long), SIDE=max(_LEAST, triton.next_power_of_2(X.shape[short])), TILE=_TILE,
        )  # fmt: skip
    return out


@functools.lru_cache(maxsize=64)
def _on(device: torch.device, steps: tuple[tuple[float, ...], ...]) -> Tensor:
    """Return the coefficients on the device; copied in every call they would make the processor wait."""
    return torch.tensor(steps, dtype=torch.float32, device=device)
