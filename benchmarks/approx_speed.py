"""How long approx takes: `python benchmarks/approx_speed.py` prints processor milliseconds, the least of five runs."""

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from spectrain import approx
from spectrain.approx._sign import compute_sign_schedule


def milliseconds(f: Callable[[], object], repeats: int = 5) -> float:
    """Least processor time of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        f()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


TASKS: dict[str, Callable[[], object]] = {
    "exp, degree 3 (E = 5e-3)": lambda: approx.minimax(np.exp, 3, (-1, 1)),
    "|x|, degree 10 (E = 3e-2)": lambda: approx.minimax(np.abs, 10, (-1, 1)),
    "|x|, degree 30 (E = 9e-3)": lambda: approx.minimax(np.abs, 30, (-1, 1)),
    "1/(1+25x^2), degree 30 (E = 1e-3)": lambda: approx.minimax(lambda x: 1 / (1 + 25 * x * x), 30, (-1, 1)),
    "1/(1+25x^2), degree 30, with proof": lambda: approx.minimax(lambda x: 1 / (1 + 25 * x * x), 30, (-1, 1)).upper,
    "exp, degree 30 (E = 1e-43)": lambda: approx.minimax(np.exp, 30, (-1, 1)),
    "exp, degree 30, with proof": lambda: approx.minimax(np.exp, 30, (-1, 1)).upper,
    "six quintics, with proof": lambda: compute_sign_schedule(1e-3, steps=6),
    "18 products, degrees chosen, with proof": lambda: compute_sign_schedule(1e-3, products=18),
    "15 products for bfloat16": lambda: compute_sign_schedule(1e-3, products=15, dtype="bfloat16"),
    "30 products for bfloat16": lambda: compute_sign_schedule(1e-3, products=30, dtype="bfloat16"),
}


def main() -> None:
    """Print the table and the time of the import."""
    for name, task in TASKS.items():
        print(f"{name:42s} {milliseconds(task):8.1f} ms", flush=True)
    code = "import time; t = time.process_time(); from spectrain.approx import minimax; print(time.process_time() - t)"
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    print(f"{'import with minimax loaded':42s} {1e3 * min(times):8.1f} ms")


if __name__ == "__main__":
    main()
