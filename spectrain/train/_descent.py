"""Coordinate descent on ladders of settings: the cheapest honest way to tune four numbers with two dozen runs."""

from collections.abc import Callable, Mapping, Sequence

Point = dict[str, float]


def coordinate_descent(
    measure: Callable[[Point], float], *, ladders: Mapping[str, Sequence[float]], start: Point, budget: int
) -> Point:
    """Walk one setting at a time to a point that no single step on any ladder improves.

    In turn each setting climbs its ladder, then descends it, as long as ``measure`` falls; rounds go on until one
    changes nothing or ``budget`` different points have been measured. The best point measured is returned. A point is
    measured once; infinities and NaN count as worst. What the result means: no neighbour that was measured is better.
    It is a local optimum, and no more (settings that interact can hide a better one).

    Raises ``ValueError`` for a budget below 1 or a start that is not on the ladders.

    >>> bowl = lambda p: (p["x"] - 3) ** 2 + (p["y"] - p["x"]) ** 2
    >>> ladder = [0.0, 1.0, 2.0, 3.0, 4.0]
    >>> coordinate_descent(bowl, ladders={"x": ladder, "y": ladder}, start={"x": 0.0, "y": 0.0}, budget=25)
    {'x': 2.0, 'y': 2.0}
    """
    if budget < 1:
        raise ValueError(f"tuning needs a budget of at least one run, got {budget}.")
    for name, ladder in ladders.items():
        if start[name] not in ladder:
            raise ValueError(
                f"the start of {name}, {start[name]:g}, is not one of {', '.join(f'{v:g}' for v in ladder)}."
            )
    seen: dict[tuple[float, ...], float] = {}
    point, moved = dict(start), True

    def value(at: Point) -> float:
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
    return point


def _step(point: Point, name: str, ladder: Sequence[float], direction: int) -> Point | None:
    at = list(ladder).index(point[name]) + direction
    return {**point, name: ladder[at]} if 0 <= at < len(ladder) else None
