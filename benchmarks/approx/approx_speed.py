"""How long approx takes: `python benchmarks/approx_speed.py` writes a record of wall clock times and the limits.

The limits are those the layer was built for: degree 30 within 50 ms where float64 suffices (E >= 1e-3 max|f|), a second
otherwise; a full schedule with its proof within a second; the import within 0.3 s and without torch. Nothing is looked
up in tables or files, and what the process remembers is forgotten before each run. Median and worst of seven runs; the
very first also loads libraries.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from _record import table, write

from spectrain import approx
from spectrain.approx._schedules import rounding as _roundoff
from spectrain.approx._schedules import rounding as _simulate
from spectrain.approx._schedules import unit as _unit
from spectrain.approx._schedules.sign import compute_sign_schedule

RUNS = 7
REMEMBERED = (_unit._seed, _simulate._matrices, _roundoff._design)
IMPORT = (
    "import sys, time; t = time.perf_counter(); from spectrain.approx import minimax, sign_schedule;"
    "print(time.perf_counter() - t, 'torch' in sys.modules)"
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
    "exp by 11 powers to 28 on [-1, 1] (duality), with proof": Task(
        1000, lambda: approx.minimax(np.exp, EVERY_THIRD, (-1, 1)).upper
    ),
    "exp, value and slope at 0 given, degree 12, with proof": Task(
        1000, lambda: approx.minimax(np.exp, 12, (-1, 1), constraints=PINNED).upper
    ),
    "six quintics for [1e-3, 1], with proof": Task(1000, lambda: compute_sign_schedule(1e-3, steps=6).error),
    "18 products, degrees chosen, with proof": Task(1000, lambda: compute_sign_schedule(1e-3, products=18).error),
    "15 products for bfloat16, with proof": Task(
        1000, lambda: compute_sign_schedule(1e-3, products=15, dtype="bfloat16").error
    ),
    "18 products for bfloat16, with proof": Task(
        1000, lambda: compute_sign_schedule(1e-3, products=18, dtype="bfloat16").error
    ),
    "30 products for bfloat16, with proof": Task(
        1000, lambda: compute_sign_schedule(1e-3, products=30, dtype="bfloat16").error
    ),
    "15 products for float32, with proof": Task(
        1000, lambda: compute_sign_schedule(1e-3, products=15, dtype="float32").error
    ),
    "fourth root of the inverse, 4 steps, with proof": Task(
        1000, lambda: approx.root_schedule(4, -1, lower=1e-4, steps=4).error
    ),
    "step with a gap of 0.1 to 1e-3, with proof": Task(
        1000, lambda: approx.step_schedule(2.0, gap=0.1, tol=1e-3).error
    ),
}


def milliseconds(f: Callable[[], object]) -> list[float]:
    """Wall clock of each run."""
    times = []
    for _ in range(RUNS):
        for function in REMEMBERED:
            function.cache_clear()
        start = time.perf_counter()
        f()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def imported() -> tuple[list[float], bool]:
    """Milliseconds of the import in fresh processes, and whether torch came with it."""
    answers = [subprocess.check_output([sys.executable, "-c", IMPORT], text=True).split() for _ in range(RUNS)]
    return [1e3 * float(seconds) for seconds, _ in answers], any(torch == "True" for _, torch in answers)


def main() -> None:
    """Measure, print, and write the record."""
    measured = {}
    for name, task in TASKS.items():
        measured[name] = (task.limit, milliseconds(task.run))
        print(f"{name:60s} {statistics.median(measured[name][1]):8.1f} ms of {task.limit}", flush=True)
    times, torch = imported()
    measured["import of minimax and sign_schedule"] = (300, times)
    rows = [
        [name, f"{statistics.median(t):.1f}", f"{max(t):.1f}", f"{limit:.0f}", statistics.median(t) < limit]
        for name, (limit, t) in measured.items()
    ]
    kept = sum(bool(row[-1]) for row in rows)
    body = table(["task", "median ms", "worst ms", "limit ms", "kept"], rows)
    body += f"\n\n{kept} of {len(rows)} limits are kept. The import loads torch: {'yes' if torch else 'no'}."
    data = {"milliseconds": {name: t for name, (_, t) in measured.items()}, "import_loads_torch": torch}
    print(write("approx_speed", claim="Best approximation and schedules in milliseconds", body=body, data=data))


if __name__ == "__main__":
    main()
