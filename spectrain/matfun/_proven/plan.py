"""Which algorithm computes msign within a tolerance, decided from shape, dtype, tolerance and a table of costs."""

import functools
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from spectrain._files.read import parse_json
from spectrain._files.values import number, row, table, whole
from spectrain.matfun._entry.input import Real, check_tolerance, real_dtype
from spectrain.matfun._proven.algorithm import Asked
from spectrain.matfun._proven.algorithms import ALGORITHMS, LAST, in_words
from spectrain.matfun._proven.costs import CostTable, costs_in_force

_DTYPES = {str(d).removeprefix("torch."): d for d in (torch.bfloat16, torch.float16, torch.float32, torch.float64)}


@dataclass(frozen=True, slots=True)
class Plan:
    """The algorithms that will be tried in order, with their price; print it for a table.

    The first one whose error bound, computed from the result and the input, is below ``tol`` gives the answer,
    for each matrix of a batch by itself. ``seconds`` are expected ones for one matrix of the batch.

    >>> decision = plan((256, 1024))
    >>> Plan.from_json(decision.to_json()) == decision
    True
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    tol: float
    stages: tuple[str, ...]
    seconds: tuple[float, ...]

    def __str__(self) -> str:
        m, n = self.shape
        lines = [f"msign of {m} x {n} {str(self.dtype).removeprefix('torch.')}, tol={self.tol:g}"]
        for i, (stage, price) in enumerate(zip(self.stages, self.seconds, strict=True)):
            when = "first, " if i == 0 else "if not,"
            lines.append(f"  {when} {stage} for {1e3 * price:.2g} ms: {ALGORITHMS[stage].what}")
        return "\n".join(lines)

    @property
    def method(self) -> str:
        """The stages as one string, which the operator behind :func:`msign` takes as its method."""
        return in_words(self.stages)

    def to_json(self) -> str:
        """All fields as JSON, to be kept with a run and replayed by ``from_json``."""
        return json.dumps(asdict(self) | {"dtype": str(self.dtype).removeprefix("torch.")})

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_json` wrote. Raises ValueError for anything else."""
        try:
            return cls(**_fields(table(parse_json(text), {field.name for field in fields(cls)})))
        except ValueError as problem:
            raise ValueError(f"Plan.from_json: not a plan written by to_json ({problem})") from problem


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `Plan` that JSON holds. Raises ValueError for what `plan` would not have returned."""
    shape, stages, seconds = (row(given[name], name) for name in ("shape", "stages", "seconds"))
    if (
        len(shape) != 2
        or not stages
        or len(stages) != len(seconds)
        or not all(s in ALGORITHMS for s in map(str, stages))
    ):
        raise ValueError(f"needs a shape of two sides and as many seconds as stages, out of {', '.join(ALGORITHMS)}")
    if str(given["dtype"]) not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {given['dtype']!r:.40}")
    dtype = _DTYPES[given["dtype"]]
    return {
        "shape": (whole(shape[0], "a side", least=0), whole(shape[1], "a side", least=0)),
        "dtype": dtype,
        "tol": check_tolerance(number(given["tol"], "tol", least=0), dtype, "Plan.from_json"),
        "stages": tuple(stages),
        "seconds": tuple(number(value, "seconds", least=0) for value in seconds),
    }


def plan(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    tol: Real | None = None,
    *,
    costs: CostTable | None = None,
) -> Plan:
    """Return which algorithms ``msign`` and ``polar`` try, in order, for a matrix of this shape within tol.

    The decision depends on the arguments and on a table of costs that a process reads once: the one that ships,
    or that of :func:`calibrate`; ``costs`` names another. So it is the same for every call in a process. ``tol`` is
    that of msign: by default 5e-2, 1e-4 or 1e-10 by dtype. Condition numbers in the table are those of the
    singular values that count as nonzero. The cheapest that can prove tol for a random matrix of the shape comes first;
    backups, which prove more, follow. ValueError for a shape of fewer than two dimensions or a tol below the
    rounding of dtype.

    >>> from spectrain.matfun._proven.costs import SHIPPED
    >>> print(plan((256, 1024), torch.bfloat16, costs=SHIPPED))
    msign of 256 x 1024 bfloat16, tol=0.05
      first,  iterate float32 for 4.1 ms: odd polynomials for the interval measured, error about 6e-8 condition
      if not, eigh float64 for 17 ms: eigenvectors of the Gram matrix, error about 1e-16 condition^2
      if not, svd float64 for 25 ms: LAPACK's SVD, error about 1e-16 condition
    """
    if len(shape) < 2:
        raise ValueError(f"plan: needs the shape of a matrix, got {tuple(shape)}; for example (256, 1024)")
    if not all(side == int(side) and side >= 0 for side in shape):
        raise ValueError(f"plan: the sides of a matrix are whole numbers from 0 up, got {tuple(shape)}")
    dtype = real_dtype(dtype)
    tol = float(check_tolerance(tol, dtype, "plan"))
    return _plan((shape[-2], shape[-1]), dtype, tol, costs or costs_in_force())


@functools.lru_cache(maxsize=4096)
def _plan(shape: tuple[int, int], dtype: torch.dtype, tol: float, table: CostTable) -> Plan:
    k, long = (max(1, side) for side in sorted(shape))
    asked = Asked(k, long / k, tol)
    prices = {a.name: price for a in ALGORITHMS.values() if (price := a.price(asked, table)) is not None}
    first = min([name for name in prices if name != LAST.name], key=lambda name: prices[name])
    backups = [a.name for a in ALGORITHMS.values() if a.backup and prices.get(a.name, math.inf) <= prices[LAST.name]]
    stages = tuple(dict.fromkeys([first, *backups]))
    return Plan(shape, dtype, tol, stages, tuple(prices[s] for s in stages))
