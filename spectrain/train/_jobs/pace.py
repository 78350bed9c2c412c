"""Long work that says how far it has come: nothing for ten seconds, then a line each ten."""

import time
from collections.abc import Callable

from spectrain.train._run.progress import Progress


class Pace:
    """Called with what is done, how much of it, and of how much in all (None where nobody knows).

    ``stages``: each new kind of work is said as it begins.

    >>> times = iter([0.0, 5.0, 20.0])
    >>> pace = Pace("tokens", say=print, clock=lambda: next(times))
    >>> for done in (0, 100, 400):
    ...     pace("validation", done, 1000)
      validation: 400 of 1,000 tokens, about 30 s left
    """

    def __init__(
        self,
        unit: str,
        *,
        say: Callable[[str], object] | None = None,
        stages: bool = False,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.unit, self.stages, self.every, self.clock = unit, stages, every, clock
        self.say = say or Progress().say
        self._what = ""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Take note, and say it where it is time."""
        now = self.clock()
        if what != self._what:
            self._what, self._began, self._first, self._said = what, now, done, now
            if self.stages:
                self.say(f"  {what}")
        if now - self._said < self.every:
            return
        self._said = now
        left = ""
        if total is not None and done > self._first:
            left = f", about {(total - done) * (now - self._began) / (done - self._first):.0f} s left"
        of = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        self.say(f"  {what}: {of} {self.unit}{left}")
