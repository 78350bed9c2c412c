"""The backward pass of msign beside that of five unrolled steps, and its two ways beside each other.

The backward of ``msign`` keeps the input and the result, whatever the number of steps; that of an unrolled iteration
keeps five tensors a step. ``unrolled`` are five quintics as Muon's reference code writes them, through autograd.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks._program import main
from benchmarks._record import Found, show
from benchmarks._rounds import alternate
from spectrain import matfun
from spectrain.matfun._derivative.block_sign import by_block_sign
from spectrain.matfun._derivative.sign import by_eigenvectors
from spectrain.testing import exact_msign

SHAPES = ((128, 128), (256, 256), (512, 512), (256, 1024))
QUINTIC = (3.4445, -4.7750, 2.0315)


def unrolled(X: Tensor, steps: int = 5) -> Tensor:
    """The iteration of Muon's reference code, recorded by autograd."""
    a, b, c = QUINTIC
    Y = X / X.norm()
    for _ in range(steps):
        A = Y @ Y.mT
        Y = a * Y + (b * A + c * A @ A) @ Y
    return Y


def backward(function: Callable[[Tensor], Tensor], X: Tensor, D: Tensor) -> Callable[[], object]:
    """A call that takes the gradient of one recorded forward pass."""
    Z = X.clone().requires_grad_()
    Y = function(Z)
    return lambda: torch.autograd.grad(Y, Z, D, retain_graph=True)


def measure(*, shapes: tuple[tuple[int, int], ...] = SHAPES, rounds: int = 15, least: int = 256) -> Found:
    """Gaussian matrices in float32; ratios within a round, and the largest of those with ``least`` rows and more."""
    rows = []
    g = torch.Generator().manual_seed(0)
    for m, n in shapes:
        X, D = torch.randn(m, n, generator=g), torch.randn(m, n, generator=g)
        wide = X.double()[None], exact_msign(X.double())[None], D.double()[None]
        truth = by_eigenvectors(*wide)
        found, bound = by_block_sign(*wide, tol=1e-4)
        times = alternate(
            {
                "unrolled": backward(unrolled, X, D),
                "msign": backward(lambda Z: matfun.msign(Z, steps=5, dtype=torch.float32), X, D),
                "eigenvectors": lambda wide=wide: by_eigenvectors(*wide),
                "block sign": lambda wide=wide: by_block_sign(*wide, tol=1e-4),
            },
            rounds=rounds,
            clock=time.process_time,
        )
        rows.append(
            {
                "shape": f"{m} x {n}",
                "unrolled, ms": 1e3 * times.median("unrolled"),
                "msign / unrolled": times.ratio("msign", "unrolled"),
                "block sign / unrolled": times.ratio("block sign", "unrolled"),
                "block sign / eigenvectors": times.ratio("block sign", "eigenvectors"),
                "error of block sign": float((found - truth).norm() / truth.norm()),
                "its bound": float(bound),
            }
        )
    large = [row for row, (m, _) in zip(rows, shapes, strict=True) if m >= least] or rows
    worst = max(float(row["msign / unrolled"]) for row in large)
    block = max(float(row["block sign / unrolled"]) for row in large)
    ratios = {f"{row['shape']}: {name}": float(row[name]) for row in rows for name in row if " / " in name}
    return Found(rows=rows, body=show(rows), figures={"ratio": worst, "block": block}, ratios=ratios)


if __name__ == "__main__":
    main(
        "msign_derivative",
        "From {least} rows on the backward of msign takes at most {ratio:.2f} of the time of five unrolled steps, the "
        "block sign {block:.2f} on a CPU",
        measure,
        smoke={"shapes": ((16, 16), (16, 24)), "rounds": 1, "least": 16},
        check={"shapes": ((256, 256), (256, 1024)), "rounds": 5},
    )
