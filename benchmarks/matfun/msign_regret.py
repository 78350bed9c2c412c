"""The plan's regret: msign as planned beside every single algorithm, over 30 shapes.

    python benchmarks/msign_regret.py            # records; about four minutes
    python benchmarks/msign_regret.py --smoke    # three small shapes, nothing is recorded

Gaussian matrices, float32 with its default tolerance. The algorithms are those that `method=` names, each with what it
falls back to; all give answers within the tolerance. Within a round they take turns; the regret of a shape is the
median over rounds of the time of the plan divided by that of the algorithm with the least median time. An
algorithm that takes three times as long as the fastest in the first round is not timed again.
"""

import argparse
import statistics
import time

import _record
import torch

from spectrain import matfun

METHODS = ("iterate", "eigh", "qdwh", "svd")
SIDES, ASPECTS = (48, 96, 192, 384, 768), (1.0, 1.25, 1.5, 2.0, 4.0, 8.0)
HOPELESS = 3.0


def seconds(X: torch.Tensor, method: str | None) -> float:
    """The time of one call, of several where it is shorter than two milliseconds."""
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < 2e-3 or count == 0:
        matfun.msign(X, method=method)
        count += 1
    return spent / count


def regret(shape: tuple[int, int], rounds: int) -> dict:
    """The plan's first stage, the best algorithm, and the ratio of their times."""
    X = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    first = {method: min(seconds(X, method) for _ in range(2)) for method in METHODS}
    alive = [method for method in METHODS if first[method] < HOPELESS * min(first.values())]
    times: dict[str | None, list[float]] = {method: [] for method in (None, *alive)}
    for i in range(rounds):
        order = list(times) if i % 2 == 0 else list(times)[::-1]
        for method in order:
            times[method].append(seconds(X, method))
    best = min(alive, key=lambda method: statistics.median(times[method]))
    ratios = [a / b for a, b in zip(times[None], times[best], strict=True)]
    return {
        "shape": f"{shape[0]} x {shape[1]}",
        "plan": matfun.plan(shape).stages[0],
        "best": best,
        "best ms": 1e3 * statistics.median(times[best]),
        "plan / best": statistics.median(ratios),
        "others / best": {m: statistics.median(times[m]) / statistics.median(times[best]) for m in alive if m != best},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=_record.Path, default=_record.RECORDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shapes = [(k, round(a * k)) for k in SIDES for a in ASPECTS]
    rows = []
    for shape in shapes[:3] if arguments.smoke else shapes:
        rows.append(regret(shape, 1 if arguments.smoke else arguments.rounds))
        print(rows[-1], flush=True)
    within = sum(row["plan / best"] <= 1.05 for row in rows)
    worst = max(rows, key=lambda row: row["plan / best"])
    table = _record.table(
        ("shape", "plan begins with", "best single algorithm", "ms", "plan / best", "others / best"),
        [
            (r["shape"], r["plan"], r["best"], f"{r['best ms']:.3g}", f"{r['plan / best']:.2f}",
             ", ".join(f"{name} {ratio:.2f}" for name, ratio in r["others / best"].items()))
            for r in rows
        ],
    )  # fmt: skip
    summary = f"Within 5 % of the best: {within} of {len(rows)}. Worst: {worst['shape']}, {worst['plan / best']:.2f}."
    print(summary)
    if not arguments.smoke:
        claim = "The plan of msign beside the best single algorithm, over 30 shapes"
        body = f"Gaussian, float32, tol=1e-4, one matrix.\n\n{summary}\n\n{table}"
        print(_record.write("msign_regret", claim=claim, body=body, data={"rows": rows}, folder=arguments.out))


if __name__ == "__main__":
    main()
