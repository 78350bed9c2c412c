"""Measuring the cost table on this machine."""

import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spectrain._files import write_text
from spectrain.matfun._iteration.products import bmm
from spectrain.matfun._proven.costs import SIDES, CostTable, table_file
from spectrain.matfun._proven.halley import step_by_cholesky


def calibrate(*, repeats: int = 5, save: bool = True) -> CostTable:
    """Measure what products and decompositions cost here, and keep the table for later processes.

    ``plan``, and with it ``msign(tol=)`` and ``polar``, orders its algorithms by a table of costs: one that
    ships, or the one this function wrote to the user's cache folder. A process reads the table once, when it first
    needs it, so a choice never changes within it; a new table counts from the next process on. Every time is
    the median of ``repeats``, on as many threads as torch is set to. Returns the table; ``save=False`` writes nothing.
    A table can be recorded and replayed: ``to_json``, ``from_json``, and ``plan(..., costs=table)``. It takes seconds.

    Errors: ValueError for fewer than one repeat, OSError where the folder cannot be written.
    """
    if repeats < 1:
        raise ValueError(f"calibrate: repeats must be at least 1, got {repeats}")
    rows = {name: tuple(_measured(name, k, repeats) for k in SIDES) for name in _UNITS}
    machine = (
        f"{platform.machine()} {platform.processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    table = CostTable(machine, **rows)
    if save:
        path = table_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, table.to_json())
    return table


_UNITS: dict[str, Callable[[Tensor], object]] = {
    "product_float32": lambda A: bmm(A, A),
    "product_float64": lambda A: bmm(A, A),
    "product_bfloat16": lambda A: bmm(A, A),
    "eigh_float32": torch.linalg.eigh,
    "eigh_float64": torch.linalg.eigh,
    "svd_float64": lambda A: torch.linalg.svd(A, full_matrices=False),
    "cholesky_float32": torch.linalg.cholesky_ex,
    "qr_float64": lambda A: torch.linalg.qr(torch.cat([A, A], -2)),
    "halley_float64": lambda A: step_by_cholesky(A, *torch.full((3, 1), 0.5, dtype=A.dtype)),
}


def _measured(name: str, k: int, repeats: int) -> float:
    """Return GFLOP/s of a product, or the time of a decomposition over that of a product of its dtype."""
    kind, dtype = name.split("_")
    A = torch.randn(1, k, 2 * k, generator=torch.Generator().manual_seed(k))
    G = (A @ A.mT / (2 * k)).to(getattr(torch, dtype))
    product = median_seconds(lambda: bmm(G, G), repeats)
    if kind == "product":
        return 2e-9 * k**3 / product
    return median_seconds(lambda: _UNITS[name](G), repeats) / product


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median time of ``run`` after one run to warm up, each at least a millisecond long."""
    run()
    times: Sequence[float] = [_once(run) for _ in range(repeats)]
    return statistics.median(times)


def _once(run: Callable[[], object]) -> float:
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < 1e-3 or count == 0:
        run()
        count += 1
    return spent / count
