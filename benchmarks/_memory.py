"""Memory that a process has of its own: pages that are no file's."""

import threading
import time
from pathlib import Path


def anonymous() -> float:
    """Anonymous resident memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Peak:
    """The largest anonymous memory while the block runs, sampled every ``interval`` seconds."""

    def __init__(self, *, interval: float = 0.02) -> None:
        self.interval = interval

    def __enter__(self) -> "Peak":
        self.before = self.most = anonymous()
        self.running = True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.most = max(self.most, anonymous())
            time.sleep(self.interval)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()
