"""Where on the way from data to noise the training looks: intervals [r, t] inside [0, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.objectives._modes import Law


def draw_intervals(
    count: int,
    *,
    law: Law = "logit-normal",
    mean: float | int = -0.4,
    std: float | int = 1.0,
    instants: float | int = 0.75,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, " count"], Float[Tensor, " count"]]:
    """``(r, t)`` with 0 <= r <= t <= 1: two draws of ``law`` in order, and r = t for a share ``instants`` of them.

    ``'logit-normal'`` is the sigmoid of a normal with ``mean`` and ``std``. The default is that of the published
    MeanFlow (a quarter of the pairs are intervals).

    Raises ``ValueError`` unless 0 <= instants <= 1 and std > 0.

    >>> r, t = draw_intervals(1000, generator=torch.Generator().manual_seed(0))
    >>> bool((r <= t).all()), int((r == t).sum())
    (True, 750)
    """
    if not 0 <= instants <= 1 or not std > 0:
        raise ValueError(f"draw_intervals needs 0 <= instants <= 1 and std > 0, got instants={instants}, std={std}.")
    if law == "uniform":
        pair = torch.rand(2, count, generator=generator, dtype=dtype)
    elif law == "logit-normal":
        pair = torch.sigmoid(mean + std * torch.randn(2, count, generator=generator, dtype=dtype))
    else:
        raise ValueError(f"draw_intervals knows the laws 'logit-normal' and 'uniform', got {law!r}.")
    r, t = pair.sort(dim=0).values.unbind()
    fixed = torch.arange(count) < round(instants * count)  # the share is exact, so that small batches have both
    shuffled = fixed[torch.randperm(count, generator=generator)]
    return torch.where(shuffled, t, r), t
