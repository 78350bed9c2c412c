"""Computed schedules kept in the user's cache folder, safe under concurrent writers."""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from spectrain import __version__
from spectrain._files import cache as _cache
from spectrain._files.write import write_text
from spectrain.approx._schedule import Schedule


def cache_folder() -> Path:
    """Where schedules are kept; ``OSError`` for a user without a home."""
    return _cache.cache_folder() / "schedules"


def recall(
    key: object,
    compute: Callable[[], Schedule],
    *,
    fits: Callable[[Schedule], bool] = lambda _: True,
    folder: Path | None = None,
) -> Schedule:
    """The schedule of this key from the folder, or computed and put there.

    Writers make a temporary file and rename it, which is atomic, so readers see whole files only and the last of
    several writers of the same key wins with the same content. What is read is proven again (`Schedule.from_json`). A
    file that cannot be read, does not hold what it says, or holds a schedule that does not do (``fits``) counts as
    absent and is replaced; a folder that cannot be written, or none at all, costs nothing but the next computation.
    """
    name = hashlib.sha256(f"{__version__} {key!r}".encode()).hexdigest()[:32] + ".json"
    with contextlib.suppress(OSError, ValueError):
        found = Schedule.from_json(((folder or cache_folder()) / name).read_text(encoding="utf-8"))
        if fits(found):
            return found
    schedule = compute()
    with contextlib.suppress(OSError):
        _write((folder or cache_folder()) / name, schedule.to_json())
    return schedule


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
