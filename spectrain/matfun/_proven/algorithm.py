"""What an algorithm for msign is: a name, words, a price, where it fits, and a computation that proves its result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._entry.input import Real
from spectrain.matfun._proven.cut import Cut

OVERHEAD = 3e-4  # seconds a batch of calls to torch that do not depend on the size


class Sign(NamedTuple):
    """msign of a batch in the working dtype, with what is known about it."""

    Y: Float[Tensor, "b k l"]
    error: Float[Tensor, " b"]  # bound on ||Y - msign(X)||_F / ||msign(X)||_F at the rank stated
    rank: Float[Tensor, " b"]
    smallest: Float[Tensor, " b"]  # of the singular values that count as nonzero, relative to the largest
    undecided: Float[Tensor, " b"]  # how many singular values are within their errors of the cut


class Asked(NamedTuple):
    """What a price depends on: the short side, the long one over it, and the tolerance."""

    k: int
    aspect: float
    tol: float

    @property
    def expected(self) -> float:
        """The least singular value of a random matrix over a bound on its largest, by Marchenko and Pastur."""
        root: float = self.aspect**0.5
        return (root - 1) / (root + 1) / 1.15


@runtime_checkable
class Costs(Protocol):
    """Seconds of products and decompositions on a machine."""

    def product(self, dtype: str, k: int, count: Real) -> float:
        """Seconds of ``count`` products of k x k matrices."""

    def decomposition(self, name: str, dtype: str, k: int) -> float:
        """Seconds of a decomposition of a k x k matrix."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to msign within a tolerance; those of `spectrain.matfun._proven.algorithms` are tried.

    ``run(X, cut, tol)`` takes wide matrices whose largest entries are about 1, of any dtype, and returns a `Sign` whose
    ``error`` it has proven, inf where it has not.
    ``price(asked, costs)`` is in seconds for one matrix of a batch, None where tol cannot be proven for a random one.
    ``fits(dtype, threshold)`` says whether it serves input of a dtype and, with a threshold, singular values to drop.
    ``method`` is what a caller calls it; one that needs ``full_rank`` is followed by the SVD then. ``backup`` marks
    those that follow where the first of a plan proves nothing.
    """

    name: str
    method: str
    what: str
    run: Callable[[Tensor, Cut, Real], Sign]
    price: Callable[[Asked, Costs], float | None]
    fits: Callable[[torch.dtype, bool], bool] = lambda dtype, threshold: True
    full_rank: bool = False
    backup: bool = False
