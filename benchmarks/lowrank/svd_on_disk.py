"""A tall matrix on disk, factorized in little memory: time, error and anonymous memory.

    python benchmarks/svd_on_disk.py            # 2,000,000 x 200 in float32, 1.6 GB; writes a record
    python benchmarks/svd_on_disk.py --smoke    # 20,000 x 50, for the tests

The matrix is written in blocks of rows, Gaussian rows scaled by 1/i and rotated, and removed afterwards. Memory is what
the process has that is not a file: RssAnon of /proc/self/status, sampled every 20 ms.
"""

from spectrain._spinning import limit_spinning

limit_spinning()  # before torch loads

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from _memory import Peak
from _record import RECORDS, table, write

from spectrain import lowrank


def write_matrix(path: Path, m: int, n: int) -> np.memmap:
    """Write A in blocks, on a fixed seed."""
    draw = np.random.default_rng(0)
    V = np.linalg.qr(draw.standard_normal((n, n)))[0].astype(np.float32)
    s = (1 / np.arange(1, n + 1)).astype(np.float32)
    A = np.memmap(path, dtype=np.float32, mode="w+", shape=(m, n))
    for i in range(0, m, 20_000):
        block = draw.standard_normal((min(20_000, m - i), n), dtype=np.float32)
        A[i : i + len(block)] = (block * s) @ V.T
    A.flush()
    return np.memmap(path, dtype=np.float32, mode="r", shape=(m, n))


def cases(A: np.memmap, folder: Path, rank: int) -> list[dict[str, object]]:
    """Run the three ways, one row each."""
    m = A.shape[0]
    rows = []
    for name, options in {
        "Gram, two passes": {"method": "gram"},
        "TSQR, two passes": {"method": "tsqr"},
        "one pass from an iterator": {},
    }.items():
        once = name.startswith("one")
        source = lowrank.RowBlocks(A[i : i + 20_000] for i in range(0, m, 20_000)) if once else A
        out = None if once else np.memmap(folder / "U", dtype=np.float32, mode="w+", shape=(m, rank))
        start = time.perf_counter()
        with Peak() as peak:
            found = lowrank.svd(source, rank=rank, **options, **({} if once else {"out": out}))
        seconds = time.perf_counter() - start
        rows.append(
            {
                "way": name,
                "seconds": round(seconds, 1),
                "error / best": float(found.error) / float(found.best),
                "anonymous MiB, peak": round(peak.most),
                "of which before": round(peak.before),
            }
        )
        print(rows[-1], flush=True)
        del found
    return rows


def main() -> None:
    """Write the matrix, measure, remove it, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="20,000 x 50")
    parser.add_argument("--folder", type=Path, default=None, help="where the matrix is written (a temporary folder)")
    parser.add_argument("--out", type=Path, default=RECORDS)
    args = parser.parse_args()
    m, n, rank = (20_000, 50, 5) if args.smoke else (2_000_000, 200, 20)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        A = write_matrix(Path(folder) / "A", m, n)
        rows = cases(A, Path(folder), rank)
        del A
    limit = 1024
    worst = max(row["anonymous MiB, peak"] for row in rows[:2])
    claim = f"A {m:,} x {n} float32 matrix on disk, rank {rank}: {worst} MiB of anonymous memory at most in two passes"
    shown = [[f"{v:.6g}" if isinstance(v, float) else v for v in row.values()] for row in rows]
    body = table(list(rows[0]), shown)
    verdict = "kept" if worst < limit else "NOT kept"
    sketch = m * (2 * rank + 10) * 8 / 2**20
    body += (
        f"\n\nThe limit is {limit} MiB: {verdict} in two passes. One pass keeps a sketch of m x {2 * rank + 10} in "
        f"double precision, {sketch:.0f} MiB. `error / best` is the residual of the factors returned over the smallest "
        "error of that rank."
    )
    print(write("svd_on_disk", claim=claim, body=body, data={"rows": rows}, folder=args.out))


if __name__ == "__main__":
    main()
