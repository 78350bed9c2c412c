"""The plan's regret: msign as planned beside every single algorithm, over 30 shapes.

    python -m benchmarks.matfun.msign_regret    # about four minutes

Gaussian matrices, float32 with its default tolerance. The algorithms are those that `method=` names, each with what it
falls back to; all give answers within the tolerance. Within a round they take turns; the regret of a shape is the
median over rounds of the time of the plan divided by that of the algorithm with the least median time. An
algorithm that takes three times as long as the fastest in the first round is not timed again.
"""

import time
from collections.abc import Callable

import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate, seconds
from spectrain import matfun

METHODS = ("iterate", "eigh", "qdwh", "svd")
SIDES, ASPECTS = (48, 96, 192, 384, 768), (1.0, 1.25, 1.5, 2.0, 4.0, 8.0)
HOPELESS, TIMED = 3.0, {"at_least": 2e-3, "clock": time.process_time}
PLAN = "as planned"
SHAPES = tuple((k, round(a * k)) for k in SIDES for a in ASPECTS)


def call(X: torch.Tensor, method: str | None) -> Callable[[], object]:
    """What is timed: msign as planned, or by one algorithm."""
    return lambda: matfun.msign(X, method=method)


def regret(shape: tuple[int, int], rounds: int) -> dict:
    """The plan's first stage, the best algorithm, and the ratio of their times."""
    X = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    calls = {method: call(X, method) for method in METHODS}
    first = {method: min(seconds(run, **TIMED) for _ in range(2)) for method, run in calls.items()}
    alive = [method for method in METHODS if first[method] < HOPELESS * min(first.values())]
    timed = {PLAN: call(X, None)} | {method: calls[method] for method in alive}
    times = alternate(timed, rounds=rounds, warm=0, back=True, **TIMED)
    best = min(alive, key=times.median)
    return {
        "shape": f"{shape[0]} x {shape[1]}",
        "plan": matfun.plan(shape).stages[0],
        "best": best,
        "best ms": 1e3 * times.median(best),
        "plan / best": times.ratio(PLAN, best),
        "others / best": {m: times.median(m) / times.median(best) for m in alive if m != best},
    }


def measure(*, shapes: tuple[tuple[int, int], ...] = SHAPES, rounds: int = 7) -> Found:
    """One Gaussian matrix of each shape."""
    rows = []
    for shape in shapes:
        rows.append(regret(shape, rounds))
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
    ratios = {f"{row['shape']}: plan / best": row["plan / best"] for row in rows}
    figures = {"within": within, "all": len(rows), "worst": worst["plan / best"]}
    body = f"Gaussian, float32, tol=1e-4, one matrix.\n\n{summary}\n\n{table}"
    return Found(rows=rows, body=body, figures=figures, ratios=ratios)


if __name__ == "__main__":
    main(
        "msign_regret",
        "The plan of msign takes at most {worst:.2f} times as long as the best single algorithm, and is within "
        "a twentieth of it on {within} of {all} shapes",
        measure,
        smoke={"shapes": ((8, 8), (8, 16)), "rounds": 1},
        check={"shapes": ((48, 48), (192, 384), (384, 384)), "rounds": 3},
    )
