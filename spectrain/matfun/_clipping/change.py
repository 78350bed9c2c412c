"""The derivatives of mclip, any number of them.

The first is by divided differences (:mod:`spectrain.matfun._derivative.differences`), which need no gap. For those of
it, mclip is written with the partial isometries W_c of the singular values that go to one constant c,
mclip(X) = X + sum_c (c W_c - W_c W_c^T X), and W_c can be differentiated again and again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain.matfun._derivative.derivative import change_of_part, spectral_function
from spectrain.matfun._derivative.differences import Differential, change_of_odd


class Interval(NamedTuple):
    """Where mclip sends singular values: to [lower, upper], and to zero those up to rtol times the largest."""

    lower: float
    upper: float
    rtol: float

    def values(self, S: Tensor) -> tuple[Tensor, Tensor]:
        """Return clip(s) and its slope; at a bound from within, at zero that of the continuation as an odd function."""
        low = max(self.lower, 0.0)
        kept = (self.rtol * S.amax(-1, keepdim=True) < S) & (S > 0)
        free = ((low < S) & (self.upper > S) & kept) | ((S == 0) & (self.lower <= 0))
        return torch.where(kept, S.clamp(low, self.upper), 0.0), free.to(S.dtype)

    def parts(self) -> Sequence[tuple[float, Callable[[Tensor], Tensor]]]:
        """Return each constant with the choice of the singular values that go to it."""

        def kept(S: Tensor) -> Tensor:
            return (self.rtol * S.amax(-1, keepdim=True) < S) & (S > 0)

        above = (self.upper, lambda S: kept(S) & (self.upper < S))
        below = (self.lower, lambda S: kept(S) & (self.lower > S))
        zero = (0.0, lambda S: ~kept(S) & (S > 0))
        present = (self.upper < float("inf"), self.lower > 0, self.rtol > 0)
        return [part for part, there in zip((above, below, zero), present, strict=True) if there]


def change_of_clip(X: Tensor, Y: Tensor, D: Tensor, *, interval: Interval) -> Tensor:
    """Return the change of mclip(X)."""
    second = partial(_second, parts=interval.parts())
    return Differential.apply(X, D, partial(change_of_odd, values=interval.values), second)


def _second(X: Tensor, D: Tensor, g: Tensor, *, parts: Sequence) -> Tensor:
    if X.shape[-2] > X.shape[-1]:
        return _second(X.mT, D.mT, g.mT, parts=parts).mT.contiguous()
    return torch.func.vjp(lambda A: _change_by_parts(A, D, parts), X)[1](g)[0]


def _change_by_parts(X: Tensor, D: Tensor, parts: Sequence) -> Tensor:
    """Return D + sum_c (c dW - dW W^T X - W dW^T X - W W^T D), for wide X."""
    change = D
    for constant, choice in parts:
        (W,) = spectral_function(X, partial(_part, choice=choice), change_of_part)
        dW = change_of_part(X, W, D)
        change = change + constant * dW - dW @ (W.mT @ X) - W @ (dW.mT @ X + W.mT @ D)
    return change


def _part(X: Tensor, *, choice: Callable[[Tensor], Tensor]) -> tuple[Tensor]:
    """Return W = U_s V_s^T over the singular values that ``choice`` picks."""
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    return ((U * choice(S)[:, None, :]) @ Vh,)
