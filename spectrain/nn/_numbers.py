"""Numbers of a module's configuration that would make NaN, or another model, without a word."""

import math
import numbers

_MOST = 2**31 - 1


def check_sizes(owner: str, **sizes: object) -> None:
    """Refuse by name what is no whole number from 1 to 2^31 - 1; None stands for one that is filled in.

    Raises ``TypeError`` for another type, True among them, and ``ValueError`` for another number.
    """
    for name, size in sizes.items():
        if size is None:
            continue
        if isinstance(size, bool) or not isinstance(size, numbers.Integral):
            raise TypeError(f"{owner}: {name} must be a whole number, got {size!r}.")
        if not 1 <= int(size) <= _MOST:
            bound = "at least 1" if int(size) < 1 else f"at most {_MOST}"
            raise ValueError(f"{owner}: {name} must be {bound}, got {size}.")


def check_positive(owner: str, **numbers: float | int | None) -> None:
    """``ValueError`` naming a number that is not finite and above 0; None stands for a default."""
    for name, number in numbers.items():
        if number is not None and not 0 < number < math.inf:
            raise ValueError(f"{owner}: {name} must be positive and finite, got {number}.")


def check_not_negative(owner: str, **numbers: float | int | None) -> None:
    """``ValueError`` naming a number that is not finite and 0 or above; None stands for a default."""
    for name, number in numbers.items():
        if number is not None and not 0 <= number < math.inf:
            raise ValueError(f"{owner}: {name} must be 0 or more and finite, got {number}.")
