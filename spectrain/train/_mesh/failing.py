"""What ended one rank is said once: by that rank. The others end with the same code and no word. Standard library only.

An error that every rank has, since they compared notes before it was raised, is ``shared``: rank 0 says it.
"""

from typing import TypeVar

_Error = TypeVar("_Error", bound=BaseException)


class Elsewhere(Exception):  # noqa: N818 - what it is: the error is another rank's
    """Another rank says what happened; this one ends with ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"another rank ended the run with exit code {code}, and says why")
        self.code = code


def shared(error: _Error) -> _Error:
    """``error``, which all ranks raise alike."""
    vars(error)["shared"] = True
    return error


def told(error: _Error) -> _Error:
    """``error``, which says itself whose it is: the command prints it on every rank that has one."""
    vars(error)["told"] = True
    return error


def is_shared(error: BaseException) -> bool:
    """Whether all ranks raise this one."""
    return bool(vars(error).get("shared"))


def is_told(error: BaseException) -> bool:
    """Whether this one says whose it is."""
    return bool(vars(error).get("told"))


def exit_code(error: BaseException) -> int:
    """What the command makes of an error: 2 where the call cannot be carried out, 1 where the run failed."""
    code: int = getattr(error, "code", 2 if isinstance(error, (ValueError, TypeError, OSError)) else 1)
    return code


def of_rank(rank: int, error: Exception) -> Exception:
    """The same error, which says whose it is."""
    kind = next((k for k in (OSError, FloatingPointError, ValueError, TypeError) if isinstance(error, k)), RuntimeError)
    name = "" if kind is not RuntimeError else f"{type(error).__name__}: "
    said = kind(f"rank {rank}: {name}{error}")
    said.__cause__ = error
    return told(said)
