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
    """The user's cache folder for this package: XDG_CACHE_HOME, Library/Caches or LOCALAPPDATA.

    Raises OSError where there is none: no such variable, no HOME, and a user id without an entry.
    """
    named = {"darwin": None, "win32": os.environ.get("LOCALAPPDATA")}.get(
        sys.platform, os.environ.get("XDG_CACHE_HOME")
    )
    usual = {"darwin": ("Library", "Caches"), "win32": ("AppData", "Local")}.get(sys.platform, (".cache",))
    try:
        base = Path(named) if named else Path.home().joinpath(*usual)
    except RuntimeError as problem:
        raise FileNotFoundError("there is no home folder to cache in: set XDG_CACHE_HOME or HOME") from problem
    return base / "spectrain" / "schedules"


def cached(
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
    name = hashlib.sha256(f"{__version__} {key!r}".encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, ValueError):
        found = Schedule.from_json(((folder or cache_folder()) / f"{name}.json").read_text(encoding="utf-8"))
        if fits(found):
            return found
    schedule = compute()
    with contextlib.suppress(OSError):
        _write((folder or cache_folder()) / f"{name}.json", schedule.to_json())
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
