"""How long is the search for N = ab + c, in steps and in seconds, from 10^12 to 10^44, and against a plain loop?

Run: python benchmarks/gallery_product_sum.py. Writes a dated Markdown and JSON file to benchmarks/records/.
"""

from spectrain._spinning import limit_spinning

limit_spinning()  # before torch loads

import json
import platform
import random
import statistics
import time
from datetime import date
from math import isqrt, log
from pathlib import Path

import numpy as np

from spectrain.gallery.product_sum import certificate

RECORDS = Path(__file__).parent / "records"
DIGITS, CASES, SEED = (12, 16, 20, 24, 28, 32, 36, 40, 44), 15, 0
PLAIN_UP_TO = 36


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


def timed(function, N):
    start = time.perf_counter()
    answer = function(N)
    return answer, time.perf_counter() - start


def measure(digits, rng):
    rows = []
    for _ in range(CASES):
        N = rng.randrange(10 ** (digits - 1), 10**digits)
        found, seconds = timed(certificate, N)
        rows.append({"N": str(N), "steps": found.last - found.first + 1, "seconds": seconds, "sum": str(found.sum)})
        if digits <= PLAIN_UP_TO:
            answer, rows[-1]["plain_seconds"] = timed(plain_loop, N)
            assert answer == found.sum
    return rows


def main():
    rng = random.Random(SEED)
    rows = {digits: measure(digits, rng) for digits in DIGITS}
    table = []
    for digits, cases in rows.items():
        steps, seconds = [c["steps"] for c in cases], [c["seconds"] for c in cases]
        ratios = [c["steps"] / int(c["N"]) ** (1 / 6) for c in cases]
        loop = [c["plain_seconds"] for c in cases if "plain_seconds" in c]
        times = [c["plain_seconds"] / c["seconds"] for c in cases if "plain_seconds" in c]
        table.append(
            f"| 10^{digits} | {statistics.median(steps):,.0f} | {max(steps):,} | {statistics.median(ratios):.2f} "
            f"| {statistics.median(seconds):.4f} | {max(seconds):.4f} "
            f"| {f'{statistics.median(loop):.4f}' if loop else 'not run'} "
            f"| {f'{statistics.median(times):.1f}' if times else 'not run'} |"
        )
    logs = [(log(int(c["N"])), log(c["steps"])) for cases in rows.values() for c in cases]
    slope = float(np.polyfit(*zip(*logs, strict=True), 1)[0])
    name = f"{date.today()}_gallery_product_sum"
    facts = f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}, seed {SEED}"
    text = [
        "# Least a + b + c with ab + c = N: steps and seconds",
        "",
        f"{CASES} random N of each size; {facts}. One thread.",
        "Last: seconds of a plain loop, and how many times longer it takes; medians.",
        "",
        "| N up to | steps, median | steps, most | steps / N^(1/6) | seconds, median | most | plain loop | times |",
        "|---|---|---|---|---|---|---|---|",
        *table,
        "",
        f"Steps grow like N^{slope:.4f} (least squares over all cases; 1/6 = {1 / 6:.4f}; proved: at most N^(1/4)).",
        "",
    ]
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / f"{name}.md").write_text("\n".join(text))
    record = {"machine": facts, "exponent": slope, "cases": rows}
    (RECORDS / f"{name}.json").write_text(json.dumps(record, indent=1))
    print("\n".join(text))


if __name__ == "__main__":
    main()
