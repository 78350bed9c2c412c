"""Batched products, by the faster of torch's two float32 libraries.

MKL takes a slow path on processors of other makers: on an AMD EPYC with AVX-512 its float32 products ran at 113 GFLOP/s
and oneDNN's, which torch ships too, at 258 (benchmarks/matfun/msign_products.py). The choice is a rule, not a
measurement, so it is the same in every run on a machine.

Of a product that is symmetric five eighths are computed, block column by block column; the rest is copied. On CUDA a
kernel may do it by tiles (`_triton`).
"""

import functools
import itertools
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays._triton.products import symmetric_by_triton
from spectrain._arrays.kinds import Real
from spectrain._arrays.scale import recording

_LEAST = 192  # of the inner and outer sides, from where oneDNN gains
_LEAST_SIDE = 640  # where five eighths of a product take 0.75 of its time in bfloat16; at 400 they take 1.0
_BLOCKS = 4  # block columns of a symmetric product


@functools.cache
def onednn_is_faster() -> bool:
    """Whether float32 products go to oneDNN: on AMD processors with AVX-512, where torch has both libraries."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    info = Path("/proc/cpuinfo")
    amd = info.exists() and "AuthenticAMD" in info.read_text(encoding="utf-8")[:2000]
    return amd and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _by_onednn(A: Tensor, B: Tensor) -> bool:
    if torch.compiler.is_compiling() or A.dtype != torch.float32 or A.device.type != "cpu":
        return False
    return min(*A.shape[-2:], B.shape[-1]) >= _LEAST and onednn_is_faster()


def bmm(
    A: Float[Tensor, "b m k"], B: Float[Tensor, "b k n"], out: Float[Tensor, "b m n"] | None = None
) -> Float[Tensor, "b m n"]:
    """Return A B, as ``torch.bmm``."""
    if not _by_onednn(A, B):
        return torch.bmm(A, B, out=out)
    results = [onednn_product(a, b) for a, b in zip(A, B, strict=True)]
    if out is None:
        return results[0][None] if len(results) == 1 else torch.stack(results)
    for target, result in zip(out, results, strict=True):
        target.copy_(result)
    return out


def baddbmm(
    C: Float[Tensor, "b m n"],
    A: Float[Tensor, "b m k"],
    B: Float[Tensor, "b k n"],
    *,
    beta: Real = 1.0,
    alpha: Real = 1.0,
    out: Float[Tensor, "b m n"] | None = None,
) -> Float[Tensor, "b m n"]:
    """Return beta C + alpha A B, as ``torch.baddbmm``."""
    if not _by_onednn(A, B):
        return torch.baddbmm(C, A, B, beta=beta, alpha=alpha, out=out)
    result = torch.empty_like(C) if out is None else out
    for target, c, a, b in zip(result, C, A, B, strict=True):
        AB = onednn_product(a, b)
        torch.add(AB if alpha == 1 else AB.mul_(alpha), c, alpha=beta, out=target)
    return result


def onednn_product(A: Float[Tensor, "m k"], B: Float[Tensor, "k n"]) -> Float[Tensor, "m n"]:
    """Return A B by the linear layer of oneDNN, which takes float32 as it is, without switching anything globally."""
    return torch.ops.mkldnn._linear_pointwise(A, B.mT, None, "none", [], "")


def _in_blocks(A: Tensor) -> bool:
    return A.dtype == torch.bfloat16 and A.device.type == "cpu" and A.shape[-2] >= _LEAST_SIDE and not recording()


def symmetric_bmm(A: Float[Tensor, "b k l"], B: Float[Tensor, "b l k"]) -> Float[Tensor, "b k k"]:
    """Return A B, which is symmetric: A A^T, or a product of commuting symmetric matrices."""
    if (found := symmetric_by_triton(None, A, B, _of_torch)) is not None:
        return found
    if not _in_blocks(A):
        return bmm(A, B)
    result = A.new_empty(*A.shape[:-1], A.shape[-2])
    for a, b, out in zip(A, B, result, strict=True):
        for low, high in _columns(len(a)):
            torch.mm(a[low:], b[:, low:high], out=out[low:, low:high])
            out[low:high, high:] = out[high:, low:high].mT
    return result


def symmetric_baddbmm(
    C: Float[Tensor, "b k k"],
    A: Float[Tensor, "b k k"],
    B: Float[Tensor, "b k k"],
    *,
    beta: Real = 1.0,
    alpha: Real = 1.0,
) -> Float[Tensor, "b k k"]:
    """Return beta C + alpha A B for symmetric matrices that commute but for rounding."""
    if (found := symmetric_by_triton(C, A, B, _of_torch, beta=beta, alpha=alpha)) is not None:
        return found
    if not _in_blocks(A):
        return baddbmm(C, A, B, beta=beta, alpha=alpha)
    result = torch.empty_like(C)
    for c, a, b, out in zip(C, A, B, result, strict=True):
        for low, high in _columns(len(a)):
            block = out[low:, low:high]
            torch.addmm(c[low:, low:high], a[low:], b[:, low:high], beta=beta, alpha=alpha, out=block)
            out[low:high, high:] = out[high:, low:high].mT
    return result


def _of_torch(C: Tensor | None, A: Tensor, B: Tensor, beta: Real, alpha: Real) -> Tensor:
    """Return what a kernel is compared with."""
    return torch.bmm(A, B) if C is None else torch.baddbmm(C, A, B, beta=beta, alpha=alpha)


def _columns(k: int) -> list[tuple[int, int]]:
    """Return the ends of the block columns, multiples of 32."""
    ends = [round(i * k / _BLOCKS / 32) * 32 for i in range(_BLOCKS)] + [k]
    return list(itertools.pairwise(ends))
