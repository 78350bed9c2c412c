"""A tall matrix on disk, factorized in little memory: time, error and anonymous memory.

    python -m benchmarks.lowrank.svd_on_disk    # 2,000,000 x 200 in float32, 1.6 GB

The matrix is written in blocks of rows, Gaussian rows scaled by 1/i and rotated, and removed afterwards. Memory is what
the process has that is not a file: RssAnon of /proc/self/status, sampled every 20 ms.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import _record
from benchmarks._memory import Peak
from benchmarks._program import main
from benchmarks._record import Found
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
                "seconds": seconds,
                "error / best": float(found.error) / float(found.best),
                "anonymous MiB, peak": peak.most,
                "of which before": peak.before,
            }
        )
        print(rows[-1], flush=True)
        del found
    return rows


def measure(*, m: int = 2_000_000, n: int = 200, rank: int = 20, folder: Path | None = None) -> Found:
    """An m x n matrix, written to ``folder`` (a temporary one) and removed."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        A = write_matrix(Path(place) / "A", m, n)
        rows = cases(A, Path(place), rank)
        del A
    limit = 1024
    worst = max(row["anonymous MiB, peak"] for row in rows[:2])
    verdict = "kept" if worst < limit else "NOT kept"
    sketch = m * (2 * rank + 10) * 8 / 2**20
    body = _record.show(rows, 6)
    body += (
        f"\n\nThe limit is {limit} MiB: {verdict} in two passes. One pass keeps a sketch of m x {2 * rank + 10} in "
        f"double precision, {sketch:.0f} MiB. `error / best` is the residual of the factors returned over the smallest "
        "error of that rank."
    )
    return Found(rows=rows, body=body, figures={"memory": worst})


if __name__ == "__main__":
    main(
        "svd_on_disk",
        "A {m:,} x {n} float32 matrix on disk, rank {rank}: {memory:.0f} MiB of anonymous memory at most in two passes",
        measure,
        smoke={"m": 1000, "n": 20, "rank": 3},
        threads=None,
    )
