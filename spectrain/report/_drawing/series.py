"""Runs as series of figures: which colour, which are in front, and the columns they draw.

Long curves made short and rough ones smooth, without hiding what happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from spectrain.report._drawing.figure import MUTED, Trace, line, series_color
from spectrain.report._reading.files import Row, number
from spectrain.report._reading.measures import lead, unit
from spectrain.report._reading.run import Run

MOST_POINTS = 1200


def thin(y: Sequence[float | None]) -> list[int]:
    """Indices of at most about ``MOST_POINTS`` points that keep the least and the largest of every stretch.

    A spike of one step stays visible, which plain subsampling would hide.

    >>> y = [0.0] * 100_000; y[54_321] = 7.0
    >>> kept = thin(y)
    >>> len(kept) <= MOST_POINTS + 2, 54_321 in kept
    (True, True)
    """
    count = len(y)
    if count <= MOST_POINTS:
        return list(range(count))
    edges = [round(i * count / (MOST_POINTS // 2)) for i in range(MOST_POINTS // 2 + 1)]
    kept = {0, count - 1}
    for start, stop in pairwise(edges):
        there = [i for i in range(start, stop) if y[i] is not None]
        if there:
            kept |= {min(there, key=lambda i: y[i] or 0.0), max(there, key=lambda i: y[i] or 0.0)}
    return sorted(kept)


def running_mean(y: Sequence[float | None]) -> list[float | None]:
    """Mean of the last twentieth of the values so far: short where a curve falls fast, long where it is flat.

    >>> running_mean([1.0, 3.0, None, 5.0]), running_mean([float(i % 2) for i in range(400)])[-1]
    ([1.0, 3.0, None, 5.0], 0.5)
    """
    sums = [0.0, *accumulate(v or 0.0 for v in y)]
    counts = [0, *accumulate(v is not None for v in y)]
    spans = [(i - i // 20, i + 1) for i in range(len(y))]
    return [(sums[b] - sums[a]) / (counts[b] - counts[a]) if counts[b] > counts[a] else None for a, b in spans]


@dataclass(frozen=True, slots=True)
class Series:
    """A run with its colour; ``front`` when it is drawn strongly and its details are shown."""

    run: Run
    color: str
    front: bool


def outcome(run: Run) -> float:
    """What runs are ranked by: the measure they are known by, else the loss; infinity when neither was written."""
    known = lead(run)
    found = run.final(known.key if known else "loss")
    return float("inf") if found is None else found if known is None or known.falls else -found


def series(runs: Sequence[Run]) -> list[Series]:
    """Of several optimizers: a colour each, the best run of each in front. Other runs: a colour each run."""
    kinds = sorted({run.optimizer for run in runs}, reverse=True)
    if len(kinds) == 1 or len(runs) == len(kinds):
        return [Series(run, series_color(i, len(runs)), True) for i, run in enumerate(runs)]
    best = {kind: min((run for run in runs if run.optimizer == kind), key=outcome) for kind in kinds}
    return [
        Series(run, series_color(kinds.index(run.optimizer), len(kinds)), best[run.optimizer] is run) for run in runs
    ]


def front(runs: Sequence[Run]) -> list[Run]:
    """The runs whose details the page shows, the best first."""
    return sorted((one.run for one in series(runs) if one.front), key=outcome)


def which(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The control that chooses one of several runs; none where there is one."""
    return [("run", [run.name for run in runs])] if len(runs) > 1 else []


def chosen(runs: Sequence[Run], at: int) -> tuple[int, ...]:
    """How the keys of views of ``runs[at]`` begin under :func:`which`."""
    return (at,) if len(runs) > 1 else ()


def level(rows: Sequence[Row], y: float, name: str) -> Trace:
    """A dashed line at ``y`` over all steps of ``rows``."""
    steps = [x for x in column(rows, "step") if x is not None]
    return line([min(steps), max(steps)], [y, y], name, MUTED, width=1.5, dash="dash")


def column(rows: Sequence[Row], key: str) -> list[float | None]:
    """A column of numbers; None where a row has none, or NaN, or an infinity."""
    return [number(row.get(key)) for row in rows]


def has(rows: Sequence[Row], key: str) -> bool:
    """Whether a column has at least one number."""
    return any(value is not None for value in column(rows, key))


def layers_of(rows: Sequence[Row], key: str) -> list[int]:
    """The layers that have a column of their own, ``key.0`` and so on.

    >>> layers_of([{"max_logit": 3.0, "max_logit.1": 2.0, "max_logit.0": 3.0}], "max_logit")
    [0, 1]
    """
    found = {name.removeprefix(f"{key}.") for row in rows for name in row if name.startswith(f"{key}.")}
    return sorted(int(name) for name in found if name.isdecimal())


@dataclass(frozen=True, slots=True)
class Against:
    """What the horizontal axis counts: a column of the metrics, its title, and the column's value of one unit."""

    key: str
    title: str
    unit: float = 1.0

    def of(self, rows: Sequence[Row]) -> list[float | None]:
        """The column in this unit."""
        return [None if x is None else x / self.unit for x in column(rows, self.key)]


def against_time(runs: Sequence[Run]) -> Against:
    """Time in the unit that fits the longest run."""
    times = [x for run in runs for x in column(run.steps + run.evals, "seconds") if x is not None]
    longest = max(times, default=0.0)
    if longest >= 3 * 3600:
        return Against("seconds", "time (hours)", 3600.0)
    return Against("seconds", "time (minutes)", 60.0) if longest >= 180 else Against("seconds", "time (seconds)")


def against_data(runs: Sequence[Run]) -> Against:
    """The data that was learned from, in the unit of the job."""
    return Against(unit(runs), f"training {unit(runs)}")


STEPS = Against("step", "training step")


Curve = tuple[list[float | None], list[float | None]]


def curve(rows: Sequence[Row], against: Against, key: str, *, smooth: bool = False) -> Curve:
    """x and y of a curve, thinned so that spikes stay; ``smooth`` takes the running mean first."""
    x, y = against.of(rows), column(rows, key)
    y = running_mean(y) if smooth else y
    kept = thin(y)
    return [x[i] for i in kept], [y[i] for i in kept]
