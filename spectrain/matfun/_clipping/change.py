"""The derivatives of mclip, any number of them.

The first is by divided differences (:mod:`spectrain.matfun._derivative.by_gram`), which need no gap: five products
where the eigenvectors of the function itself were kept. For those of it, mclip is written with the partial isometries
W_c of the singular values that go to one constant c, mclip(X) = X + sum_c (c W_c - W_c W_c^T X), and W_c can be
differentiated again and again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain.matfun._derivative.by_gram import Basis, Quotients, basis_of, change_by_basis, traced
from spectrain.matfun._derivative.derivative import change_of_part, spectral_function
from spectrain.matfun._derivative.differences import Differential, change_of_odd
from spectrain.matfun._proven.cut import absolute, exact_zeros


class Interval(NamedTuple):
    """Where mclip sends singular values: to [lower, upper], and to zero those up to rtol times the largest."""

    lower: float
    upper: float
    rtol: float

    def values(self, S: Tensor) -> tuple[Tensor, Tensor]:
        """Return clip(s) and its slope; at a bound that of the clipped side, at zero that of the odd function."""
        low = max(self.lower, 0.0)
        kept = (self.rtol * S.amax(-1, keepdim=True) < S) & (S > 0)
        free = (low < S) & (self.upper > S) & kept | ((S == 0) & (self.lower <= 0) & (self.upper > 0))
        return torch.where(kept, S.clamp(low, self.upper), 0.0), free.to(S.dtype)

    def quotients(self, S: Tensor, exponent: Tensor) -> Quotients:
        """Return those of clip(s) / s, for S in units of 2^exponent, each by the formula of its side of the bounds."""
        low, high = (absolute(bound, exponent)[:, None] for bound in (max(self.lower, 0.0), self.upper))
        kept = (self.rtol * S.amax(-1, keepdim=True) < S) & (S > 0)
        inverse = torch.where(kept, 1 / torch.where(kept, S, 1.0), 0.0)
        above, below = kept & (high <= S), kept & (low >= S)
        free = (kept & ~above & ~below) | ((S == 0) & (self.lower <= 0) & (self.upper > 0))
        side = torch.where(free, 0, torch.where(above, 1, torch.where(below, 2 - int(self.lower == self.upper), 3)))
        constant = torch.where(above, high, torch.where(below, low, 0.0)) * inverse
        shrunk = torch.where(kept, torch.where(above, high - S, low - S) * inverse, -1.0).masked_fill(free, 0.0)
        phi = torch.where(free, 1.0, constant)
        return Quotients(phi, _differences(S, side, shrunk, constant, inverse))

    def edge(self, S: Tensor, exponent: Tensor) -> Tensor:
        """Return where errors of S count most: ``upper``, or what the smallest that is lifted has above the dropped."""
        high = absolute(self.upper if self.upper > 0 else float("inf"), exponent)
        if self.lower <= 0 and self.rtol == 0:
            return high
        kept = (self.rtol * S.amax(-1, keepdim=True) < S) & (S > 0)
        least, most = torch.where(kept, S, torch.inf).amin(-1), torch.where(kept, 0.0, S).amax(-1)
        return torch.minimum(high, torch.where(least < torch.inf, least - most**2 / least, torch.inf))

    def parts(self) -> Sequence[tuple[float, Callable[[Tensor], Tensor]]]:
        """Return each constant with the choice of the singular values that go to it."""

        def kept(S: Tensor) -> Tensor:
            return (self.rtol * S.amax(-1, keepdim=True) < S) & (S > 0)

        above = (self.upper, lambda S: kept(S) & (self.upper < S))
        below = (self.lower, lambda S: kept(S) & (self.lower > S))
        zero = (0.0, lambda S: ~kept(S) & (S > 0))
        present = (self.upper < float("inf"), self.lower > 0, self.rtol > 0)
        return [part for part, there in zip((above, below, zero), present, strict=True) if there]


def _differences(S: Tensor, side: Tensor, shrunk: Tensor, constant: Tensor, inverse: Tensor) -> Tensor:
    """Return (phi_i - phi_j) / (s_i^2 - s_j^2) for phi = 1 + shrunk, without a difference of nearly equal numbers.

    On one side of the bounds, where f is one constant c or s itself, it is -c / (s_i s_j (s_i + s_j)), with c / s in
    ``constant``, or zero; else s_i - s_j is at least the distance of s_i from a bound, from which shrunk was computed.
    """
    a, b = S[:, :, None], S[:, None, :]
    across = (shrunk[:, :, None] - shrunk[:, None, :]).div_(a - b)
    same = side[:, :, None] == side[:, None, :]
    within = constant[:, :, None] * -inverse[:, None, :]
    return torch.where(same, within, across).div_((a + b).clamp_min_(torch.finfo(S.dtype).tiny))


def clip_basis(X: Tensor, interval: Interval) -> Basis:
    """Return singular values and vectors of X that are fine enough to clip by; exact zeros are exactly zero."""
    found = basis_of(X, interval)
    zero = torch.arange(found.S.shape[-1], device=X.device) < exact_zeros(X)[:, None]
    return found._replace(S=found.S.masked_fill(zero, 0.0))


def change_of_clip(X: Tensor, kept: Tensor | None, D: Tensor, *, interval: Interval) -> Tensor:
    """Return the change of mclip(X); ``kept`` is what was packed of ``clip_basis``, if anything."""
    second = partial(_second, parts=interval.parts())
    return Differential.apply(X, D, kept, partial(_first, interval=interval), second)


def _first(X: Tensor, D: Tensor, kept: Tensor | None, *, interval: Interval) -> Tensor:
    if kept is None and traced():  # a graph cannot ask whether eigenvectors are fine enough
        return change_of_odd(X, D, values=interval.values)
    return change_by_basis(X, D, clip_basis(X, interval).packed() if kept is None else kept, f=interval)


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
