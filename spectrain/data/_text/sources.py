"""From the paths somebody types to the files that are read, each once and under a name of its own."""

import dataclasses
import difflib
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrain.data._text.document import DataError
from spectrain.data._text.glob import find_paths, fixed_part
from spectrain.data._text.open import refuse_nothing
from spectrain.data._text.records import is_saved_dataset, load_saved


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read; one that was named must be good, one that was found is skipped if it is not."""

    path: Path
    name: str
    named: bool = False
    dataset: Any = None


def find_sources(paths: Sequence[str | Path | Any], skipped: Counter[str]) -> list[Source]:
    """The files and datasets at ``paths``, in the order given; what was found and cannot be one is counted.

    Raises DataError for a path that is empty, is not there or matches nothing, TypeError for what is no path.
    """
    return _unique([source for i, path in enumerate(paths) for source in _sources(path, i, skipped)])


def _sources(given: str | Path | Any, i: int, skipped: Counter[str]) -> list[Source]:
    if not isinstance(given, str | Path):
        return [_of_dataset(given, type(given).__name__, i)]
    refuse_nothing(given)
    path = Path(os.path.expanduser(given))
    if os.path.isdir(path) and is_saved_dataset(path):
        return [_of_dataset(load_saved(path), path.name, i)]
    if os.path.isdir(path):
        return list(_in_folder(path, path, skipped))
    if os.path.exists(path):
        return [Source(path, _readable(path.name), named=True)]
    if glob.has_magic(str(path)):
        return _match(path, skipped)
    if os.path.islink(path):
        raise DataError(f"{path} is a link to {os.readlink(path)!r}, where nothing is; mend the link or name the file")
    raise DataError(f"{path} does not exist; {_nearest(path)}")


def _of_dataset(dataset: Any, name: str, i: int) -> Source:
    if not hasattr(dataset, "column_names"):
        raise TypeError(f"read_documents takes paths and Hugging Face datasets, got {type(dataset).__name__}")
    return Source(Path(f"{name}-{i}"), name, named=True, dataset=dataset)


def _match(pattern: Path, skipped: Counter[str]) -> list[Source]:
    matches = find_paths(pattern)
    if not matches:
        raise DataError(f"nothing matches {pattern}; * stays in one folder, ** goes through subfolders")
    fixed = fixed_part(pattern)
    found: list[Source] = []
    for match in matches:
        if not os.path.isdir(match):
            found += _find(match, fixed, skipped)
        elif "**" not in pattern.parts:
            found += _in_folder(match, fixed, skipped)
    return found


def _in_folder(folder: Path, root: Path, skipped: Counter[str]) -> Iterator[Source]:
    def closed(_: OSError) -> None:
        skipped["unreadable"] += 1

    for where, folders, files in os.walk(folder, onerror=closed):
        skipped["hidden"] += sum(name.startswith(".") for name in [*folders, *files])
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield from _find(Path(where, name), root, skipped)


def _find(path: Path, root: Path, skipped: Counter[str]) -> list[Source]:
    """A file that was found, not named: pipes, devices and links to nowhere are none."""
    if os.path.isfile(path):
        return [Source(path, _readable(path.relative_to(root).as_posix()))]
    skipped["unreadable"] += 1
    return []


def _readable(name: str) -> str:
    r"""A name as text: bytes that are no UTF-8 become ``\xe9``, so that it can be printed, written and hashed."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _unique(sources: list[Source]) -> list[Source]:
    """Each file once (the named one wins), and each under a name of its own."""
    once: dict[str, Source] = {}
    for source in sorted(sources, key=lambda source: not source.named):
        once.setdefault(os.path.realpath(source.path), source)
    count = Counter(source.name for source in once.values())
    return [
        source if count[source.name] == 1 else dataclasses.replace(source, name=_readable(source.path.as_posix()))
        for source in once.values()
    ]


def _nearest(path: Path) -> str:
    """Say what does exist: the closest name in the deepest folder that is there."""
    folder = next(parent for parent in path.absolute().parents if os.path.isdir(parent))
    wanted = path.absolute().relative_to(folder).parts[0]
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return f"the folder {folder} cannot be listed"
    close = difflib.get_close_matches(wanted, names, n=1) or difflib.get_close_matches(wanted.lower(), names, n=1)
    if close:
        return f"did you mean {folder / close[0]}?"
    return f"{folder} holds {', '.join(names[:5]) or 'nothing'}{', ...' if len(names) > 5 else ''}"
