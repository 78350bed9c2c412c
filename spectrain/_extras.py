"""Packages that only a part of spectrain needs: whoever misses one is told what to install. Standard library only."""

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "scipy": ("SciPy", "scipy"),
    "tyro": ("tyro", "train"),
    "rich": ("rich", "train"),
    "safetensors": ("safetensors", "train"),
    "tokenizers": ("tokenizers", "train"),
    "plotly": ("plotly", "train"),
    "sklearn": ("scikit-learn", "sklearn"),
    "PIL": ("Pillow", "images"),
    "gguf": ("gguf", "gguf"),
}
"""By module: the name of its package, and the extra of spectrain that brings it."""


class MissingPackageError(ModuleNotFoundError):
    """A package is not installed; the message says what wants it and what to install."""


@contextmanager
def wanted_by(who: str) -> Iterator[None]:
    """Where a module of one of EXTRAS is not found, say that ``who`` (of several, the outermost) wants it.

    >>> with wanted_by("lowrank.svd"):
    ...     raise ModuleNotFoundError("No module named 'scipy'", name="scipy.linalg")
    Traceback (most recent call last):
    spectrain._extras.MissingPackageError: lowrank.svd needs SciPy, which is not installed: pip install \
'spectrain[scipy]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        package, extra = EXTRAS[module]
        said = f"{who} needs {package}, which is not installed: pip install 'spectrain[{extra}]'"
        raise MissingPackageError(said, name=error.name) from error
