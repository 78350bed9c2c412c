"""A named place inside a module where a value can be looked at and changed."""

from torch import Tensor, nn


class Tap(nn.Module):
    """The identity, under a name: ``self.maps = Tap()`` makes ``maps`` a name that patterns of ``capture`` can match.

    A ``costly`` tap is one whose value exists only to be looked at: it is made when ``watched``, and matched only by
    patterns that end with its own name.

    >>> import torch
    >>> tap = Tap()
    >>> tap.watched, tap(torch.ones(2)).tolist()
    (False, [1.0, 1.0])
    """

    def __init__(self, *, costly: bool = False) -> None:
        super().__init__()
        self.costly = costly

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return len(self._forward_hooks) > 0

    def forward(self, x: Tensor) -> Tensor:
        """Give ``x`` back; hooks see it."""
        return x
