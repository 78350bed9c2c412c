"""Calls that take turns, so that all see the same machine; what counts are the ratios within a round."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def seconds(
    run: Callable[[], object], *, at_least: float = 0.0, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The time of one call, the mean of as many as take ``at_least`` seconds."""
    count, start = 0, clock()
    while count == 0 or clock() - start < at_least:
        run()
        count += 1
    return (clock() - start) / count


class Times(dict[str, list[float]]):
    """Seconds of each call, round by round."""

    def median(self, name: str) -> float:
        """Seconds of a call in the median."""
        return statistics.median(self[name])

    def ratios(self, name: str, to: str) -> list[float]:
        """The time of one divided by that of another in the same round."""
        return [a / b for a, b in zip(self[name], self[to], strict=True)]

    def ratio(self, name: str, to: str) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios(name, to))

    def quartiles(self, name: str, to: str) -> tuple[float, float, float]:
        """The quartiles of the ratios, the median in the middle."""
        found = self.ratios(name, to)
        low, middle, high = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
        return low, middle, high


def alternate(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, warm: int = 1, back: bool = False, **timed: Any
) -> Times:
    """Time every call once a round, in turn, after ``warm`` rounds that do not count.

    With ``back`` every second round goes through them from the last to the first. ``timed`` goes to `seconds`.
    """
    found = Times({name: [] for name in calls})
    for turn in range(rounds + warm):
        order = list(calls)[::-1] if back and turn >= warm and (turn - warm) % 2 else list(calls)
        for name in order:
            took = seconds(calls[name], **timed)
            if turn >= warm:
                found[name].append(took)
    return found
