"""Values of a ``config.json``, each refused by its name where it cannot be."""

import math
from typing import Any

_MOST, _MOST_BLOCKS = 2**31 - 1, 10_000


def check_whole(config: dict[str, Any], name: str, least: int = 1) -> None:
    """``ValueError`` unless the value is a whole number of at least ``least``."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"config.json: {name} must be a whole number of at least {least}, got {value!r:.40}.")
    most = _MOST_BLOCKS if name == "num_hidden_layers" else _MOST
    if value > most:
        raise ValueError(f"config.json: {name} must be at most {most}, got {value!r:.40}.")


def check_whole_or_none(config: dict[str, Any], *names: str) -> None:
    """As :func:`check_whole` for those that are there."""
    for name in names:
        if config.get(name) is not None:
            check_whole(config, name)


def positive(name: str, value: object, *, zero: bool = False) -> float:
    """The value as a double, if it is a finite number above 0."""
    real = isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300)
    number = float(value) if real else math.nan  # type: ignore[arg-type]
    if not (number >= 0 if zero else number > 0) or number == math.inf:
        at_least = "finite and 0 or more" if zero else "finite and positive"
        raise ValueError(f"config.json: {name} must be {at_least}, got {value!r:.40}.")
    return number
