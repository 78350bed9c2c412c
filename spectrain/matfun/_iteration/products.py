"""Batched products, by the faster of torch's two float32 libraries.

MKL takes a slow path on processors of other makers: on an AMD EPYC with AVX-512 its float32 products ran at 113 GFLOP/s
and oneDNN's, which torch ships too, at 258 (benchmarks/msign_products.py). The choice is a rule, not a measurement, so
it is the same in every run on a machine.
"""

import functools
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._entry.input import Real

_LEAST = 192  # of the inner and outer sides, from where oneDNN gains


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
