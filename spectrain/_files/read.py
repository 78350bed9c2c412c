"""The one way JSON is read: a regular file of sane size, in UTF-8, that says one thing, and says it in JSON.

Python's own reader takes NaN, takes the last of two values of one name, makes infinity of 1e999, runs out of stack in
deep nesting, and a FIFO nobody writes to holds it for ever. Here each of these is one line that names the file.
"""

import functools
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

MOST_BYTES = 2**26
"""Of one file: 64 MiB. The largest that is read here, an index of weights, has a few."""
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""What Python's writers say for numbers that JSON has not."""
_MARK = "\ufeff"


def read_object(path: Path, *, what: str, constants: Collection[str] = ()) -> dict[str, Any]:
    """The JSON object in a file; ``what`` says what the file is to be, such as "a run's config.json".

    Raises ``ValueError`` as :func:`read_json` does, also for JSON that is no object.
    """
    value = read_json(path, what=what, constants=constants)
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {_kind(value)}. Give {what}.")
    return value


def read_json(path: Path, *, what: str, constants: Collection[str] = ()) -> Any:
    """The value in a JSON file; ``what`` says what the file is to be.

    Raises ``ValueError`` that names the file, says what is wrong with it and what is needed: no regular file, larger
    than 64 MiB, not UTF-8, and what :func:`parse_json` refuses. What cannot be opened is the ``OSError`` of the system.
    """
    try:
        return _value(_content(path), constants)
    except ValueError as error:
        raise ValueError(f"{path} is {error}. Give {what}.") from None


def read_rows(path: Path, *, what: str, constants: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """The objects in the lines of a file, however many; ``ValueError`` names the first line that is bad."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = _value(line, constants)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is {error}. Give {what}.") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number} must hold a JSON object, got {_kind(row)}. Give {what}.")
            yield row


def _value(raw: bytes, constants: Collection[str]) -> Any:
    """The value in UTF-8 and JSON; ``ValueError`` whose words go on after "is"."""
    try:
        value = parse_json(raw.decode("utf-8"), constants=constants)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    if b"\\u" in raw:
        _refuse_half_characters(value)
    return value


def parse_json(text: str, *, constants: Collection[str] = ()) -> Any:
    """The value of a JSON text.

    Raises ``ValueError`` whose words go on after "is": what is not JSON, an object with two values of one name, nesting
    too deep to be read, a number that doubles do not hold, and the three of ``NOT_FINITE``, which JSON has not.
    ``constants`` are those of the three that are read all the same; with Infinity numbers beyond doubles are infinite.

    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> parse_json("[1e999]")
    Traceback (most recent call last):
    ValueError: not JSON that can be trusted: 1e999 is beyond the largest double
    """
    if text.startswith(_MARK):
        raise ValueError("not plain JSON: it begins with a byte order mark; save it as UTF-8 without one")
    try:
        return _decoder(tuple(constants)).decode(text)
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None


def _doubtful(why: str) -> ValueError:
    """The error for JSON by its grammar that is not to be believed all the same."""
    return ValueError(f"not JSON that can be trusted: {why}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise _doubtful(f"{twice!r:.60} stands twice in one object, and either could be meant")
    return found


@functools.cache
def _decoder(constants: tuple[str, ...]) -> json.JSONDecoder:
    """The reader of these constants, made once: to make one takes longer than to read a line."""
    return json.JSONDecoder(
        object_pairs_hook=_object,
        parse_constant=_constant_of(constants),
        parse_int=_int,
        parse_float=None if "Infinity" in constants else _float,
    )


def _constant_of(allowed: Collection[str]) -> Callable[[str], float]:
    def constant(name: str) -> float:
        if name not in allowed:
            raise _doubtful(f"{name} is not a number")
        return float(name)

    return constant


def _int(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python reads some thousands of digits
        raise _doubtful("a whole number in it is too long to be read") from None


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _doubtful(f"{digits:.60} is beyond the largest double")
    return value


def _content(path: Path) -> bytes:
    """The bytes of a regular file, opened without waiting for anybody. ValueError for other kinds, and for too many."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise ValueError(f"{_KINDS.get(stat.S_IFMT(found.st_mode), 'a device')}, not a file")
    with open(descriptor, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"too large: {found.st_size} bytes, and at most {MOST_BYTES} are read")
    return content


_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def _refuse_half_characters(value: Any) -> None:
    """ValueError for an escape such as \\ud800 alone, half of a character, which no file and no screen takes."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None
    except UnicodeEncodeError as error:
        raise _doubtful(f"{error.object[error.start]!a} is half of a surrogate pair, which is no text") from None


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
