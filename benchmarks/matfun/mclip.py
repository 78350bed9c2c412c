"""The published hard case of singular value clipping: error and time beside the formulas by matrix signs.

    python -m benchmarks.matfun.mclip    # 4096 x 1024 in bfloat16

An eighth of the singular values from 1 to 1000 and the others below 1, clipped to 1 (article 11059,
kexue.fm/archives/11059). The published formulas are run as published: four steps of Polar Express after division by the
Frobenius norm, in bfloat16. Errors are against the exact clip of the bfloat16 matrix as given. Times are the median
over rounds of the ratio within a round, the functions taking turns.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from spectrain import matfun
from spectrain.approx.recipes import RECIPES
from spectrain.testing import spectral_function, with_singular_values

Clip = Callable[[Tensor], Tensor]


def msign(X: Tensor) -> Tensor:
    """Four steps of Polar Express in the dtype of X, as the article runs them."""
    X = X / X.float().norm().to(X.dtype)
    for p in RECIPES["polar-express-5/1.01"].steps[:4]:
        a, b, c = (float(v) for v in p.coefficients)
        G = X.mT @ X if X.shape[0] > X.shape[1] else X @ X.mT
        B = torch.addmm(G, G, G, beta=b, alpha=c)
        X = torch.addmm(X, X, B, beta=a) if X.shape[0] > X.shape[1] else torch.addmm(X, B, X, beta=a)
    return X


def clip_nested(X: Tensor) -> Tensor:
    Y = msign(X)
    Z = msign(X - Y)
    return (X + Y + Z - X @ (Y.mT @ Z)) / 2


def clip_unnested(X: Tensor) -> Tensor:
    Y, eye = msign(X), torch.eye(X.shape[1], dtype=X.dtype)
    return (X + Y + (Y - X) @ msign(X.mT @ X - eye)) / 2


def clip_by_odd_symmetry(X: Tensor) -> Tensor:
    Y, G, eye = msign(X), X.mT @ X, torch.eye(X.shape[1], dtype=X.dtype)
    return ((Y + X) @ msign(G + eye) + (Y - X) @ msign(G - eye)) / 2


METHODS: dict[str, Clip] = {
    "two signs, nested (11006)": clip_nested,
    "two signs, not nested": clip_unnested,
    "three signs, odd-symmetric (11059)": clip_by_odd_symmetry,
    "mclip(steps=4): three signs": lambda X: matfun.mclip(X, 0, 1, steps=4),
    "mclip": lambda X: matfun.mclip(X, 0, 1),
    'mclip(method="svd")': lambda X: matfun.mclip(X, 0, 1, method="svd"),
}
YARDSTICK = "three signs, odd-symmetric (11059)"


def errors(Y: Tensor, X: Tensor, truth: Tensor) -> dict[str, float]:
    s, found = torch.linalg.svdvals(X.double()).clamp(max=1), torch.linalg.svdvals(Y.double())
    return {
        "top": float(found[0]),
        "mean of values": float((found - s).abs().mean()),
        "mean of entries": float((Y.double() - truth).abs().mean()),
    }


def measure(*, m: int = 4096, n: int = 1024, rounds: int = 7) -> Found:
    """One m x n matrix; every method in turn."""
    high = n // 8
    s = torch.cat([torch.linspace(1, 1000, high), torch.linspace(0, 1, n - high)]).double()
    X = with_singular_values(s, m, n, generator=0).bfloat16()
    truth = spectral_function(lambda s: s.clamp(max=1), X)
    times = alternate({name: functools.partial(clip, X) for name, clip in METHODS.items()}, rounds=rounds)
    rows = [
        {"method": name, **errors(clip(X), X, truth), "seconds": times.median(name)}
        | {"time / three signs": times.ratio(name, YARDSTICK)}
        for name, clip in METHODS.items()
    ]
    by = {row["method"]: row for row in rows}
    figures = {f"{name}: time / three signs": row["time / three signs"] for name, row in by.items()}
    figures |= {"top": by["mclip"]["top"], "time": by["mclip"]["time / three signs"]}
    return Found(rows=rows, body=f"{m} x {n} bfloat16, clipped to 1\n\n{_record.show(rows)}", figures=figures)


if __name__ == "__main__":
    main(
        "mclip",
        "mclip on the published hard case leaves a largest singular value of {top:.4f}, in {time:.2f} of the time of "
        "three signs",
        measure,
        smoke={"m": 64, "n": 32, "rounds": 1},
        threads=2,
    )
