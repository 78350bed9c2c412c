"""Batches made ahead of time in other processes, in the same order and with the same random numbers as without."""

import contextlib
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal

import torch

from spectrain.data._processes.wire import own_generators_kept, pack, seed_global_generators, unpack


class WorkerError(RuntimeError):
    """A worker process failed; the message holds its traceback, or how it died."""


class Workers:
    """``batch(start)``, ``batch(start + 1)``, ... in order, computed by ``workers`` processes a few steps ahead.

    ``batch`` is a function of the step, such as ``TokenStream(...).batch``; it is sent to the workers once. Step t
    is computed by worker t mod workers, and handed out in order, so the batches do not depend on the number of
    workers, nor on where a run was resumed. Before each call torch's, NumPy's and Python's global generators are set
    from ``(seed, t)``, in the workers and where ``workers=0`` computes in this process (whose own generators are
    put back), so a ``batch`` that draws from them is a function of t as well.

    At most ``ahead`` batches wait for each worker, whatever their size. A batch may hold tensors, arrays and plain
    data; tensors come back on the CPU.

    Args:
        batch: the function; for ``method="spawn"`` it must be picklable.
        start: the first step.
        workers: processes; 0 computes in this one.
        ahead: batches each worker may be ahead.
        seed: see above.
        method: how processes start: ``"spawn"`` (safe beside threads), ``"fork"`` (at once, and nothing is copied).

    Use it as a context manager or call ``close``; workers also end when this process does. A ``KeyboardInterrupt``
    belongs to this process: workers ignore it and end with it.

    Raises ``ValueError`` for numbers below their least; in iteration ``WorkerError`` with the worker's traceback when
    ``batch`` failed there, or with the exit code when the process was killed: never a hang. A ``batch`` that raises
    ``StopIteration`` ends the iteration.

    >>> with Workers(lambda t: t * t, start=2, workers=0) as batches:
    ...     next(batches), next(batches)
    (4, 9)
    """

    def __init__(
        self,
        batch: Callable[[int], Any],
        *,
        start: int = 0,
        workers: int = 1,
        ahead: int = 2,
        seed: int = 0,
        method: Literal["spawn", "fork"] = "spawn",
    ) -> None:
        for name, value, least in (("start", start, 0), ("workers", workers, 0), ("ahead", ahead, 1)):
            if value < least:
                raise ValueError(f"Workers: {name} must be at least {least}, got {value}.")
        self._call = _Seeded(batch, seed)
        self._step, self._asked, self._ahead = start, start, ahead
        self._closed = False
        self._crew = [_Member.hire(self._call, multiprocessing.get_context(method)) for _ in range(workers)]
        self._waiting: deque[_Member] = deque()

    def __iter__(self) -> Iterator[Any]:
        """The batches are an iterator of their own."""
        return self

    def __next__(self) -> Any:
        """The batch of the next step."""
        if self._closed:
            raise ValueError("Workers: this object was closed; make a new one with start= the next step.")
        if not self._crew:
            with own_generators_kept():
                result = self._call(self._step)
        else:
            while len(self._waiting) < self._ahead * len(self._crew):
                member = self._crew[self._asked % len(self._crew)]
                member.ask(self._asked)
                self._waiting.append(member)
                self._asked += 1
            result = self._receive()
        self._step += 1
        return result

    def _receive(self) -> Any:
        try:
            return self._waiting.popleft().answer(self._step)
        except WorkerError:
            self.close()
            raise

    def close(self) -> None:
        """End the workers; idempotent."""
        self._closed = True
        for member in self._crew:
            member.dismiss()

    def __enter__(self) -> "Workers":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers, whatever happened."""
        self.close()


@dataclass(frozen=True)
class _Seeded:
    """``batch`` after the global generators were set from (seed, t)."""

    batch: Callable[[int], Any]
    seed: int

    def __call__(self, t: int) -> Any:
        seed_global_generators(self.seed, "worker", t)
        return self.batch(t)


@dataclass
class _Member:
    """A worker process and our end of its pipe."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection

    @staticmethod
    def hire(call: _Seeded, context: Any) -> "_Member":
        """Start a process that answers step numbers with batches."""
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(call, theirs, ours), daemon=True)
        process.start()
        theirs.close()  # so that its death is the end of the pipe
        return _Member(process, ours)

    def ask(self, t: int) -> None:
        with contextlib.suppress(OSError):  # it has died: the answer will say so
            self.pipe.send(t)

    def answer(self, t: int) -> Any:
        try:
            good, result = unpack(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.process.join(timeout=5)
            raise WorkerError(
                f"the worker that made batch {t} died (exit code {self.process.exitcode}; -9 is a kill, often for lack "
                "of memory). Use fewer workers or smaller batches."
            ) from None
        if good is None:
            raise StopIteration
        if not good:
            raise WorkerError(f"batch {t} failed in a worker:\n{result}")
        return result

    def dismiss(self) -> None:
        self.pipe.close()
        self.process.join(timeout=0.2)
        if self.process.is_alive():  # it may be in the middle of a batch
            self.process.kill()
            self.process.join()


def _work(call: _Seeded, pipe: Connection, not_ours: Connection) -> None:
    """What a worker does until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    not_ours.close()  # a forked worker must not hold the other end open
    torch.set_num_threads(1)
    while True:
        try:
            t = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = pack((True, call(t)))
        except StopIteration:  # a source is at its end
            answer = pack((None, None))
        except Exception:
            answer = pack((False, traceback.format_exc()))
        try:
            pipe.send_bytes(answer)
        except OSError:
            return
