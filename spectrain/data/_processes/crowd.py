"""Those who take from a process, as that process sees them: who came, who is given what, who has gone."""

import multiprocessing
import threading
import time
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge, wait
from typing import Any

from spectrain.data._processes.wire import pack

_POLL = 0.1  # seconds after which who tells the end looks for newcomers


class Crowd:
    """Those who take, each by its (rank, worker); they come when they like.

    Each who knocks is greeted by a thread of its own, so one that connects and says nothing keeps nobody out. Who asks
    for the place of another is told so: it would wait for items that the other gets.
    """

    def __init__(self, listener: Listener, key: bytes, *, world: int, workers: int) -> None:
        self._key, self._places = key, {(rank, worker) for rank in range(world) for worker in range(workers)}
        self._pipes: dict[tuple[int, int], Connection] = {}
        self._came = threading.Condition()
        threading.Thread(target=self._admit, args=(listener,), daemon=True).start()

    def _admit(self, listener: Listener) -> None:
        while True:
            try:
                threading.Thread(target=self._greet, args=(listener.accept(),), daemon=True).start()
            except OSError:  # one that left at once, too many open files, or the end
                time.sleep(_POLL)

    def _greet(self, pipe: Connection) -> None:
        try:
            deliver_challenge(pipe, self._key)
            answer_challenge(pipe, self._key)
            who = pipe.recv()
            if (fault := self._enter(who, pipe)) is None:
                return
            pipe.send_bytes(pack(("error", fault)))
            while True:  # what it still says is read, or the system would drop our answer with it
                pipe.recv_bytes()
        except (OSError, EOFError, multiprocessing.AuthenticationError):
            pipe.close()

    def _enter(self, who: Any, pipe: Connection) -> str | None:
        """Give a place, or say why not."""
        if who not in self._places:
            return f"there is no place for {who!r}: ranks and workers are those that Generated was made with."
        with self._came:
            if who in self._pipes:
                return (
                    f"rank {who[0]}, worker {who[1]} is taken from by another source already, and every item comes "
                    "once; use one source for each rank, and as many workers as Generated(workers=) says."
                )
            self._pipes[who] = pipe
            self._came.notify_all()
        return None

    def give(self, who: tuple[int, int], answer: bytes) -> bool:
        """Send when it is wanted; False when the taker has gone."""
        with self._came:
            self._came.wait_for(lambda: who in self._pipes)
        try:
            self._pipes[who].recv()
            self._pipes[who].send_bytes(answer)
        except (OSError, EOFError):
            return False
        return True

    def leave(self, value: Any, *, kind: str = "error") -> None:
        """Tell those who are here, and those who still come, that there is no more; then wait until they are gone."""
        answer = pack((kind, value))
        told, gone = set[Connection](), set[Connection]()
        while len(gone) < len(self._places):
            with self._came:
                here = [pipe for pipe in self._pipes.values() if pipe not in gone]
            if not here:
                time.sleep(_POLL)
            for pipe in wait(here, timeout=_POLL):
                assert isinstance(pipe, Connection)
                try:
                    pipe.recv()
                    if pipe not in told:
                        pipe.send_bytes(answer)
                        told.add(pipe)
                except (OSError, EOFError):
                    gone.add(pipe)
