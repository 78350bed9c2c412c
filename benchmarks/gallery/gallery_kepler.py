"""Our solver of Kepler's equation beside the package kepler.py: interleaved times, and errors in 50 digits.

Run: python benchmarks/gallery_kepler.py --peer FOLDER, where FOLDER holds the package (made by
``pip install --no-deps --target FOLDER kepler.py``; it is not a dependency). Writes a dated Markdown and JSON file
to benchmarks/records/.
"""

from spectrain._spinning import limit_spinning

limit_spinning()  # before torch loads

import argparse
import json
import platform
import statistics
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
from flint import arb, ctx

from spectrain.gallery.kepler import eccentric_anomaly

RECORDS = Path(__file__).parent / "records"
SIZES, ROUNDS, SEED = (1, 10, 100, 300, 1000, 2000, 3000, 10_000, 100_000, 1_000_000), 15, 0


def cases(kind, count, rng):
    """Mean anomalies in one turn and eccentricities: any, or next to the parabola."""
    if kind == "any e":
        return rng.uniform(0, 2 * np.pi, count), rng.uniform(0, 1, count)
    return 10 ** rng.uniform(-12, 0, count), 1 - 10 ** rng.uniform(-12, -2, count)


def seconds(solve, M, e):
    repeats = max(1, 30_000 // (len(M) + 30))
    start = time.process_time()
    for _ in range(repeats):
        solve(M, e)
    return (time.process_time() - start) / repeats


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


def compare(peer, kind, count, rng):
    M, e = cases(kind, count, rng)
    eccentric_anomaly(M, e), peer(M, e)
    pairs = [(seconds(eccentric_anomaly, M, e), seconds(peer, M, e)) for _ in range(ROUNDS)]
    ratios = sorted(a / b for a, b in pairs)
    return {
        "kind": kind,
        "count": count,
        "ours_ns": statistics.median(a for a, _ in pairs) / count * 1e9,
        "peer_ns": statistics.median(b for _, b in pairs) / count * 1e9,
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [ratios[ROUNDS // 4], ratios[-1 - ROUNDS // 4]],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, required=True, help="folder that holds the package kepler.py")
    sys.path.append(str(parser.parse_args().peer))
    import kepler

    rng = np.random.default_rng(SEED)
    rows = [compare(kepler.solve, kind, n, rng) for kind in ("any e", "e next to 1") for n in SIZES]
    errors = {
        kind: {
            name: largest_error(solve, *cases(kind, 3000, np.random.default_rng(1)))
            for name, solve in (("ours", eccentric_anomaly), ("kepler.py", kepler.solve))
        }
        for kind in ("any e", "e next to 1")
    }
    facts = f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}, seed {SEED}"
    text = [
        "# Kepler's equation: ours beside kepler.py",
        "",
        f"{ROUNDS} interleaved rounds of each, processor time, medians; {facts}. Ratio: our time over theirs.",
        "",
        "| cases | count | ours, ns | kepler.py, ns | ratio | quartiles of the ratio |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['kind']} | {r['count']:,} | {r['ours_ns']:.1f} | {r['peer_ns']:.1f} | {r['ratio']:.2f} "
            f"| {r['ratio_quartiles'][0]:.2f} to {r['ratio_quartiles'][1]:.2f} |"
            for r in rows
        ),
        "",
        "Largest error of 3,000 cases, in units of the last place of E:",
        "",
        "| cases | ours | kepler.py |",
        "|---|---|---|",
        *(f"| {kind} | {e['ours']:.2f} | {e['kepler.py']:.3g} |" for kind, e in errors.items()),
        "",
    ]
    name = f"{date.today()}_gallery_kepler"
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / f"{name}.md").write_text("\n".join(text))
    record = {"machine": facts, "times": rows, "errors_ulp": errors}
    (RECORDS / f"{name}.json").write_text(json.dumps(record, indent=1))
    print("\n".join(text))


if __name__ == "__main__":
    main()
