"""Bounds on the largest singular value of each matrix, held by the least change that holds them (article 11729).

The nearest matrix of spectral norm at most t is mclip(W, 0, t): singular values above t become t, the others stay. With
t = bound sqrt(out / in) of each logical matrix (kexue.fm/archives/11729):

    post-clip:  W <- mclip(W - lr U; t)
    pre-decay:  W <- mclip(W; (1 - a) ||W||_2) - lr U,    a = lr s / t,  s the factor of the update's scale

Where msign has singular values of at most 1, lr U has norm lr s = a t, and under pre-decay ||W|| <= (1 - a) ||W|| + a t
never passes max(||W||, t): the decay of article 10648 for all singular values that need it, instead of the first.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spectrain import matfun
from spectrain.optim._step.settings import Settings


def post_clip(weights: list[Tensor], settings: Settings) -> None:
    """Clip what is above the bound, in place; what is below it is not touched."""
    for W in weights:
        _change(W, settings, _clipped)


def pre_decay(weights: list[Tensor], settings: Settings) -> None:
    """Make room for the update, in place."""
    for W in weights:
        _change(W, settings, _shrunk)


def target(bound: float | int, out: int, in_: int) -> float:
    """Return bound sqrt(out / in), the largest singular value that an ``out x in`` matrix may have."""
    return bound * math.sqrt(out / in_)


def _change(W: Tensor, settings: Settings, change: Callable[[Tensor, float, float], Tensor]) -> None:
    assert settings.bound is not None
    dense = W.contiguous()
    views = settings.matrix.views(dense)
    for view, scale in zip(views, settings.factors(W.shape), strict=True):
        t = target(settings.bound, *view.shape)
        share = min(1.0, float(settings.rate) * scale / t)
        view.copy_(change(view, t, share))
    if dense is not W:
        W.copy_(dense)


def _shrunk(W: Tensor, t: float, share: float) -> Tensor:
    """The largest singular values brought down by the share of the largest."""
    return torch.as_tensor(matfun.mclip(W, 0.0, (1 - share) * float(matfun.spectral_norm(W).lower)))


def _clipped(W: Tensor, t: float, share: float) -> Tensor:
    """The clip, computed only where some singular value may be above t."""
    return W if float(matfun.spectral_norm(W).upper) <= t else torch.as_tensor(matfun.mclip(W, 0.0, t))
