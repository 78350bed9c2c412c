"""The tail of msign(steps=) and mclip(steps=): the largest singular value of the result, over very many matrices.

    python -m benchmarks.matfun.msign_safety              # more than 100,000 matrices, recorded after every shape
    python -m benchmarks.matfun.msign_safety --times 10   # more than 1,000,000

Every result has matrices of its own. Its largest singular value is that of its Gram matrix in float64. Besides
bfloat16, float32 and float64 as this processor and torch multiply them there is bfloat16 emulated: the plain iteration
in float32 with every product rounded, started exactly at the end of the schedule's interval, without the slack that
the bound on the norm leaves and without finish. There each step is also compared with the bound of
`spectrain.approx._schedules.widened`: (sigma_max after it - max p) / (bound - max p).

The form "schedule" is msign(schedule=) with a caller's, exactly optimal in float64 for the same interval; "measured" is
lower="measured"; "clip" is mclip(X, 0, 1, steps=) of matrices with sigma_max 1.5, over the largest value that its
formula has in exact arithmetic up to there, or over 1 if that is larger.
"""

import functools
import itertools
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks.matfun._families import FAMILIES, Bases
from spectrain import matfun
from spectrain.approx import Schedule, sign_schedule
from spectrain.approx._schedules.widened import UNIT_ROUNDOFF, widened_top
from spectrain.approx.internal import odd_coefficients
from spectrain.matfun._iteration.design import design_lower
from spectrain.matfun.internal import safe_cuts, schedule_for_steps

LIMITS = {"bfloat16": 1.05, "bfloat16 emulated": 1.05, "float32": 1.02, "float64": 1.02}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
STEPS = range(1, 11)
_POINTS = 17
_CLIPPED_FROM = 1.5
_MEASURED = 6  # steps, beyond which one design is as good as another
EMULATED = "bfloat16 emulated"
COUNTS: dict[tuple[int, int], float] = {
    (1, 1): 12, (1, 64): 12, (300, 1): 4, (2, 2): 16, (3, 7): 16, (7, 3): 10, (8, 8): 16, (16, 32): 8,
    (16, 512): 0.5, (512, 16): 0.5, (32, 64): 3, (64, 32): 1, (64, 128): 0.5, (64, 256): 0.3, (64, 512): 0.2,
    (128, 256): 1 / 10, (256, 128): 1 / 20, (170, 170): 1 / 40, (256, 256): 1 / 70, (200, 520): 1 / 70,
    (256, 704): 1 / 110, (704, 256): 1 / 110, (384, 1024): 1 / 190, (512, 2048): 1 / 370,
}  # fmt: skip
"""Matrices for each family, number of steps, dtype and form; of 1 / 40 every 40th has one."""


def largest(Y: Tensor) -> Tensor:
    """The largest singular value of every result, in float64; inf where it is not finite."""
    Z = Y.double() if Y.shape[-2] <= Y.shape[-1] else Y.double().mT
    finite = Z.isfinite().all(-1).all(-1)
    Z = torch.where(finite[:, None, None], Z, 0.0)
    size = Z.abs().amax((-2, -1), keepdim=True).clamp_min(1)
    Z = Z / size
    return torch.where(finite, torch.linalg.eigvalsh(Z @ Z.mT)[:, -1].clamp_min(0).sqrt() * size[:, 0, 0], torch.inf)


def round_bfloat16(X: Tensor) -> Tensor:
    """X rounded to bfloat16, kept in float32."""
    return X.bfloat16().float()


def emulate(X: Tensor, schedule: Schedule) -> tuple[Tensor, float]:
    """The plain iteration, every product rounded; and the largest excess of a step in units of what its bound allows.

    X is divided by its largest singular value, exactly up to float32, so that it begins at the end of the interval.
    """
    X = X if X.shape[-2] <= X.shape[-1] else X.mT
    X = round_bfloat16((X / torch.linalg.vector_norm(X, dim=(-2, -1), keepdim=True)).float())
    upper, excess = schedule.interval[1], 0.0
    high = torch.full((len(X),), float(upper), dtype=torch.float64)
    r = (upper / largest(X)).float()[:, None, None]
    for t, c in enumerate(odd_coefficients(schedule.polynomials)):
        G = round_bfloat16(X @ X.mT)
        scale = r.square() if t == 0 else torch.ones_like(r)
        G2 = round_bfloat16(G @ G) if t == 0 else G @ G
        X = round_bfloat16(c[0] * X + round_bfloat16(c[1] * scale * G + c[2] * scale.square() * G2) @ X)
        X = round_bfloat16(r * X) if t == 0 else X
        after = largest(X)
        excess = max(excess, step_excess(c, high, after, first=t == 0))
        high = after
    return X, excess


def step_excess(c: tuple[float, ...], before: Tensor, after: Tensor, *, first: bool) -> float:
    """The largest (sigma_max - max p) / (bound - max p) of a step, over a batch.

    In a large batch both are interpolated in the largest singular value before the step, and the four that come out
    largest are taken again without that.
    """
    if len(before) > _POINTS:
        points = torch.linspace(float(before.min()), float(before.max()) * (1 + 1e-9), _POINTS, dtype=torch.float64)
        table = np.array([_top_and_room(c, h, first=first) for h in points.tolist()])
        top, room = (np.interp(before.numpy(), points.numpy(), column) for column in table.T)
        chosen = np.argsort((after.numpy() - top) / room)[-4:].tolist()
        before, after = before[chosen], after[chosen]
    pairs = [_top_and_room(c, h, first=first) for h in before.tolist()]
    return max((y - top) / room for y, (top, room) in zip(after.tolist(), pairs, strict=True))


def _top_and_room(c: tuple[float, ...], high: float, *, first: bool) -> tuple[float, float]:
    top = widened_top(c, high, 0.0, first=first)
    return top, widened_top(c, high, UNIT_ROUNDOFF["bfloat16"], first=first) - top


def cells(steps: int) -> list[tuple[str, str | None]]:
    """What is looked at for a number of steps: dtype and form, Gram only where it is allowed."""
    found: list[tuple[str, str | None]] = [(EMULATED, "plain")]
    for name, dtype in DTYPES.items():
        found += [(name, None), (name, "plain")]
        if safe_cuts(schedule_for_steps(steps, dtype), dtype) is not None:
            found.append((name, "gram"))
        if name != "float64":
            found += [(name, form) for form in OTHERS if form != "measured" or steps <= _MEASURED]
    return found


def _by_schedule(X: Tensor, steps: int) -> Tensor:
    return matfun.msign(X, schedule=callers(steps), dtype=X.dtype)


def _by_measurement(X: Tensor, steps: int) -> Tensor:
    return matfun.msign(X, steps=steps, lower="measured")


def _clip(X: Tensor, steps: int) -> Tensor:
    scaled = X.double() * (_CLIPPED_FROM / largest(X).clamp_min(1e-300))[:, None, None]
    return matfun.mclip(scaled.to(X.dtype), 0.0, 1.0, steps=steps) / top_of_clip(steps, X.dtype)


OTHERS = {"schedule": _by_schedule, "measured": _by_measurement, "clip": _clip}


@functools.cache
def callers(steps: int) -> Schedule:
    """An optimal schedule for exact arithmetic, on the interval of the default."""
    return sign_schedule(design_lower(steps), steps=steps)


@functools.cache
def top_of_clip(steps: int, dtype: torch.dtype) -> float:
    """The largest ((s + t) f(s^2 + 1) - (s - t) f(s^2 - 1)) / 2 for t = f(s), s <= 1.5, by numbers; 1 at least.

    Each f divides by a bound on its norm, from the largest value itself to twice that.
    """
    schedule = schedule_for_steps(steps, dtype)
    sizes = np.linspace(1, 2, 11)[:, None]

    def sign(x: np.ndarray, largest: float) -> np.ndarray:
        y = x / (largest * sizes) * schedule.interval[1]
        for c in odd_coefficients(schedule.polynomials):
            y = y * np.polyval(c[::-1], y * y)
        return y

    s = np.linspace(0, _CLIPPED_FROM, 1501)
    plus, minus = sign(s * s + 1, _CLIPPED_FROM**2 + 1), sign(s * s - 1, _CLIPPED_FROM**2 - 1)
    tops = [((s + t) * plus).max(0) - ((s - t) * minus).min(0) for t in sign(s, _CLIPPED_FROM)]
    # of each sign the worst size: s - t >= 0 wherever the largest is
    return max(1.0, float(np.max(tops)) / 2)


def results(X: Tensor, steps: int, name: str, form: str | None) -> tuple[Tensor, float]:
    """The largest singular value of every result, and the largest excess of a step where it is emulated."""
    if name == EMULATED:
        Y, excess = emulate(X, schedule_for_steps(steps, torch.bfloat16))
        return largest(Y), excess
    if form in OTHERS:
        return largest(OTHERS[form](X.to(DTYPES[name]), steps)), 0.0
    return largest(matfun.msign(X.to(DTYPES[name]), steps=steps, method=form)), 0.0


@dataclass(slots=True)
class Tally:
    """Worst result, how many there were and how many beyond the limit, by dtype and form with shape, family, steps."""

    by: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    worst: list[dict[str, Any]] = field(default_factory=list)
    matrices: int = 0
    beyond: int = 0
    excess: float = 0.0
    excess_at: str = ""

    def add(self, sizes: Tensor, excess: float, case: dict[str, Any]) -> None:
        """Count the results of a batch."""
        most, beyond = float(sizes.max()), int((sizes > LIMITS[case["dtype"]]).sum())
        where = f"{case['dtype']}, {case['form'] or 'default'}"
        for kind in ("shape", "family", "steps"):
            row = self.by.setdefault((where, kind, str(case[kind])), [0.0, 0, 0])
            row[:] = max(row[0], most), row[1] + len(sizes), row[2] + beyond
        self.matrices += len(sizes)
        self.beyond += beyond
        self.worst = sorted([*self.worst, {"worst": most, **case}], key=lambda w: -_over(w))[:20]
        if excess > self.excess:
            self.excess, self.excess_at = excess, f"{case['family']}, {case['shape']}, {case['steps']} steps"


def _over(case: dict[str, Any]) -> float:
    return (case["worst"] - 1) / (LIMITS[case["dtype"]] - 1)


def batches(shape: tuple[int, int], count: float, seed: int, every: int = 1) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """The batches of one shape, or ``every`` so many of them, each with all that is needed to make it again."""
    bases = Bases(torch.Generator())
    batch = max(round(count), 1)
    every = max(every, round(1 / count))
    for (family, make), steps in itertools.product(FAMILIES.items(), STEPS):
        for name, form in cells(steps):
            seed += 1
            if seed % every == 0:
                bases.g.manual_seed(seed)
                case = {"shape": f"{shape[0]} x {shape[1]}", "family": family, "steps": steps, "dtype": name}
                yield make(batch, *shape, bases), case | {"form": form, "seed": seed, "batch": batch}


def add(shape: tuple[int, int], count: float, every: int, tally: Tally) -> None:
    """Add the results for one shape to a tally, of every so many batches."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="msign: .* computed a second time")
        for X, case in batches(shape, count, 10_000 * list(COUNTS).index(shape), every):
            tally.add(*results(X, case["steps"], case["dtype"], case["form"]), case)


def report(tally: Tally, second: int, seconds: float, part: str) -> Found:
    """What was found so far."""
    summary = (
        f"{tally.matrices:,} matrices, as many results, {seconds:.0f} s. Beyond the limits (float32 and float64 1.02, "
        f"bfloat16 1.05): {tally.beyond}. Second tries: {second}. Largest excess of one rounded step: "
        f"{tally.excess:.3f} of what its bound allows ({tally.excess_at})."
    )
    text = [summary]
    for kind in ("shape", "family", "steps"):
        rows = [
            [where, value, f"{worst:.4f}", f"{count:,}", f"{beyond / count:.2%}"]
            for (where, k, value), (worst, count, beyond) in tally.by.items()
            if k == kind
        ]
        header = ["dtype, form", kind, "largest singular value", "matrices", "share beyond the limit"]
        text.append(f"## By {kind}\n\n" + _record.table(header, rows))
    header = list(tally.worst[0])
    text.append("## Nearest to the limits\n\n" + _record.table(header, [list(w.values()) for w in tally.worst]))
    rows = [
        {"dtype, form": where, kind: value, "worst": worst, "matrices": count, "beyond": beyond}
        for (where, kind, value), (worst, count, beyond) in tally.by.items()
    ]
    figures = {"matrices": tally.matrices, "beyond": tally.beyond, "second tries": second, "step excess": tally.excess}
    data = {"step excess at": tally.excess_at, "limits": LIMITS, "seconds": seconds, "nearest": tally.worst}
    return Found(rows=rows, body="\n\n".join(text), figures=figures, data=data, part=part)


def measure(
    *,
    times: float = 1.0,
    part: Literal["small", "large"] | None = None,
    shapes: tuple[tuple[int, int], ...] = tuple(COUNTS),
    every: int = 1,
) -> Iterator[Found]:
    """``times`` as many matrices of every shape; a part has short sides below 128, or from there on."""
    chosen = [s for s in shapes if part is None or (min(s) >= 128) == (part == "large")]
    tally, start, before = Tally(), time.perf_counter(), matfun.planning.tries().second
    for shape in chosen:
        add(shape, COUNTS[shape] * times, every, tally)
        spent, second = time.perf_counter() - start, matfun.planning.tries().second - before
        print(f"{shape}: {tally.matrices:,} matrices, {spent:.0f} s, beyond {tally.beyond}, {second} tries", flush=True)
        yield report(tally, second, spent, part or "")


if __name__ == "__main__":
    main(
        "msign_safety",
        "msign and its relatives by a fixed number of steps: {beyond} of {matrices:,} results have a singular value "
        "beyond the limit",
        measure,
        smoke={"shapes": ((3, 7),), "times": 0.1, "every": 397},
    )
