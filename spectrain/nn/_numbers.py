"""Numbers of a module's configuration that would make NaN, or another model, without a word."""

import math


def check_sizes(owner: str, **sizes: int | None) -> None:
    """``ValueError`` naming a size below 1; None stands for one that is filled in."""
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{owner}: {name} must be at least 1, got {size}.")


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
