"""What a JSON file says, value by value: numbers that are numbers, lists, and objects with just the names expected."""

import math
from typing import Any


def number(value: Any, name: str, *, least: float | int = -math.inf, finite: bool = True) -> float:
    """``value`` as a double, if it is a number that doubles hold, at least ``least``. Raises ValueError.

    >>> number(2, "price", least=0)
    2.0
    """
    try:
        found = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (OverflowError, TypeError):
        found = math.nan
    if not found >= least or (finite and math.isinf(found)):
        bounds = f" of at least {least:g}" if least > -math.inf else ""
        raise ValueError(f"{name} must be a {'finite ' if finite else ''}number{bounds}, got {_short(value)}")
    return found


def whole(value: Any, name: str, *, least: int) -> int:
    """``value``, if it is an integer of at least ``least``. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {_short(value)}")
    return value


def row(value: Any, name: str) -> list[Any]:
    """``value``, if it is a list. Raises ValueError."""
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {_short(value)}")
    return value


def table(value: Any, names: set[str]) -> dict[str, Any]:
    """``value``, if it is an object with just these names. Raises ValueError."""
    if not isinstance(value, dict) or set(value) != names:
        found = sorted(value) if isinstance(value, dict) else _short(value)
        raise ValueError(f"an object with {', '.join(sorted(names))} is needed, got {_short(found)}")
    return value


def _short(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
