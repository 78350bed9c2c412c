"""What the command shares with the system: Ctrl-C, and a standard output that may be closed, full or abandoned."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_AGAIN = 0.05  # seconds


class OutputLost(OSError):  # noqa: N818 - what happened
    """Standard output takes no more lines."""


class _Output:
    """Standard output that tells its own failures from those of other files."""

    def __init__(self, stream: Any, lost: list[OSError]) -> None:
        self._stream, self._lost = stream, lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``; ``OutputLost`` where that fails."""
        return int(self._try(lambda: self._stream.write(text)))

    def flush(self) -> None:
        """Send what is buffered; ``OutputLost`` where that fails."""
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BrokenPipeError as error:  # the reader went away, as `head` does: not our failure
            raise self._give_up() from error
        except OSError as error:
            self._lost.append(error)
            raise self._give_up() from error

    def _give_up(self) -> OutputLost:
        """What is still buffered goes nowhere, so that the interpreter's own flush at its end finds no fault."""
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return OutputLost("standard output takes no more lines")


@contextlib.contextmanager
def standard_streams() -> Iterator[list[OSError]]:
    """Put something behind closed standard streams, and collect what standard output could not take.

    A stream that was closed before we began (``>&-``) is one that nobody wants to read: its lines go nowhere, and no
    file that is opened later gets its number.
    """
    lost: list[OSError] = []
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    before = sys.stdout, sys.stderr
    nowhere = open(descriptor, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    sys.stdout = _Output(before[0] or nowhere, lost)
    sys.stderr = before[1] or nowhere
    try:
        yield lost
    finally:
        with contextlib.suppress(OutputLost, ValueError):  # ValueError: closed by whom we ran
            sys.stdout.flush()
        sys.stdout, sys.stderr = before
        nowhere.close()


def _torch_begins() -> bool:
    """Whether torch is being imported at this moment."""
    return bool(getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", False))


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Remember each Ctrl-C, which raises ``KeyboardInterrupt`` as ever: imports turn that into errors of their own."""
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield came
        return

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if _torch_begins():  # in its C++ an exception of Python's ends in abort(): the same again in a moment
            threading.Timer(_AGAIN, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
