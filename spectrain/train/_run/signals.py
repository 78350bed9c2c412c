"""SIGINT and SIGTERM ask for a checkpoint and a clean end; they never cut a step in half."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class StopRequest(Exception):  # noqa: N818 - not an error: the run ends as asked
    """Truthy once a signal came; raised, with its place, after the checkpoint is on the disk."""

    code = 0

    def __init__(self) -> None:
        super().__init__()
        self.signal: int | None = None
        self.step = 0
        self.folder = Path()

    def __bool__(self) -> bool:
        return self.signal is not None

    def __str__(self) -> str:
        name = signal.Signals(self.signal).name if self.signal else "no signal"
        return f"stopped by {name} after step {self.step}; a checkpoint is in {self.folder}"

    def at(self, step: int, folder: Path) -> "StopRequest":
        """This request, with where the run stands."""
        self.step, self.folder = step, folder
        return self


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one acts as usual."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: FrameType | None) -> None:
        request.signal = number  # no more: a handler runs between any two instructions, in the middle of a write say
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
