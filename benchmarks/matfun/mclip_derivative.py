"""The backward pass of mclip, and of other functions that keep a decomposition, beside that of unrolled iterations.

The backward of ``mclip`` is products with the eigenvectors that its forward pass kept. Beside it stand five quintics of
msign, as Muon's reference code writes them, and mclip by two nested signs of five (article 11006,
kexue.fm/archives/11006), both through autograd; and the divided differences of an SVD in float64, which the backward
was before.
"""

import math
import time
from functools import partial

import torch
from torch import Tensor

from benchmarks._program import main
from benchmarks._record import Found, show
from benchmarks._rounds import alternate
from benchmarks.matfun.msign_derivative import backward, unrolled
from spectrain import matfun
from spectrain.matfun._clipping.change import Interval
from spectrain.matfun._derivative.differences import change_of_odd

SHAPES = ((128, 128), (256, 256), (1024, 1024), (256, 1024))


def clip_by_two_signs(X: Tensor) -> Tensor:
    """The clip to 1 of article 11006, by the iteration that autograd records."""
    Y = unrolled(X)
    Z = unrolled(X - Y)
    return (X + Y + Z - X @ (Y.mT @ Z)) / 2


def measure(*, shapes: tuple[tuple[int, int], ...] = SHAPES, rounds: int = 15, least: int = 256) -> Found:
    """Gaussian matrices in float32, clipped at the root of their rows; ratios within a round, forward and backward."""
    rows = []
    g = torch.Generator().manual_seed(0)
    for m, n in shapes:
        X, D, c = torch.randn(m, n, generator=g), torch.randn(m, n, generator=g), math.sqrt(m)
        clip = partial(matfun.mclip, lower=0, upper=c)
        by_svd = partial(change_of_odd, X[None], D[None], values=Interval(0.0, c, 0.0).values)
        Z = X.clone().requires_grad_()
        (found,) = torch.autograd.grad(clip(Z), Z, D)
        truth = by_svd()[0]
        times = alternate(
            {
                "msign unrolled": backward(unrolled, X, D),
                "mclip unrolled": backward(lambda Z, c=c: c * clip_by_two_signs(Z / c), X, D),
                "mclip": backward(clip, X, D),
                "SVD": by_svd,
                "forward unrolled": lambda Z=Z, c=c: c * clip_by_two_signs(Z / c),
                "forward": lambda Z=Z, clip=clip: clip(Z),
            },
            rounds=rounds,
            clock=time.process_time,
        )
        rows.append(
            {
                "shape": f"{m} x {n}",
                "msign unrolled, ms": 1e3 * times.median("msign unrolled"),
                "mclip / msign unrolled": times.ratio("mclip", "msign unrolled"),
                "mclip / mclip unrolled": times.ratio("mclip", "mclip unrolled"),
                "mclip / SVD": times.ratio("mclip", "SVD"),
                "forward / mclip unrolled": times.ratio("forward", "forward unrolled"),
                "error": float((found.double() - truth).norm() / truth.norm()),
            }
        )
    large = [row for row, (m, _) in zip(rows, shapes, strict=True) if m >= least] or rows
    figures = {
        "ratio": max(float(row["mclip / msign unrolled"]) for row in large),
        "own": max(float(row["mclip / mclip unrolled"]) for row in large),
        "error": max(float(row["error"]) for row in rows),
    }
    ratios = {f"{row['shape']}: {name}": float(row[name]) for row in rows for name in row if " / " in name}
    return Found(rows=rows, body=show(rows), figures=figures, ratios=ratios)


if __name__ == "__main__":
    main(
        "mclip_derivative",
        "From {least} rows on the backward of mclip takes at most {ratio:.2f} of the time of five unrolled steps "
        "of msign, {own:.2f} of that of mclip by two signs, at a relative error of {error:.1e}",
        measure,
        smoke={"shapes": ((16, 16), (16, 24)), "rounds": 1, "least": 16},
        check={"shapes": ((256, 256), (256, 1024)), "rounds": 5},
    )
