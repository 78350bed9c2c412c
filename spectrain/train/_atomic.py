"""Files that are there whole or not at all: temporary file, fsync, rename."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace the file at ``path`` by ``text``; after a crash either the old or the new one stands there."""
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_file(path: Path, fill: Callable[[Path], object]) -> None:
    """Replace the file at ``path`` by what ``fill(temporary)`` writes."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        fill(temporary)
        sync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, f"{error.strerror}, writing {path}") from error
        raise
    sync(path.parent)


def write_json(path: Path, value: object) -> None:
    """Replace the file at ``path`` by ``value`` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, default=float) + "\n")


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder ``path`` by ``fill(temporary)``; a reader never sees it half full."""
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Force a file or a folder's list of names onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
