"""float32 products by torch's two CPU libraries: the reason for the rule in spectrain/matfun/_iteration/products.py."""

import functools
import time

import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate

SHAPES = (
    (192, 192, 192),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (1024, 4096, 1024),
    (2000, 2000, 16),
)


def by_mkl(a, b):
    return a @ b  # torch gives float32 products to MKL unless told otherwise


def by_onednn(a, b):
    return torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")


def measure(*, shapes: tuple[tuple[int, int, int], ...] = SHAPES, rounds: int = 15) -> Found:
    """Products of m x k by k x n for these (m, k, n)."""
    rows = []
    for m, k, n in shapes:
        a, b = torch.ones(m, k), torch.ones(k, n)
        calls = {"MKL": functools.partial(by_mkl, a, b), "oneDNN": functools.partial(by_onednn, a, b)}
        times = alternate(calls, rounds=rounds, clock=time.process_time)
        rates = {f"{name} GFLOP/s": 2e-9 * m * k * n / times.median(name) for name in times}
        rows.append({"product": f"{m} x {k} x {n}", **rates, "oneDNN faster by": times.ratio("MKL", "oneDNN")})
    ratios = {f"{row['product']}: MKL over oneDNN": row["oneDNN faster by"] for row in rows}
    figures = {"least": min(ratios.values()), "most": max(ratios.values())}
    return Found(rows=rows, body=_record.show(rows), figures=figures, ratios=ratios)


if __name__ == "__main__":
    main(
        "msign_products",
        "float32 products by oneDNN are {least:.2f} to {most:.2f} times as fast as by MKL",
        measure,
        smoke={"shapes": ((16, 16, 16), (16, 32, 16)), "rounds": 1},
        check={"shapes": SHAPES[:3], "rounds": 5},
    )
