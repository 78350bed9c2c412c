"""One process a folder: made by the one that uses it, locked while it is written, free when the process is gone."""

import fcntl
import itertools
import os
import platform
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from spectrain._files.write import sweep

LOCK = ".lock"
"""The file in a claimed folder that is locked; it names the holder, and goes when the claim does."""
_held: dict[Path, tuple[int, int]] = {}  # what this process holds: descriptor and thread
os.register_at_fork(after_in_child=lambda: _close_all())  # a lock belongs to all that share it: children must not


class FolderInUse(OSError):  # noqa: N818 - what it is, not that it is an error
    """Another process writes into the folder."""


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Hold ``folder``, made where there is none, against every other process; a claim within a claim is the same one.

    What writes that were killed have left behind in it is removed. On the way out the lock goes, and with it whatever
    folders were made here and are still empty: a call that was refused leaves nothing. The lock is the system's
    (``flock``), so that it ends with the process, however that ends.

    Raises :class:`FolderInUse` naming the process that holds it, ``OSError`` where the folder cannot be made.
    """
    made = _make(folder)
    try:
        with _locked(folder):
            yield folder
    finally:
        _remove_empty(made)


@contextmanager
def fresh(stem: Path) -> Iterator[Path]:
    """Make and hold a folder that did not exist: ``stem``, or ``stem-2``, ``stem-3``, ... where others have it."""
    made = _make(stem.parent)
    try:
        for folder in itertools.chain([stem], (stem.with_name(f"{stem.name}-{i}") for i in itertools.count(2))):
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            break
        made.append(folder)
        with _locked(folder):
            yield folder
    finally:
        _remove_empty(made)


@contextmanager
def named_folder(given: Path | str | None, slug: str) -> Iterator[Path]:
    """Hold the folder ``given``; where none is, a fresh one in runs/, named by the date and ``slug``."""
    with claimed(Path(given)) if given else fresh(Path(f"runs/{datetime.now():%Y-%m-%d_%H%M%S}-{slug}")) as folder:
        yield folder


def _make(folder: Path) -> list[Path]:
    """Make the folder and those above it; return those that were not there, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    there = (missing[0] if missing else folder).absolute()
    there = there.parent if missing else there
    if not there.is_dir():
        raise FileExistsError(f"the folder {folder} cannot be made: {there} is a file; choose another --out-dir")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written; choose another --out-dir")
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        try:
            folder.rmdir()
        except OSError:  # something is in it, or it is gone
            return


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    key = folder.resolve()
    if _held.get(key, (0, 0))[1] == threading.get_ident():
        yield
        return
    descriptor = _lock(folder)
    _held[key] = descriptor, threading.get_ident()
    try:
        _sweep(folder)
        yield
    finally:
        if _held.pop(key, None):  # none of it in a process that was forked meanwhile
            if _is(folder / LOCK, descriptor):
                (folder / LOCK).unlink()
            os.close(descriptor)


def _lock(folder: Path) -> int:
    """The descriptor of the folder's lock, once this process alone has it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)  # the holder before removes one that it left empty
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise FolderInUse(
                f"{folder} is in use by {holder}, which writes into it. Wait for its end, or give another folder."
            ) from None
        except OSError as error:  # a file system without locks: say so, and rely on the user
            warnings.warn(f"{folder} cannot be locked ({error.strerror}): start no other run in it.", stacklevel=2)
        if _is(folder / LOCK, descriptor):  # else the holder before removed the file between our two calls
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
            return descriptor
        os.close(descriptor)


def _is(file: Path, descriptor: int) -> bool:
    try:
        there, ours = os.stat(file, follow_symlinks=False), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed left behind; one that still writes holds a lock of its own."""
    sweep(folder)
    sweep(folder / "checkpoints")


def _close_all() -> None:
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()
