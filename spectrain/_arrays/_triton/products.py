"""Each kernel as a product that may be chosen: for which matrices, and what it is compared on."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays._triton.choice import Run, Trial, compare, possible, size_class, winner
from spectrain._arrays._triton.judges import Steps, quintics_roundings, symmetric_roundings
from spectrain._arrays.kinds import Real

MOST_SHORT = 32
"""The longest short side of a matrix for which all steps are one launch."""
_LEAST_SIDE = 128  # of a symmetric result: a smaller one is a tile or two, of which nothing is left out
_MOST_ENTRIES = 2**24  # of what a comparison makes; larger batches are compared by a part
_FAR = 2**31  # entries of one matrix are numbered in 32 bits

Baddbmm = Callable[[Tensor | None, Tensor, Tensor, Real, Real], Tensor]
Iteration = Callable[[Tensor, Steps], Tensor]


def symmetric_by_triton(
    C: Float[Tensor, "b k k"] | None,
    A: Float[Tensor, "b k l"],
    B: Float[Tensor, "b l k"],
    torchs: Baddbmm,
    *,
    beta: Real = 1.0,
    alpha: Real = 1.0,
) -> Float[Tensor, "b k k"] | None:
    """Return beta C + alpha A B, which is symmetric, by the kernel, or None where the product of torch is taken."""
    given = [A, B] if C is None else [A, B, C]
    if not (possible(*given) and A.shape[-2] >= _LEAST_SIDE and _within_reach(*given)):
        return None
    key = ("symmetric", A.device, A.dtype, tuple([_turned(X) for X in given]), size_class(*A.shape))
    tiling = winner(key, lambda: symmetric_trials(given, torchs))
    if tiling is None:
        return None
    from spectrain._arrays._triton.symmetric import symmetric_product  # only now Triton is known to be here

    return symmetric_product(C, A, B, beta=beta, alpha=alpha, tiling=tiling)


def symmetric_trials(given: Sequence[Tensor], torchs: Baddbmm, **timed: Any) -> list[Trial]:
    """Compare on random matrices laid out as A, B and, where there is one, C; A B is A A^T."""
    from spectrain._arrays._triton.symmetric import TILINGS, symmetric_product

    A = _laid(given[0], _noise(given[0]) / given[0].shape[-1] ** 0.5)
    B = _laid(given[1], A.mT)
    C = _laid(given[2], A @ A.mT) if len(given) > 2 else None
    beta, alpha = (0.0, 1.0) if C is None else (-0.5, 1.5)
    ways: dict[Any, Run] = {
        tiling: partial(symmetric_product, C, A, B, beta=beta, alpha=alpha, tiling=tiling) for tiling in TILINGS
    }
    judge = partial(symmetric_roundings, C=C, A=A, B=B, beta=beta, alpha=alpha)
    return compare(ways, partial(torchs, C, A, B, beta, alpha), judge, **timed)


def quintics_by_triton(
    X: Float[Tensor, "b m n"], steps: Steps, scales: Float[Tensor, " b"], torchs: Iteration
) -> Float[Tensor, "b m n"] | None:
    """Return every U p(r S) V^T, p the composition of odd quintics, by the kernel, or None where torch's way is taken.

    In half precision only: there float32 on the chip is better than what it replaces.
    """
    if not (possible(X) and X.itemsize == 2 and min(X.shape[-2:]) <= MOST_SHORT and _within_reach(X)):
        return None
    key = ("quintics", X.device, X.dtype, _turned(X), size_class(*X.shape), len(steps))
    if winner(key, lambda: quintics_trials(X, steps, torchs)) is None:
        return None
    from spectrain._arrays._triton.quintics import odd_quintics

    return odd_quintics(X, steps, scales=scales)


def quintics_trials(X: Tensor, steps: Steps, torchs: Iteration, **timed: Any) -> list[Trial]:
    """Compare on random matrices of Frobenius norm 1 laid out as X; torch's way may use its argument up."""
    from spectrain._arrays._triton.quintics import odd_quintics

    noise = _noise(X)
    sample = _laid(X, noise / torch.linalg.matrix_norm(noise, keepdim=True))
    ways: dict[Any, Run] = {
        "one launch": partial(odd_quintics, sample, steps, scales=torch.ones(len(sample), device=X.device))
    }
    judge = partial(quintics_roundings, X=sample, steps=steps)
    return compare(ways, partial(torchs, sample.clone(), steps), judge, **timed)


def _noise(like: Tensor) -> Tensor:
    """Return Gaussian matrices in float32, as many as a comparison takes."""
    b, m, n = like.shape
    shape = (min(b, max(1, _MOST_ENTRIES // (m * n))), m, n)
    return torch.randn(shape, generator=torch.Generator(like.device).manual_seed(0), device=like.device)


def _laid(like: Tensor, values: Tensor) -> Tensor:
    values = values.to(like.dtype)
    return values.mT.contiguous().mT if _turned(like) else values.contiguous()


def _turned(X: Tensor) -> bool:
    """Whether it lies in memory column by column."""
    return X.stride(-2) < X.stride(-1)


def _within_reach(*given: Tensor) -> bool:
    """Whether there are entries, and those of one matrix lie close enough to be numbered by the kernels."""
    return all(X.numel() > 0 and _span(X) < _FAR for X in given)


def _span(X: Tensor) -> int:
    return sum([(size - 1) * stride for size, stride in zip(X.shape[-2:], X.stride()[-2:], strict=True)])
