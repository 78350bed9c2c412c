"""Initial weights of one matrix: by deviation, by spectral norm, or with all singular values alike (article 10795)."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from spectrain import matfun
from spectrain.optim._mup.factors import standard_deviation
from spectrain.optim._mup.roles import Part


def drawn(
    part: Part, unit: Tensor, method: str, *, base_width: int, standard: bool = False, norm: float = 1.0
) -> Tensor:
    """Return initial weights made of independent normal entries ``unit``, each fused matrix by itself."""
    weights = unit.clone()
    for view in replace(part.matrix, heads=()).views(weights) if part.matrix is not None else [weights]:
        out = view.shape[0] if part.matrix is not None else part.out
        if method == "normal" or part.role == "tied":
            view.mul_(standard_deviation(part, out, base_width=base_width, standard=standard))
        else:
            flat = view.reshape(view.shape[0], -1)
            view.copy_((norm * math.sqrt(out / part.in_) * INITIAL[method](flat)).view_as(view))
    return weights


def _by_norm(W: Tensor) -> Tensor:
    return (W.double() / torch.linalg.matrix_norm(W.double(), 2)).to(W.dtype)


def _sign(W: Tensor) -> Tensor:
    return torch.as_tensor(matfun.msign(W))


# From independent normal entries to a matrix of spectral norm 1.
INITIAL: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda W: W,
    "spectral": _by_norm,
    "msign": _sign,
}
