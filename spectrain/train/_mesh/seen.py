"""A run folder belongs to all ranks: each of them has to see what rank 0 writes."""

import time
from pathlib import Path

from spectrain.train._mesh.ranks import Ranks

_PATIENCE = 3.0
"""Seconds: a file system over a network shows new files a little later."""


def check_seen(ranks: Ranks, file: Path) -> None:
    """Refuse to go on where a rank does not see ``file``, a small one that rank 0 has made and nobody else could."""
    told = ranks.tell(_text(file))

    def see() -> None:
        until = time.monotonic() + _PATIENCE
        while _text(file) != told:
            if time.monotonic() > until:
                raise ValueError(
                    f"{file.parent} is not the folder of that name that rank 0 has. Give an --out-dir, whole from /, "
                    "on a disk that all ranks share."
                )
            time.sleep(0.05)

    ranks.by_all(see)


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return None
