"""A bar with the time that is left in a notebook, whose standard output is no terminal. It needs nothing installed."""

import html
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

_EVERY = 0.5


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook: one of IPython's that shows more than text."""
    core = sys.modules.get("IPython")
    shell = core.get_ipython() if core is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """One line below the cell that is drawn again at most twice a second; lines that stay are printed above it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._shown: Any = None
        self._began = self._said = clock()
        self._first: int | None = None

    def step(self, step: int, steps: int | None, text: str) -> None:
        """Draw the bar as it is after a step, where it is time or the last one."""
        now = self.clock()
        if self._first is None:
            self._first, self._began = step, now
        elif now - self._said < _EVERY and step != steps:
            return
        self._said = now
        self._draw(line(step, steps, self._left(step, steps, now), text), step, steps)

    def _left(self, step: int, steps: int | None, now: float) -> float | None:
        """Seconds to the end at the pace of this process; None where nobody can tell."""
        assert self._first is not None
        if steps is None or step == self._first:
            return None
        return (steps - step) * (now - self._began) / (step - self._first)

    def _draw(self, words: str, step: int, steps: int | None) -> None:
        size = "" if steps is None else f' value="{step}" max="{steps}"'
        page = {"text/plain": words, "text/html": f"<progress{size}></progress> <code>{html.escape(words)}</code>"}
        if self._shown is None:
            self._shown = importlib.import_module("IPython.display").display(page, raw=True, display_id=True)
        else:
            self._shown.update(page, raw=True)


def line(step: int, steps: int | None, left: float | None, text: str) -> str:
    """What stands beside the bar.

    >>> line(30, 90, 125.0, "loss 2.5")
    '30/90  2:05 left  loss 2.5'
    """
    clock = "" if left is None else f"  {int(left) // 60}:{int(left) % 60:02d} left"
    return f"{step}/{steps or '?'}{clock}  {text}"
