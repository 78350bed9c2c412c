"""What happens where a tolerance cannot be proven: an error where it was asked for, else a warning."""

import warnings


def refuse(message: str, *, asked: bool) -> None:
    """Raise ValueError for a tolerance that the caller gave; warn for the default one."""
    if asked:
        raise ValueError(message)
    warnings.warn(message, RuntimeWarning, stacklevel=5)
