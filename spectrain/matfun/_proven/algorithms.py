"""The algorithms for msign within a tolerance, in the order in which they prove more; a new one is a line here."""

from collections.abc import Sequence

from spectrain.matfun._proven.algorithm import Algorithm
from spectrain.matfun._proven.decomposition import EIGH, EIGH_FLOAT32, EIGH_MIXED, SVD
from spectrain.matfun._proven.halley import HALLEY
from spectrain.matfun._proven.iterated import ITERATION
from spectrain.matfun._proven.jacobi import JACOBI

ALGORITHMS: dict[str, Algorithm] = {a.name: a for a in (ITERATION, EIGH_FLOAT32, EIGH_MIXED, EIGH, HALLEY, JACOBI, SVD)}
"""By name; the last one takes every matrix."""

LAST = SVD
_BETWEEN = " > "


def of_method(method: str) -> list[Algorithm]:
    """Return the algorithms behind a caller's ``method=``, the widest first; ValueError where there is none.

    >>> [a.name for a in of_method("qdwh")], [a.name for a in of_method("eigh")]
    (['qdwh float64', 'svd float64'], ['eigh float64'])
    """
    found = [a for a in ALGORITHMS.values() if a.method == method]
    if not found:
        raise ValueError(f"no algorithm for msign is called {method!r}; there are {', '.join(methods())}")
    return [found[-1], LAST] if found[-1].full_rank else [found[-1]]


def methods() -> tuple[str, ...]:
    """What callers call them."""
    return tuple(dict.fromkeys(a.method for a in ALGORITHMS.values()))


def by_names(names: Sequence[str]) -> list[Algorithm]:
    """Return the algorithms of these names."""
    return [ALGORITHMS[name] for name in names]


def in_words(names: Sequence[str]) -> str:
    """Return names as one string, for an operator of torch takes no list of them."""
    return _BETWEEN.join(names)


def from_words(text: str) -> list[Algorithm]:
    """Return the algorithms of ``in_words``, or those of a method."""
    names = text.split(_BETWEEN)
    return by_names(names) if names[0] in ALGORITHMS else of_method(text)
