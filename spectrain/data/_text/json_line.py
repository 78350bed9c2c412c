"""One line of JSON lines: an object, or an error that names file, line and field."""

import reprlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

from spectrain._files.read import NOT_FINITE, parse_json
from spectrain.data._text.open import UnusableFileError

_NAMES = 10  # fields that an error lists


def parse(line: bytes, *, where: str, holds: str) -> dict[str, Any]:
    """The object in a line; ``where`` names file and line, ``holds`` says what a line is to be."""
    try:
        row = parse_json(line.decode("utf-8"), constants=NOT_FINITE)  # which stand in fields that are not read here
    except UnicodeDecodeError as error:
        raise UnusableFileError("not UTF-8", f"{where} is not UTF-8: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise UnusableFileError("not JSON", f"{where} is {error}; {holds}") from None
    if not isinstance(row, dict):
        raise UnusableFileError("not JSON", f"{where} holds a {type(row).__name__}; {holds}")
    return row


def string(value: object, field: str, *, where: str, names: Iterable[str], advice: str) -> str:
    """``value`` where it is a string that UTF-8 can say."""
    if not isinstance(value, str):
        got = f"{reprlib.repr(value):.60}" if field in names else f"only {list_names(names)}"
        raise UnusableFileError("without the field", f"{where}: {field!r} must be a string, got {got}; {advice}")
    if value.isascii():
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(value[error.start])
        raise UnusableFileError(
            "not UTF-8",
            f"{where}: {field!r} holds {half} at character {error.start}, half of a surrogate pair, which is no text; "
            "write both halves, or U+FFFD for it",
        ) from None
    return value


def list_names(names: Iterable[str]) -> str:
    """The first names, each at most 40 characters long."""
    first = [f"{name!r:.40}" for name in islice(names, _NAMES + 1)]
    return ", ".join(first[:_NAMES]) + (", ..." if len(first) > _NAMES else "") if first else "nothing"
