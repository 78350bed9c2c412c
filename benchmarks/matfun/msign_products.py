"""float32 products by torch's two CPU libraries: the reason for the rule in spectrain/matfun/_iteration/products.py."""

import argparse
import statistics
import time

import _record
import torch

SHAPES = [
    (192, 192, 192),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (1024, 4096, 1024),
    (2000, 2000, 16),
]


def by_mkl(a, b):
    return a @ b  # torch gives float32 products to MKL unless told otherwise


def by_onednn(a, b):
    return torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")


def seconds(call, a, b, repeats):
    call(a, b)
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call(a, b)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="the smallest shape, no record")
    asked = parser.parse_args()
    rows = []
    for m, k, n in SHAPES[:1] if asked.smoke else SHAPES:
        a, b = torch.ones(m, k), torch.ones(k, n)
        mkl, onednn = (seconds(call, a, b, 3 if asked.smoke else 15) for call in (by_mkl, by_onednn))
        work = 2e-9 * m * k * n
        rows.append([f"{m} x {k} x {n}", f"{work / mkl:.0f}", f"{work / onednn:.0f}", f"{mkl / onednn:.2f}"])
    body = _record.table(["product", "MKL GFLOP/s", "oneDNN GFLOP/s", "oneDNN faster by"], rows)
    print(body)
    if not asked.smoke:
        _record.write("msign_products", claim="float32 products by MKL and by oneDNN", body=body, data={"rows": rows})


if __name__ == "__main__":
    main()
