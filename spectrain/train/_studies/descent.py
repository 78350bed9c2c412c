"""Coordinate descent on ladders of settings: the cheapest honest way to tune seven numbers with two dozen runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Point = dict[str, float | int]  # beartype takes no integer for a float


@dataclass(frozen=True)
class Ladder:
    """The values that a setting may take, in order; with a ``factor`` it goes on beyond both ends.

    Raises ``ValueError`` for values that do not rise, and for a single one that cannot go on.

    >>> Ladder((1.0, 2.0), factor=2.0).beside(2.0, 1), Ladder((0, 1, 4)).beside(4, 1)
    (4.0, None)
    """

    values: tuple[float | int, ...]
    factor: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no ladder."""
        if list(self.values) != sorted(set(self.values)):
            raise ValueError(f"the values of a ladder rise, got {self}.")
        if len(self.values) < 2 and self.factor is None:
            raise ValueError(f"a ladder of one value tunes nothing, got {self}; give another value, or leave it out.")

    def holds(self, value: float | int) -> bool:
        """Whether a walk may stand here."""
        return value in self.values or (self.factor is not None and value > 0)

    def beside(self, value: float | int, direction: int) -> float | int | None:
        """The next value up (1) or down (-1); None at an end that stays one."""
        if value in self.values and 0 <= (at := self.values.index(value) + direction) < len(self.values):
            return self.values[at]
        return None if self.factor is None else value * self.factor**direction


@dataclass(frozen=True)
class Found:
    """Where a descent ended."""

    point: Point
    loss: float | int
    runs: int
    open: tuple[str, ...]
    """Settings with a neighbour that was not measured, the budget being spent: there the best may lie further on."""
    edge: tuple[str, ...]
    """Settings at an end of a ladder that does not go on."""


def coordinate_descent(
    measure: Callable[[Point], float | int], *, ladders: Mapping[str, Ladder], start: Point, budget: int
) -> Found:
    """Walk one setting at a time to a point that no single step on any ladder improves.

    In turn each setting climbs its ladder, then descends it, as long as ``measure`` falls; rounds go on until one
    changes nothing or ``budget`` different points have been measured. A point is measured once; infinities and NaN
    count as worst. What the result means: no neighbour that was measured is better. It is a local optimum, and no more
    (settings that interact can hide a better one); where the budget ended before, ``open`` names the settings that
    still have a neighbour to be tried.

    Raises ``ValueError`` for a budget that does not reach once round, or a start that is not on the ladders.

    >>> bowl = lambda p: (p["x"] - 3) ** 2 + (p["y"] - p["x"]) ** 2
    >>> ladder = Ladder((0.0, 1.0, 2.0, 3.0, 4.0))
    >>> coordinate_descent(bowl, ladders={"x": ladder, "y": ladder}, start={"x": 0.0, "y": 0.0}, budget=25).point
    {'x': 2.0, 'y': 2.0}
    """
    least = 1 + len(ladders)
    if budget < least:
        raise ValueError(f"tuning {', '.join(ladders)} needs at least {least} runs for one round, got {budget}.")
    for name, ladder in ladders.items():
        if not ladder.holds(start[name]):
            known = ", ".join(f"{value:g}" for value in ladder.values)
            raise ValueError(f"the start of {name}, {start[name]:g}, is not one of {known}.")
    seen: dict[tuple[float | int, ...], float] = {}
    point, moved = dict(start), True

    def value(at: Point) -> float | int:
        key = tuple(at.values())
        if key not in seen and len(seen) < budget:
            found = measure(at)
            seen[key] = found if found == found else float("inf")
        return seen.get(key, float("inf"))

    value(point)
    while moved and len(seen) < budget:
        moved = False
        for name, ladder in ladders.items():
            for direction in (1, -1):
                while (after := _step(point, name, ladder, direction)) and value(after) < value(point):
                    point, moved = after, True
    around = {name: [_step(point, name, ladder, d) for d in (1, -1)] for name, ladder in ladders.items()}
    unseen = [name for name, steps in around.items() if any(s and tuple(s.values()) not in seen for s in steps)]
    ends = [name for name, steps in around.items() if None in steps]
    return Found(point, value(point), len(seen), tuple(unseen), tuple(ends))


def _step(point: Point, name: str, ladder: Ladder, direction: int) -> Point | None:
    beside = ladder.beside(point[name], direction)
    return None if beside is None else {**point, name: beside}
