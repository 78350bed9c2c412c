"""How long is the search for N = ab + c, in steps and in seconds, from 10^12 to 10^44, and against a plain loop?"""

import random
import statistics
import time
from math import isqrt, log

import numpy as np

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from spectrain.gallery.product_sum import certificate

DIGITS = (12, 16, 20, 24, 28, 32, 36, 40, 44)


def plain_loop(N):
    """The article's algorithm as one would write it: one integer square root for each p."""
    p = isqrt(4 * N)
    best = N
    while p <= best:
        D = p * p - 4 * N
        q = isqrt(D - 1) + 1 if D > 0 else 0
        q += (q ^ p) & 1
        best = min(best, p + (q * q - D) // 4)
        p += 1
    return best


def clock(function, N):
    start = time.process_time()
    answer = function(N)
    return answer, time.process_time() - start


def search(digits, rng, *, cases, plain_up_to):
    """One row for each of some random N of so many digits."""
    rows = []
    for _ in range(cases):
        N = rng.randrange(10 ** (digits - 1), 10**digits)
        found, seconds = clock(certificate, N)
        row = {"digits": digits, "N": str(N), "steps": found.last - found.first + 1, "seconds": seconds}
        rows.append(row | {"sum": str(found.sum)})
        if digits <= plain_up_to:
            answer, rows[-1]["plain_seconds"] = clock(plain_loop, N)
            assert answer == found.sum
    return rows


def line(digits, cases):
    """A line of the table: what the cases of a size have in the median and at most."""
    steps, seconds = [c["steps"] for c in cases], [c["seconds"] for c in cases]
    loop = [c["plain_seconds"] for c in cases if "plain_seconds" in c]
    times = [c["plain_seconds"] / c["seconds"] for c in cases if "plain_seconds" in c]
    return [
        f"10^{digits}",
        f"{statistics.median(steps):,.0f}",
        f"{max(steps):,}",
        f"{statistics.median(c['steps'] / int(c['N']) ** (1 / 6) for c in cases):.2f}",
        f"{statistics.median(seconds):.4f}",
        f"{max(seconds):.4f}",
        f"{statistics.median(loop):.4f}" if loop else "not run",
        f"{statistics.median(times):.1f}" if times else "not run",
    ]


def measure(*, digits: tuple[int, ...] = DIGITS, cases: int = 15, plain_up_to: int = 36, seed: int = 0) -> Found:
    """``cases`` random N for each number of digits; beside the plain loop up to ``plain_up_to`` digits."""
    rng = random.Random(seed)
    by_size = {size: search(size, rng, cases=cases, plain_up_to=plain_up_to) for size in digits}
    rows = [row for found in by_size.values() for row in found]
    slope = float(np.polyfit([log(int(c["N"])) for c in rows], [log(c["steps"]) for c in rows], 1)[0])
    head = [
        "N up to",
        "steps, median",
        "steps, most",
        "steps / N^(1/6)",
        "seconds, median",
        "most",
        "plain loop",
        "times",
    ]
    body = (
        "Last: seconds of a plain loop, and how many times longer it takes; medians.\n\n"
        f"{_record.table(head, [line(*item) for item in by_size.items()])}\n\n"
        f"Steps grow like N^{slope:.4f} (least squares over all cases; 1/6 = {1 / 6:.4f}; proved: at most N^(1/4))."
    )
    ratios = {
        f"10^{size}: plain loop over ours": statistics.median(c["plain_seconds"] / c["seconds"] for c in found)
        for size, found in by_size.items()
        if size <= plain_up_to
    }
    return Found(rows=rows, body=body, figures={"slope": slope}, ratios=ratios)


if __name__ == "__main__":
    main(
        "gallery_product_sum",
        "Least a + b + c with ab + c = N: steps grow like N^{slope:.4f}",
        measure,
        smoke={"digits": (8, 10), "cases": 2, "plain_up_to": 8},
        check={"digits": (28, 32), "cases": 3},  # from 28 digits on the ratio hardly depends on N
    )
