"""Computed schedules kept in the user's cache folder, safe under concurrent writers."""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from spectrain import __version__
from spectrain.approx._schedule import Schedule


def cache_folder() -> Path:
    """The user's cache folder for this package: XDG_CACHE_HOME, Library/Caches or LOCALAPPDATA."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "spectrain" / "schedules"


def cached(key: object, compute: Callable[[], Schedule], *, folder: Path | None = None) -> Schedule:
    """The schedule of this key from the folder, or computed and put there.

    Writers make a temporary file and rename it, which is atomic, so readers see whole files only and the last of
    several writers of the same key wins with the same content. A file that cannot be read counts as absent; a folder
    that cannot be written costs nothing but the next computation.
    """
    name = hashlib.sha256(f"{__version__} {key!r}".encode()).hexdigest()[:32]
    path = (folder or cache_folder()) / f"{name}.json"
    with contextlib.suppress(OSError, ValueError):
        return Schedule.from_json(path.read_text())
    schedule = compute()
    with contextlib.suppress(OSError):
        _write(path, schedule.to_json())
    return schedule


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
