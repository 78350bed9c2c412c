"""Our solver of Kepler's equation beside the package kepler.py: interleaved times, and errors in 50 digits.

    python -m benchmarks.gallery.gallery_kepler --peer FOLDER

FOLDER holds the package (made by ``pip install --no-deps --target FOLDER kepler.py``; it is not a dependency).
"""

import sys
import time
from pathlib import Path

import numpy as np
from flint import arb, ctx

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from spectrain.gallery.kepler import eccentric_anomaly

SIZES = (1, 10, 100, 300, 1000, 2000, 3000, 10_000, 100_000, 1_000_000)
KINDS, OURS, PEER = ("any e", "e next to 1"), "ours", "kepler.py"


def cases(kind, count, rng):
    """Mean anomalies in one turn and eccentricities: any, or next to the parabola."""
    if kind == "any e":
        return rng.uniform(0, 2 * np.pi, count), rng.uniform(0, 1, count)
    return 10 ** rng.uniform(-12, 0, count), 1 - 10 ** rng.uniform(-12, -2, count)


def largest_error(solve, M, e):
    """The largest error in units of the last place of E, by Newton's method in 250 bits."""
    worst = 0.0
    with ctx.workprec(250):
        for x, m, q in zip(np.asarray(solve(M, e)).tolist(), M.tolist(), e.tolist(), strict=True):
            root, mean, ecc = arb(x), arb(m), arb(q)
            for _ in range(8):
                root = arb((root - (root - ecc * root.sin() - mean) / (1 - ecc * root.cos())).mid())
            worst = max(worst, abs(float(arb(x) - root)) / float(np.spacing(abs(x))))
    return worst


def solvers(peer):
    """Ours, and the package's where it is."""
    if peer is None:
        return {OURS: eccentric_anomaly}
    sys.path.append(str(peer))
    import kepler

    return {OURS: eccentric_anomaly, PEER: kepler.solve}


def repeat(solve, M, e):
    """A call that takes long enough to be timed."""

    def run():
        for _ in range(max(1, 30_000 // (len(M) + 30))):
            solve(M, e)

    return run


def compare(by_name, kind, count, rng, rounds):
    """One row: nanoseconds an orbit, and the quartiles of the ratio of ours to theirs."""
    M, e = cases(kind, count, rng)
    calls = {name: repeat(solve, M, e) for name, solve in by_name.items()}
    times = alternate(calls, rounds=rounds, clock=time.process_time)
    solved = count * max(1, 30_000 // (count + 30))
    row = {"cases": kind, "count": count} | {f"{name}, ns": times.median(name) / solved * 1e9 for name in times}
    if PEER in times:
        low, middle, high = times.quartiles(OURS, PEER)
        row |= {"ratio": middle, "from": low, "to": high}
    return row


def measure(
    *, peer: Path | None = None, sizes: tuple[int, ...] = SIZES, rounds: int = 15, judged: int = 3000, seed: int = 0
) -> Found:
    """``peer`` is the folder that holds kepler.py, without which ours stands alone; ``judged`` orbits have errors."""
    rng, by_name = np.random.default_rng(seed), solvers(peer)
    rows = [compare(by_name, kind, n, rng, rounds) for kind in KINDS for n in sizes]
    errors = [
        {"cases": kind}
        | {
            name: largest_error(solve, *cases(kind, judged, np.random.default_rng(1)))
            for name, solve in by_name.items()
        }
        for kind in KINDS
    ]
    body = (
        f"{rounds} interleaved rounds of each, processor time, medians. Ratio: our time over theirs.\n\n"
        f"{_record.show(rows)}\n\nLargest error of {judged:,} cases, in units of the last place of E:\n\n"
        f"{_record.show(errors)}"
    )
    ratios = {f"{r['cases']}, {r['count']:,}: time over kepler.py's": r["ratio"] for r in rows if "ratio" in r}
    figures = {"worst": max(row[OURS] for row in errors)}
    return Found(rows=rows, body=body, figures=figures, ratios=ratios, data={"errors_ulp": errors})


if __name__ == "__main__":
    main(
        "gallery_kepler",
        "Kepler's equation: the largest error of ours is {worst:.2f} units in the last place",
        measure,
        smoke={"sizes": (10,), "rounds": 1, "judged": 20},
        check={"sizes": (100, 10_000), "rounds": 3, "judged": 100},
        needs="peer",
    )
