"""Files of a run that may be missing, cut off by a kill, or damaged: read what is there, note the rest.

Every reader takes the list ``notes`` and appends one plain sentence for each thing it could not read.
"""

import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def number(value: object) -> float | None:
    """The finite number a file holds, or None for anything else (NaN, infinities, text, true).

    >>> [number(x) for x in (3, 2.5, float("nan"), float("inf"), "3", True, None, 10**400)]
    [3.0, 2.5, None, None, None, None, None, None]
    """
    if type(value) is float:  # nearly always, and files hold many
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        wide = float(value)
    except OverflowError:
        return None
    return wide if math.isfinite(wide) else None


def read_text(path: Path, *, notes: list[str]) -> str | None:
    """The text of a file; None, with a note, when there is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or device may have no end
            notes.append(f"{path.name} could not be read: it is no regular file.")
            return None
        raw = path.read_bytes()
    except FileNotFoundError:
        notes.append(f"{path.name} is missing.")
        return None
    except OSError as error:
        notes.append(f"{path.name} could not be read: {error.strerror}.")
        return None
    text = raw.decode("utf-8", errors="replace")
    if "\ufffd" in text and b"\xef\xbf\xbd" not in raw:
        notes.append(f"{path.name} is not valid UTF-8; the damaged places are shown as \ufffd.")
    return text


def _parse(text: str) -> object:
    """The value of a JSON text, None where it is not JSON (null says nothing either)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_object(path: Path, *, notes: list[str]) -> Row:
    """The JSON object of a file, empty with a note when there is none."""
    text = read_text(path, notes=notes)
    if text is None:
        return {}
    value = _parse(text)
    if not isinstance(value, dict):
        notes.append(f"{path.name} does not hold a JSON object and was left out.")
        return {}
    return value


def read_rows(path: Path, *, notes: list[str]) -> list[Row]:
    """The objects of a JSON list in a file."""
    text = read_text(path, notes=notes)
    if text is None:
        return []
    value = _parse(text)
    if not isinstance(value, list):
        notes.append(f"{path.name} does not hold a JSON list and was left out.")
        return []
    return objects(value)


def objects(value: object) -> list[Row]:
    """The JSON objects among the items of ``value``, which may be anything.

    >>> objects([{"a": 1}, 2, None]), objects("text")
    ([{'a': 1}], [])
    """
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def read_lines(path: Path, *, notes: list[str]) -> list[Row]:
    """The objects of a JSON-lines file; a cut last line and damaged lines are counted in the notes."""
    text = read_text(path, notes=notes)
    if text is None:
        return []
    lines = [line for line in text.split("\n") if line.strip()]
    values = [_parse(line) for line in lines]
    bad = [i for i, value in enumerate(values) if not isinstance(value, dict)]
    if bad and bad[-1] == len(lines) - 1:
        bad.pop()
        notes.append(f"The last line of {path.name} was cut off and was left out.")
    if bad:
        notes.append(f"{path.name}: {len(bad)} damaged lines were left out, the first is line {bad[0] + 1}.")
    return objects(values)


def read_blocks(path: Path, *, notes: list[str]) -> list[tuple[str, str]]:
    """The (heading, text) blocks of a file whose headings are lines that begin with ``=== ``."""
    text = read_text(path, notes=notes)
    return list(_blocks(text)) if text is not None else []


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    heading, lines = "", list[str]()
    for line in text.split("\n"):
        if line.startswith("=== "):
            if heading or any(lines):
                yield heading, "\n".join(lines).strip("\n")
            heading, lines = line.strip("= \r"), []
        else:
            lines.append(line)
    if heading or any(lines):
        yield heading, "\n".join(lines).strip("\n")
