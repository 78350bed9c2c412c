"""Four kinds of weight decay, each as a change of the weights in place, before the update is subtracted."""

from collections.abc import Callable

import torch
from torch import Tensor

from spectrain.optim._step.settings import Rate, Settings


def decoupled_decay(weights: list[Tensor], updates: list[Tensor], settings: Settings) -> None:
    """W <- (1 - lr wd) W, as AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""
    torch._foreach_mul_(weights, 1 - settings.rate * settings.weight_decay)


def independent_decay(weights: list[Tensor], updates: list[Tensor], settings: Settings) -> None:
    """W <- (1 - wd lr / initial_lr) W: follows the schedule but not the size of the learning rate.

    Wortsman et al., arXiv 2309.14322. ``initial_lr`` is what schedulers leave in the group; without one the
    factor is 1 - wd.
    """
    lr = settings.rate
    start = lr if settings.initial_lr is None else settings.initial_lr
    share: Rate
    if isinstance(start, Tensor):  # reads no value, for a CUDA graph
        share = torch.where(start == 0, 0.0, lr / start).reshape(())
    else:
        share = lr / start if start else 0.0
    torch._foreach_mul_(weights, 1 - settings.weight_decay * share)


def cautious_decay(weights: list[Tensor], updates: list[Tensor], settings: Settings) -> None:
    """W <- W - lr wd W only in entries that the update shrinks as well (Chen et al., arXiv 2510.12402)."""
    sign = -1 if settings.maximize else 1
    rate = settings.rate * settings.weight_decay
    for W, U in zip(weights, updates, strict=True):
        W.sub_(torch.where(W * U * sign > 0, W, 0.0) * rate)


def leading_part(W: Tensor, *, iterations: int = 8) -> Tensor:
    """Return about sigma_1 u_1 v_1^T, as W v v^T with v from power iteration; 2 iterations products with a vector.

    ``decay="spectral"`` is W <- W - lr wd sigma_1 u_1 v_1^T for each logical matrix: only the largest singular value
    shrinks. It is the gradient of half the squared spectral norm (article 10648, kexue.fm/archives/10648).
    It starts at the longest row. The angle to v_1 shrinks by (sigma_2 / sigma_1)^2 an iteration; where that is
    slow, the two are nearly interchangeable (article 10648).

    >>> leading_part(torch.diag(torch.tensor([3.0, 1.0]))).round(decimals=4).tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    """
    v = W.index_select(0, torch.linalg.vector_norm(W, dim=1).argmax()[None])[0]  # reads no value
    for _ in range(iterations):
        v = torch.nn.functional.normalize(v, dim=0, eps=torch.finfo(W.dtype).tiny)
        v = W.mT @ (W @ v)
    v = torch.nn.functional.normalize(v, dim=0, eps=torch.finfo(W.dtype).tiny)
    return torch.outer(W @ v, v)


ENTRYWISE: dict[str, Callable[[list[Tensor], list[Tensor], Settings], None]] = {
    "decoupled": decoupled_decay,
    "independent": independent_decay,
    "cautious": cautious_decay,
}
