"""A user's generator made safe for processes: it runs once, in order, and whoever takes from it gets its own items."""

import contextlib
import itertools
import multiprocessing
import os
import secrets
import signal
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from spectrain.data._processes.crowd import Crowd
from spectrain.data._processes.wire import pack, seed_global_generators, unpack
from spectrain.data._processes.workers import WorkerError

_POLL = 0.1  # seconds after which the process of the generator looks whether its owner is alive


class Generated:
    """The items of ``make()``, a generator, run once and in order by a process of its own, for any number of takers.

    An ordinary generator with several workers or ranks is run by each of them, so that every item comes several times,
    or is advanced from several sides at once (article 6575, kexue.fm/archives/6575, where the way out is to have no
    generator). Here item t * world + r is the batch of rank r at step t, whatever the number of ranks and workers:
    all ranks together see the generator's order.

    ``feed.source(rank=r)`` is a function of the step, for :class:`Workers` or to be called with ascending steps; it
    can be pickled, and connects on its first call. Of the workers of a rank each holds a connection of its own:
    ``Workers(feed.source(), workers=feed.workers, start=feed.start)``. A source may also go to the ranks of
    ``torchrun`` (``torch.distributed.broadcast_object_list``): it is an address, a key and numbers.

    At most ``ahead`` items wait in each connection, and a step in the process: a rank that takes nothing stops the
    others soon. Before item i torch's, NumPy's and Python's global generators are set from (seed, i), so an item that
    draws from them does not depend on where the run was resumed.

    **Resume.** By skipping (``start=t``): the generator runs from its beginning and ``t * world`` items are dropped,
    which costs its own time and no more. By state (``start=t, skip=False``): ``make`` returns a generator that begins
    at that item already, for which it has a position of its own.

    Args:
        make: returns an iterable; for ``method="spawn"`` it must be picklable.
        world: ranks.
        workers: processes that take for each rank; 1 also where ``Workers(workers=0)`` takes in the rank itself.
        start: the first step.
        skip: see above.
        ahead: items each connection may be ahead.
        seed: see above.
        method: how the process starts, ``"spawn"`` or ``"fork"``.

    Use it as a context manager or call ``close``; the process also ends when this one does, or when nobody takes from
    it any more. It ignores Ctrl-C, which belongs to this process.

    Raises ``ValueError`` for numbers below their least. A source raises ``WorkerError`` with the traceback when the
    generator failed, with a sentence when the process was killed, another taker left, or another source takes for this
    rank already: never a hang. At the generator's end it raises ``StopIteration`` at all ranks in the same step: items
    that do not fill a step are not handed out.

    >>> with Generated(lambda: iter("abcdef"), world=2, method="fork") as feed:
    ...     left, right = feed.source(rank=0), feed.source(rank=1)
    ...     [(left(t), right(t)) for t in range(3)]
    [('a', 'b'), ('c', 'd'), ('e', 'f')]
    """

    def __init__(
        self,
        make: Callable[[], Iterable[Any]],
        *,
        world: int = 1,
        workers: int = 1,
        start: int = 0,
        skip: bool = True,
        ahead: int = 2,
        seed: int = 0,
        method: Literal["spawn", "fork"] = "spawn",
    ) -> None:
        for name, value, least in (
            ("world", world, 1),
            ("workers", workers, 1),
            ("start", start, 0),
            ("ahead", ahead, 1),
        ):
            if value < least:
                raise ValueError(f"Generated: {name} must be at least {least}, got {value}.")
        self.world, self.workers, self.start, self.ahead = world, workers, start, ahead
        self._folder = tempfile.TemporaryDirectory(prefix="spectrain-")  # for us alone
        address, key = str(Path(self._folder.name) / "feed"), secrets.token_bytes(32)
        self._at = (address, key)
        context: Any = multiprocessing.get_context(method)
        ready, theirs = context.Pipe(duplex=False)
        task = _Task(make, world, workers, start, skip, seed)
        self._process = context.Process(target=_serve, args=(task, address, key, theirs), daemon=True)
        try:
            self._process.start()
        except BaseException:  # it cannot be pickled
            self._folder.cleanup()
            raise
        theirs.close()
        try:
            ready.recv()
        except EOFError:
            self._process.join(timeout=5)
            self._folder.cleanup()
            raise WorkerError(f"the process of the generator died (exit code {self._process.exitcode}).") from None
        self._end = weakref.finalize(self, _end, self._process, self._folder)

    def source(self, *, rank: int = 0) -> "Source":
        """What rank ``rank`` takes from: a function of the step."""
        if not 0 <= rank < self.world:
            raise ValueError(f"Generated.source: rank must be between 0 and {self.world - 1}, got {rank}.")
        return Source(*self._at, rank, self.world, self.workers, self.start, self.ahead)

    def close(self) -> None:
        """End the process; idempotent."""
        self._end()

    def __enter__(self) -> "Generated":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process, whatever happened."""
        self.close()


class Source:
    """Steps of one rank, each once and in ascending order; made by :meth:`Generated.source`."""

    def __init__(self, address: str, key: bytes, rank: int, world: int, workers: int, start: int, ahead: int) -> None:
        self._all = (address, key, rank, world, workers, start, ahead)
        self._pipe: Connection | None = None
        self._next, self._process = start, 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Source, self._all

    def __call__(self, t: int) -> Any:
        """The item of step ``t``."""
        address, key, rank, _, workers, start, ahead = self._all
        if self._pipe is None:
            if not start <= t < start + workers:
                raise ValueError(f"Source: the first step is {start}, or one for each of {workers} workers, got {t}.")
            self._pipe, self._next, self._process = _connect(address, key), t, os.getpid()
            self._ask((rank, t - start))
            for _ in range(ahead):
                self._ask(None)
        if self._process != os.getpid():
            raise ValueError("Source: this one was used before the process was forked; fork first, then take.")
        if t != self._next:
            raise ValueError(f"Source: a generator goes forwards, and the next step here is {self._next}; got {t}.")
        try:
            kind, value = unpack(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise WorkerError(
                "the process of the generator died or was closed; killed, it was often for lack of memory."
            ) from None
        if kind == "end":
            raise StopIteration
        if kind == "error":
            raise WorkerError(value)
        self._ask(None)
        self._next += workers
        return value

    def __iter__(self) -> Iterator[Any]:
        """All steps from the first, for a source that is taken from in one process."""
        with contextlib.suppress(StopIteration):
            for t in itertools.count(self._next, self._all[4]):
                yield self(t)

    def _ask(self, what: object) -> None:
        assert self._pipe is not None
        with contextlib.suppress(OSError):  # it has died: the answer will say so
            self._pipe.send(what)


def _connect(address: str, key: bytes) -> Connection:
    try:
        return Client(address, authkey=key)
    except (OSError, EOFError):
        raise WorkerError("the process of the generator is not there: it died or was closed.") from None


def _end(process: multiprocessing.process.BaseProcess, folder: "tempfile.TemporaryDirectory[str]") -> None:
    process.kill()
    process.join()
    folder.cleanup()


@dataclass(frozen=True)
class _Task:
    make: Callable[[], Iterable[Any]]
    world: int
    workers: int
    start: int
    skip: bool
    seed: int

    def steps(self) -> Iterator[list[Any]]:
        """The items of each step from ``start`` on, all ranks together; an unfilled step is left out."""
        items = self.seeded()
        if self.skip:
            dropped = sum(1 for _ in itertools.islice(items, self.start * self.world))
            if dropped < self.start * self.world:
                raise ValueError(f"step {self.start} is beyond the end of the generator, which has {dropped} items.")
        while len(step := list(itertools.islice(items, self.world))) == self.world:
            yield step

    def seeded(self) -> Iterator[Any]:
        """The generator's items, the global generators set before each."""
        first = 0 if self.skip else self.start * self.world
        seed_global_generators(self.seed, "generated", "start")
        items = iter(self.make())
        for i in itertools.count(first):
            seed_global_generators(self.seed, "generated", i)
            try:
                item = next(items)
            except StopIteration:
                return
            yield item


def _serve(task: _Task, address: str, key: bytes, ready: Connection) -> None:
    """What the process does: hand out items in order, one connection after the other, until nobody is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owner = os.getppid()
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    with Listener(address, backlog=task.world * task.workers) as listener:  # the crowd asks for the key
        crowd = Crowd(listener, key, world=task.world, workers=task.workers)
        ready.send(None)
        ready.close()
        steps = task.steps()
        for step in itertools.count():
            answers = _answers(steps, task.world)
            if answers[0][0] != "item":
                crowd.leave(answers[0][1], kind=answers[0][0])
                return
            for rank, answer in enumerate(answers):
                if not crowd.give((rank, step % task.workers), pack(answer)):
                    crowd.leave(f"rank {rank} went away before it had taken step {task.start + step}.")
                    return


def _answers(steps: Iterator[list[Any]], world: int) -> list[tuple[str, Any]]:
    try:
        return [("item", item) for item in next(steps)]
    except StopIteration:
        return [("end", None)] * world
    except Exception:
        return [("error", f"the generator failed:\n{traceback.format_exc()}")] * world


def _end_with(owner: int) -> None:
    """End this process when the one that started it has, whatever the generator is doing."""
    while os.getppid() == owner:
        time.sleep(_POLL)
    os._exit(0)
