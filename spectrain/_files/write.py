"""The one way a file is written: whole or not at all, by nobody else's name, with the mode that ``open`` would give."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, so nothing is swept either
    fcntl = None  # type: ignore[assignment]

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
_DEBRIS = re.compile(r"\.spectrain-[0-9a-f]{32}\.partial")


def write_text(path: Path, text: str) -> None:
    """Replace the file at ``path`` by ``text`` in UTF-8; after a crash either the old or the new one stands there."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at ``path`` by ``content``."""
    write_file(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: object) -> None:
    """Replace the file at ``path`` by ``value`` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, default=float) + "\n")


def write_file(path: Path, fill: Callable[[Path], object]) -> None:
    """Replace the file at ``path`` by what ``fill(temporary)`` writes.

    ``temporary`` stands in a new folder beside ``path`` that only this user can enter and whose name nobody can guess,
    so no link planted beforehand is followed. A file that was there keeps its mode; a new one has the mode that
    ``open`` gives under the umask of the process, whatever ``fill`` made of it. A link at ``path`` is replaced, not
    followed. What was left by writers that were killed goes (:func:`sweep`).

    Raises ``OSError`` naming ``path``: the disk is full, the folder is missing or closed, or ``path`` is there and no
    regular file (a folder, ``/dev/null``), which must not be replaced. The old file is then as it was.
    """
    path = Path(path)
    with _workshop(path) as place:
        temporary = place / "content"
        mode = _kept_mode(path, _mode_of_new(temporary))
        fill(temporary)
        sync(temporary)
        temporary.chmod(mode)
        os.replace(temporary, path)
        sync(path.parent)


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Make the folder ``path`` by ``fill(temporary)``; a reader never sees it half full.

    The folders above it are made; one that was there is moved away and removed afterwards. Its files have the mode
    that ``open`` gives. Raises ``OSError`` as :func:`write_file` does.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(path, folder=True) as place:
        temporary = place / "content"
        temporary.mkdir()
        mode = _mode_of_new(place / "plain")
        fill(temporary)
        for inside in sorted(temporary.rglob("*"), reverse=True):
            sync(inside)
            if not inside.is_dir():
                inside.chmod(mode)
        sync(temporary)
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, place / "old")
        os.replace(temporary, path)
        sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder; a reader sees it whole or not at all, and what a kill leaves is swept by the next writer."""
    path = Path(path)
    with _workshop(path, folder=True) as place, contextlib.suppress(FileNotFoundError):
        os.replace(path, place / "old")
        sync(path.parent)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in ``folder``; never what is being written.

    A writer holds a lock on its temporary folder, which the system drops when the process ends however it ends. Only
    what can be locked is removed; a file system without locks keeps its debris.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if _DEBRIS.fullmatch(entry.name)]
        for debris in found:
            with contextlib.suppress(OSError), _locked(debris, wait=False) as held:
                if held:
                    shutil.rmtree(debris, ignore_errors=True)


def sync(path: Path) -> None:
    """Force a file or a folder's list of names onto the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folder
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _workshop(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """A new folder beside ``path``, locked while this lasts and then removed; errors of the system name ``path``."""
    try:
        _refuse_other_kinds(path, folder=folder)
        sweep(path.parent)
        with _new_folder(path.parent) as place:
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        if error.errno is None or (error.filename is not None and not _DEBRIS.search(str(error.filename))):
            raise
        raise OSError(error.errno, f"{error.strerror}, writing", str(path)) from error


def _refuse_other_kinds(path: Path, *, folder: bool) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:  # nothing there, or a link to nothing: replaced
        return
    if folder and not stat.S_ISDIR(mode):
        raise OSError(errno.ENOTDIR, "is there and no folder; name another", str(path))
    if not folder and not stat.S_ISREG(mode):
        code, what = (errno.EISDIR, "a folder") if stat.S_ISDIR(mode) else (errno.EINVAL, "no regular file")
        raise OSError(code, f"is {what} and cannot be replaced by a file; name another", str(path))


@contextlib.contextmanager
def _new_folder(parent: Path) -> Iterator[Path]:
    """A folder of our own that nobody sweeps: made, locked, and made again if it was swept in between."""
    while True:
        place = parent / f".spectrain-{secrets.token_hex(16)}.partial"
        place.mkdir(mode=0o700)
        with _locked(place, wait=True) as held:
            if held or fcntl is None or place.exists():
                yield place
                return


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a folder; whether we do, and whether it is still the one at that name."""
    if fcntl is None:
        yield False
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_LINK)
    except FileNotFoundError:  # swept
        yield False
        return
    try:
        yield _lock(descriptor, folder, wait=wait)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.lstat(folder))
    except OSError:  # held by another, swept, or a file system without locks
        return False


def _mode_of_new(file: Path) -> int:
    """Make an empty file that its owner can write; the mode that ``open`` gave it."""
    os.close(os.open(file, _NEW, 0o666))
    mode = stat.S_IMODE(os.lstat(file).st_mode)
    file.chmod(0o600)  # a umask may forbid it to its owner
    return mode


def _kept_mode(path: Path, new: int) -> int:
    """The mode of the file that is replaced, else that of the new one."""
    try:
        there = os.lstat(path).st_mode
    except FileNotFoundError:
        return new
    return stat.S_IMODE(there) if stat.S_ISREG(there) else new
