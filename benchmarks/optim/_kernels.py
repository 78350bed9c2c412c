"""Our kernels for CUDA beside float64 and beside the products of torch, where Triton and a device for it are."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks._rounds import alternate
from benchmarks.optim._checks import Check, distance, finished, noise, unit_roundoff
from spectrain import matfun
from spectrain._arrays._triton.choice import possible, trials
from spectrain.approx.internal import odd_coefficients


class Kernel(NamedTuple):
    """One of our kernels and the product of torch, to be compared with a result in float64."""

    case: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    exact: Callable[[], Tensor]
    terms: int
    """Of the longest sum in float32."""

    def check(self) -> Check:
        """Ours beside float64."""
        found = self.ours()
        most = 4 * (unit_roundoff(found.dtype) + self.terms**0.5 * unit_roundoff(torch.float32))
        return Check(f"kernel, {self.case}", distance(found, self.exact()), most)


def kernels(device: torch.device, side: int) -> Iterator[Kernel]:
    """Symmetric products in every tiling, with a sum and without, and small matrices by five steps."""
    if not possible(torch.empty(1, 1, 1, device=device)):
        return
    from spectrain._arrays._triton.symmetric import TILINGS, symmetric_product

    for name in ("bfloat16", "float16", "float32"):
        X = (noise(2, 4 * side, side, seed=5) / (4 * side) ** 0.5).to(device, getattr(torch, name))
        G, x = X.mT @ X, X.cpu().double()
        g = G.cpu().double()
        for tiling in TILINGS:
            yield Kernel(
                f"X^T X, {name}, {tuple(tiling)}", partial(symmetric_product, None, X.mT, X, tiling=tiling),
                partial(torch.bmm, X.mT, X), partial(torch.bmm, x.mT, x), 4 * side,
            )  # fmt: skip
            yield Kernel(
                f"(3 G - G^2) / 2, {name}, {tuple(tiling)}",
                partial(symmetric_product, G, G, G, beta=1.5, alpha=-0.5, tiling=tiling),
                partial(torch.baddbmm, G, G, G, beta=1.5, alpha=-0.5),
                partial(torch.baddbmm, g, g, g, beta=1.5, alpha=-0.5), side,
            )  # fmt: skip
    yield from small(device, side)


def small(device: torch.device, side: int) -> Iterator[Kernel]:
    """Many matrices of 16 rows by five quintics in one launch, beside three products of torch for each."""
    from spectrain._arrays._triton.quintics import odd_quintics

    steps = odd_coefficients(matfun.planning.design(5, dtype=torch.bfloat16).polynomials)
    X = noise(64, 16, 4 * side, seed=6)
    for name in ("bfloat16", "float16"):
        half = (X / torch.linalg.matrix_norm(X, keepdim=True)).to(device, getattr(torch, name))
        yield Kernel(
            f"five steps, 64 of 16x{4 * side}, {name}", partial(odd_quintics, half, steps, scales=half.new_ones(64)),
            partial(quintics, half, steps), partial(quintics, half.cpu().double(), steps), 4 * side,
        )  # fmt: skip


def quintics(X: Tensor, steps: tuple[tuple[float, ...], ...]) -> Tensor:
    """c0 X + (c1 G + c2 G^2) X with G = X X^T, step by step."""
    for c0, c1, c2 in steps:
        G = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(G, G, G, beta=c1, alpha=c2), X, beta=c0)
    return X


def kernel_times(found: Sequence[Kernel], device: torch.device, rounds: int) -> list[dict[str, object]]:
    """Milliseconds of every kernel and of torch's product, in turns."""
    rows: list[dict[str, object]] = []
    for kernel in found:
        times = alternate({name: finished(getattr(kernel, name), device) for name in ("ours", "theirs")}, rounds=rounds)
        ms = {name: 1e3 * times.median(name) for name in times}
        rows.append({"kernel": kernel.case, **ms, "ratio": times.ratio("ours", "theirs")})
    return rows


def chosen() -> list[dict[str, object]]:
    """What the comparisons at the first product of each class came to, in this process."""
    return [
        {"class": " ".join(map(str, key)), "way": str(trial.way), "roundings": trial.roundings, "ratio": trial.ratio,
         "taken": trial.wins, "problem": trial.problem}
        for key, found in trials().items() for trial in found
    ]  # fmt: skip
