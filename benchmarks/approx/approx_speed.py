"""How long approx takes: `python -m benchmarks.approx.approx_speed` writes a record of processor times and the limits.

The limits are those the layer was built for: degree 30 within 50 ms where float64 suffices (E >= 1e-3 max|f|), a second
otherwise; degree 200 with its proof within two; a full schedule with its proof within a second, for bfloat16 within
50 ms; the import within 0.3 s and without torch. Nothing is looked up in tables or files, and what the process
remembers is forgotten before each round. Median and worst of seven rounds; the very first also loads libraries.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import seconds
from spectrain import approx
from spectrain.approx._schedules import rounding, simulation
from spectrain.approx._schedules.sign import design
from spectrain.approx._setting import Setting

REMEMBERED = (simulation._suite, rounding._design)
IMPORT = (
    "import sys, time; t = time.process_time(); from spectrain.approx import minimax, sign_schedule;"
    "print(time.process_time() - t, 'torch' in sys.modules)"
)


class Task(NamedTuple):
    """What is run, and the milliseconds it may take."""

    limit: float
    run: Callable[[], object]


def runge(x: np.ndarray) -> np.ndarray:
    """Runge's function."""
    return 1 / (1 + 25 * x * x)


def cusp(x: np.ndarray) -> np.ndarray:
    """A square root on both sides of 0.1."""
    return np.sqrt(abs(x - 0.1))


def step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above."""
    return np.where(x > 0, 1.0, 0.0)


APART = [(-1, -0.1), (0.1, 1)]
EVERY_THIRD = (0, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28)
PINNED = [("value", 0.0, 1.0), ("slope", 0.0, 1.0)]
TASKS = {
    "exp, degree 3": Task(50, lambda: approx.minimax(np.exp, 3, (-1, 1))),
    "abs(x), degree 10": Task(50, lambda: approx.minimax(np.abs, 10, (-1, 1))),
    "abs(x), degree 30": Task(50, lambda: approx.minimax(np.abs, 30, (-1, 1))),
    "1/(1+25x^2), degree 30": Task(50, lambda: approx.minimax(runge, 30, (-1, 1))),
    "sqrt(abs(x-0.1)), degree 30": Task(50, lambda: approx.minimax(cusp, 30, (-1, 1))),
    "abs(x), degree 30, with proof": Task(1000, lambda: approx.minimax(np.abs, 30, (-1, 1)).upper),
    "1/(1+25x^2), degree 30, with proof": Task(1000, lambda: approx.minimax(runge, 30, (-1, 1)).upper),
    "sqrt(abs(x-0.1)), degree 30, with proof": Task(1000, lambda: approx.minimax(cusp, 30, (-1, 1)).upper),
    "exp, degree 30 (E = 1e-43), with proof": Task(1000, lambda: approx.minimax(np.exp, 30, (-1, 1)).upper),
    "relative error of exp, degree 30, with proof": Task(
        1000, lambda: approx.minimax(np.exp, 30, (-1, 1), weight=lambda x: np.exp(-x)).upper
    ),
    "abs(x), degree 200, with proof": Task(2000, lambda: approx.minimax(np.abs, 200, (-1, 1)).upper),
    "1/(1+25x^2), degree 200 (E = 3e-18), with proof": Task(2000, lambda: approx.minimax(runge, 200, (-1, 1)).upper),
    "sqrt(abs(x-0.1)), degree 200, with proof": Task(2000, lambda: approx.minimax(cusp, 200, (-1, 1)).upper),
    "exp, degree 200 (E = 4e-438), with proof": Task(2000, lambda: approx.minimax(np.exp, 200, (-1, 1)).upper),
    "step on two intervals, degree 200, with proof": Task(2000, lambda: approx.minimax(step, 200, APART).upper),
    "exp by 11 powers to 28 on [-1, 1] (duality), with proof": Task(
        1000, lambda: approx.minimax(np.exp, EVERY_THIRD, (-1, 1)).upper
    ),
    "exp, value and slope at 0 given, degree 12, with proof": Task(
        1000, lambda: approx.minimax(np.exp, 12, (-1, 1), constraints=PINNED).upper
    ),
    "six quintics for [1e-3, 1], with proof": Task(1000, lambda: design(Setting(lower=1e-3, steps=6)).error),
    "18 products, degrees chosen, with proof": Task(1000, lambda: design(Setting(lower=1e-3, products=18)).error),
    "five quintics for bfloat16, with proof": Task(
        50, lambda: design(Setting(lower=4e-3, steps=5, dtype="bfloat16")).error
    ),
    "15 products for bfloat16, with proof": Task(
        50, lambda: design(Setting(lower=1e-3, products=15, dtype="bfloat16")).error
    ),
    "18 products for bfloat16, with proof": Task(
        50, lambda: design(Setting(lower=1e-3, products=18, dtype="bfloat16")).error
    ),
    "30 products for bfloat16, with proof": Task(
        50, lambda: design(Setting(lower=1e-3, products=30, dtype="bfloat16")).error
    ),
    "15 products for float32, with proof": Task(
        1000, lambda: design(Setting(lower=1e-3, products=15, dtype="float32")).error
    ),
    "fourth root of the inverse, 4 steps, with proof": Task(
        1000, lambda: approx.root_schedule(4, -1, lower=1e-4, steps=4).error
    ),
    "step with a gap of 0.1 to 1e-3, with proof": Task(
        1000, lambda: approx.step_schedule(2.0, gap=0.1, tol=1e-3).error
    ),
}

SHORT = (
    "abs(x), degree 30, with proof",
    "1/(1+25x^2), degree 30, with proof",
    "18 products, degrees chosen, with proof",
    "five quintics for bfloat16, with proof",
    "15 products for float32, with proof",
)


def milliseconds(f: Callable[[], object], rounds: int) -> list[float]:
    """Processor time of each round: all of it is computed here, on one thread."""
    times = []
    for _ in range(rounds):
        for function in REMEMBERED:
            function.cache_clear()
        times.append(1e3 * seconds(f, clock=time.process_time))
    return times


def time_imports(rounds: int) -> tuple[list[float], bool]:
    """Milliseconds of the import in fresh processes, and whether torch came with it."""
    answers = [subprocess.check_output([sys.executable, "-c", IMPORT], text=True).split() for _ in range(rounds)]
    return [1e3 * float(took) for took, _ in answers], any(torch == "True" for _, torch in answers)


def measure(*, rounds: int = 7, tasks: tuple[str, ...] = tuple(TASKS)) -> Found:
    """Every task ``rounds`` times."""
    measured = {}
    for name in tasks:
        measured[name] = (TASKS[name].limit, milliseconds(TASKS[name].run, rounds))
        print(f"{name:60s} {statistics.median(measured[name][1]):8.1f} ms of {TASKS[name].limit}", flush=True)
    times, torch = time_imports(rounds)
    measured["import of minimax and sign_schedule"] = (300, times)
    rows = [
        {"task": name, "median ms": statistics.median(t), "worst ms": max(t), "limit ms": limit, "milliseconds": t}
        for name, (limit, t) in measured.items()
    ]
    over = [row["task"] for row in rows if row["median ms"] >= row["limit ms"]]
    cells = [[*(f"{v:.1f}" if isinstance(v, float) else v for v in list(row.values())[:4])] for row in rows]
    body = _record.table(["task", "median ms", "worst ms", "limit ms"], cells)
    body += f"\n\nOver their limits: {', '.join(over) or 'none'}. The import loads torch: {'yes' if torch else 'no'}."
    share = {f"{row['task']}, share of the limit": row["median ms"] / row["limit ms"] for row in rows}
    figures = {"kept": len(rows) - len(over), "all": len(rows)}
    return Found(rows=rows, body=body, figures=figures, ratios=share, data={"import_loads_torch": torch})


if __name__ == "__main__":
    main(
        "approx_speed",
        "Best approximation and schedules in milliseconds: {kept} of {all} limits are kept",
        measure,
        smoke={"rounds": 1, "tasks": ("exp, degree 3",)},
        check={"rounds": 3, "tasks": SHORT},
    )
