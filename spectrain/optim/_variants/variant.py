"""A variant of Muon's update as one object: what it keeps of each parameter, what it does before and after msign."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from spectrain.optim._layout.held import AbstractHeld

Kept = Literal["count", "entries", "lines"]


class Turn(NamedTuple):
    """The parameters that one variant moves in a step, on this rank or with other ranks; one entry each in the lists.

    ``tensors`` are before msign the momentum averages, contiguous or not and not to be written to; after it updates,
    factor of the learning rate included, contiguous and to be changed in place. ``grads`` are in the dtype of the
    averages, and empty after msign; ``states`` are this rank's part. ``advance`` is false where somebody looks at the
    last step again (``optim.spectra``): the state has taken it in already and is to be left alone.
    """

    held: AbstractHeld
    tensors: Sequence[Tensor]
    grads: Sequence[Tensor]
    states: Sequence[Mapping[str, Tensor]]
    beta2: Sequence[float | int]
    advance: bool = True


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to change what msign is taken of, or what it gives.

    - ``name``: as users write it in ``variant=``. ``words``: what is subtracted, for people.
    - ``keeps``: names of what is remembered beside the momentum, and what of: a ``count`` of steps, all ``entries``
      (on the ranks as the parameter is), or the ``lines`` of ``held.crossing`` (whole on every rank). Never negative.
    - ``before``: a function from momentum averages to what msign is taken of. Its size does not matter.
    - ``after``: a function that changes updates in place and leaves the Frobenius norm of each matrix as it is, so that
      every ``scale=`` keeps its meaning and ``check_updates`` its bound.
    - ``squares``: gradients are squared, and those whose squares overflow are refused or limited before.
    - ``entrywise``: ``before`` needs no matrix, and is done for what moves by sign or by rows, too.

    Both functions hold in a graph (no value is read) and over ranks: what concerns more than an entry goes through
    ``turn.held``, which sums over the ranks that share a matrix.
    """

    name: str
    words: str
    keeps: Mapping[str, Kept] = field(default_factory=dict)
    before: Callable[[Turn], Sequence[Tensor]] | None = None
    after: Callable[[Turn], None] | None = None
    squares: bool = False
    entrywise: bool = False
