"""The published hard case of singular value clipping: error and time beside the formulas by matrix signs.

    python benchmarks/mclip.py            4096 x 1024 in bfloat16, recorded
    python benchmarks/mclip.py --smoke    512 x 128, nothing is recorded

128 singular values from 1 to 1000 and 896 below 1, clipped to 1 (article 11059, kexue.fm/archives/11059). The published
formulas are run as published: four steps of Polar Express after division by the Frobenius norm, in bfloat16. Errors
are against the exact clip of the bfloat16 matrix as given. Times are the median over rounds of the ratio within a
round, the functions taking turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import _record
import torch
from torch import Tensor

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


def nested(X: Tensor) -> Tensor:
    Y = msign(X)
    Z = msign(X - Y)
    return (X + Y + Z - X @ (Y.mT @ Z)) / 2


def unnested(X: Tensor) -> Tensor:
    Y, eye = msign(X), torch.eye(X.shape[1], dtype=X.dtype)
    return (X + Y + (Y - X) @ msign(X.mT @ X - eye)) / 2


def odd_symmetric(X: Tensor) -> Tensor:
    Y, G, eye = msign(X), X.mT @ X, torch.eye(X.shape[1], dtype=X.dtype)
    return ((Y + X) @ msign(G + eye) + (Y - X) @ msign(G - eye)) / 2


METHODS: dict[str, Clip] = {
    "two signs, nested (11006)": nested,
    "two signs, not nested": unnested,
    "three signs, odd-symmetric (11059)": odd_symmetric,
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


def timed(X: Tensor, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    for clip in METHODS.values():
        clip(X)
    for _ in range(rounds):
        for name, clip in METHODS.items():
            start = time.perf_counter()
            clip(X)
            found[name].append(time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=_record.RECORDS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    m, n, high = (512, 128, 16) if arguments.smoke else (4096, 1024, 128)
    s = torch.cat([torch.linspace(1, 1000, high), torch.linspace(0, 1, n - high)]).double()
    X = with_singular_values(s, m, n, generator=0).bfloat16()
    truth = spectral_function(lambda s: s.clamp(max=1), X)
    seconds = timed(X, 1 if arguments.smoke else arguments.rounds)
    rows, data = [], {}
    for name, clip in METHODS.items():
        found = errors(clip(X), X, truth)
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds[YARDSTICK], strict=True))
        data[name] = found | {"seconds": statistics.median(seconds[name]), "ratio": ratio}
        rows.append((name, *(f"{v:.3g}" for v in found.values()), f"{data[name]['seconds']:.3f}", f"{ratio:.2f}"))
    head = ("", "top singular value", "mean error of values", "mean error of entries", "seconds", "time / three signs")
    body = f"{m} x {n} bfloat16, clipped to 1\n\n" + _record.table(head, rows)
    print(body)
    if not arguments.smoke:
        claim = "mclip on the published hard case: exact in bfloat16, at a price beside that of three signs"
        print(_record.write("mclip", claim=claim, body=body, data=data, folder=arguments.out))


if __name__ == "__main__":
    main()
