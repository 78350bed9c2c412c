"""What msign is compared with: torch's own loop and the exact decomposition, and the rate that a processor has."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim._muon import _zeropower_via_newtonschulz

from benchmarks._rounds import seconds
from spectrain._arrays.products import bmm

JORDAN = (3.4445, -4.775, 2.0315)
Method = Callable[[list[Tensor]], list[Tensor]]


def each(f: Callable[[Tensor], Tensor]) -> Method:
    """A loop over matrices, as the peers' optimizers have it."""
    return lambda Xs: [f(X.clone()) for X in Xs]


def newton_schulz(X: Tensor) -> Tensor:
    """Five steps of torch.optim.Muon's loop in bfloat16."""
    return _zeropower_via_newtonschulz(X, JORDAN, 5, 1e-7)


def svd(X: Tensor) -> Tensor:
    """U V^T by LAPACK."""
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    return U @ Vh


def peak(dtype: torch.dtype, n: int) -> float:
    """The rate of an n x n product here, in GFLOP/s, best of five."""
    A = torch.randn(1, n, n).to(dtype)
    return 2e-9 * n**3 / min(seconds(lambda: bmm(A, A)) for _ in range(5))
