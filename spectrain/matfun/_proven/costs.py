"""What products and decompositions cost on a machine: a table that ships, or the one that ``calibrate`` measured."""

import functools
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from spectrain._arrays.products import bmm
from spectrain._files.cache import cache_folder
from spectrain._files.read import parse_json
from spectrain._files.values import number, row, table
from spectrain._files.write import write_text
from spectrain.matfun._entry.input import Real
from spectrain.matfun._proven.halley import step_by_cholesky

SIDES = (64, 128, 256, 512, 1024)
_LEAST_COST = 1e-12  # below it prices overflow

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


@dataclass(frozen=True)
class CostTable:
    """Rates of products in GFLOP/s and prices of decompositions in products of their dtype, at k = 64 ... 1024.

    >>> table = SHIPPED
    >>> CostTable.from_json(table.to_json()) == table
    True
    >>> table.product("float32", 512, 4) > table.product("bfloat16", 512, 4) > 0
    True
    """

    machine: str
    product_float32: tuple[Real, ...]
    product_float64: tuple[Real, ...]
    product_bfloat16: tuple[Real, ...]
    eigh_float32: tuple[Real, ...]
    eigh_float64: tuple[Real, ...]
    svd_float64: tuple[Real, ...]
    cholesky_float32: tuple[Real, ...]
    qr_float64: tuple[Real, ...]
    halley_float64: tuple[Real, ...]

    def product(self, dtype: str, k: int, count: Real) -> float:
        """Return the seconds that ``count`` products of k x k matrices take."""
        return count * 2 * k**3 / (1e9 * _between(getattr(self, f"product_{dtype}"), k))

    def decomposition(self, name: str, dtype: str, k: int) -> float:
        """Return the seconds of an eigh, svd, cholesky or Cholesky-based Halley step of k x k, or a qr of 2k x k."""
        return self.product(dtype, k, _between(getattr(self, f"{name}_{dtype}"), k))

    def to_json(self) -> str:
        """All fields as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "CostTable":
        """The table that `to_json` wrote. Raises ValueError for anything else."""
        try:
            data = table(parse_json(text), {field.name for field in fields(cls)})
            machine = data.pop("machine")
            if not isinstance(machine, str):
                raise ValueError("machine must be a text")
            return cls(machine, **{name: _row(values, name) for name, values in data.items()})
        except ValueError as problem:
            raise ValueError(f"CostTable.from_json: not a table written by to_json ({problem})") from problem


def _row(values: object, name: str) -> tuple[float, ...]:
    """The numbers of one row of a table that was read. Raises ValueError unless each is positive and none too small."""
    found = tuple(number(value, name, least=_LEAST_COST) for value in row(values, name))
    if len(found) != len(SIDES):
        raise ValueError(f"{name} needs {len(SIDES)} positive numbers, for k in {SIDES}, got {len(found)}")
    return found


SHIPPED = CostTable(
    machine="AMD EPYC (Zen 5), one thread, torch 2.13",
    product_float32=(103, 108, 240, 258, 258),
    product_float64=(45, 50, 55, 56, 58),
    product_bfloat16=(270, 450, 510, 510, 500),
    eigh_float32=(30, 16, 19, 13.5, 12.5),
    eigh_float64=(20, 11, 8, 5.7, 4.9),
    svd_float64=(40, 24, 15.6, 11.6, 10.7),
    cholesky_float32=(3, 2, 2.2, 2.2, 1.6),
    qr_float64=(10, 8, 7, 6.5, 5.5),
    halley_float64=(5, 4.5, 4, 3.6, 3.1),
)
"""Measured in November 2026; the order of the stages hangs on ratios, which differ less between machines than rates."""


def table_file() -> Path:
    """Return where ``calibrate`` keeps its table: in the user's cache folder."""
    return cache_folder() / "costs.json"


@functools.cache
def costs() -> CostTable:
    """Return the table of this process: the calibrated one, else the shipped one. It is read once and never changes."""
    try:
        return CostTable.from_json(table_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return SHIPPED


_replayed: ContextVar[CostTable | None] = ContextVar("_replayed", default=None)


def costs_in_force() -> CostTable:
    """Return the table that is replayed here, else that of the process."""
    return _replayed.get() or costs()


@contextmanager
def replaying(table: CostTable | None) -> Iterator[None]:
    """Let plans inside follow ``table``, which an earlier process has recorded; with None that of this process.

    >>> from spectrain.matfun import plan
    >>> slow = CostTable.from_json(SHIPPED.to_json().replace("258", "2.58"))
    >>> with replaying(slow):
    ...     plan((512, 2048), tol=1e-3).stages[0]
    'eigh float64'
    """
    before = _replayed.set(table)
    try:
        yield
    finally:
        _replayed.reset(before)


def _between(row: tuple[Real, ...], k: int) -> float:
    """Return the row's value at k, linear in log k, and its ends outside."""
    position = min(max(math.log2(max(k, 1) / SIDES[0]), 0.0), len(SIDES) - 1.0)
    i = min(int(position), len(SIDES) - 2)
    return row[i] + (position - i) * (row[i + 1] - row[i])


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
    rows = {name: tuple(_measure(name, k, repeats) for k in SIDES) for name in _UNITS}
    machine = (
        f"{platform.machine()} {platform.processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    table = CostTable(machine, **rows)
    if save:
        path = table_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, table.to_json())
    return table


def _measure(name: str, k: int, repeats: int) -> float:
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
