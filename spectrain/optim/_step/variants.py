"""Two variants of Muon's update: msign of an Adam update, and lines of equal long-run size (NorMuon)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spectrain.optim._step.squares import limited
from spectrain.optim._step.update import momentum_average

VARIANTS = ("plain", "adam", "normuon")


def directions(
    states: Sequence[Mapping[str, Tensor]], grads: Sequence[Tensor], group: Mapping[str, Any]
) -> list[Tensor]:
    """Return what msign is taken of, after taking in the gradients: momentum averages, or Adam's update."""
    buffers = [state["momentum_buffer"] for state in states]
    wide = [g.to(b.dtype) for g, b in zip(grads, buffers, strict=True)]
    adam = group.get("variant") == "adam"
    wide = limited(wide, group) if adam else wide
    averages = momentum_average(buffers, wide, momentum=group["momentum"], nesterov=group["nesterov"])
    if not adam:
        return averages
    squares, steps = [state["exp_avg_sq"] for state in states], [state["step"] for state in states]
    return adam_direction(averages, wide, squares, steps, beta2=group["beta2"])


def adam_direction(
    averages: Sequence[Tensor],
    grads: Sequence[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
    *,
    beta2: float | int,
    eps: float | int = 1e-8,
) -> list[Tensor]:
    """Return N / (sqrt(V / (1 - beta2^t)) + eps), whose msign is taken: N the momentum average, V <- that of G^2.

    ``squares`` (V) and ``steps`` (t) advance in place. The correction of Adam's first moment is one number for the
    whole matrix, which msign does not see. The second moment comes before the sign, as in Muon^2
    (arXiv 2604.09967); AdaMuon (arXiv 2507.11005) divides after it.

    >>> V, t = [torch.zeros(1, 2)], [torch.zeros(())]
    >>> G = [torch.tensor([[3.0, -0.5]])]
    >>> adam_direction(G, G, V, t, beta2=0.9, eps=0.0)[0].round(decimals=4).tolist()
    [[1.0, -1.0]]
    """
    torch._foreach_add_(steps, 1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, list(grads), list(grads), value=1 - beta2)
    return [adam_scaled(*state, beta2=beta2, eps=eps) for state in zip(averages, squares, steps, strict=True)]


def adam_scaled(N: Tensor, V: Tensor, t: Tensor, *, beta2: float | int, eps: float | int = 1e-8) -> Tensor:
    """N / (sqrt(V / (1 - beta2^t)) + eps)."""
    correction = 1 - beta2 ** t.to(N.dtype)
    return N / ((V / correction).sqrt() + eps)


def line_rates(moment: Tensor, squares: Tensor, widths: Tensor, pieces: Sequence[int], *, beta2: float | int) -> Tensor:
    r"""Return the factor of each line under NorMuon (Li et al., arXiv 2510.05491); ``moment`` advances in place.

    For line i of O = msign(N) with mean square s_i: v_i <- beta2 v_i + (1 - beta2) s_i, and the line is divided by
    sqrt(v_i). Each matrix is then scaled back to the Frobenius norm of O, so that every ``scale=`` keeps its meaning;
    a correction of v for its start would cancel. ``squares`` are sums over lines of length ``widths``, ``pieces`` the
    numbers of lines of the matrices that follow each other. Lines are the rows, as in the paper, where out >= in. The
    rows of an exact msign with out < in all have norm 1; there they are the columns, as in the code that made the rule
    known (modded-nanogpt), which compares width and height too. Of an orthogonal matrix, out = in, no line differs.

    >>> moment = torch.zeros(2)
    >>> rates = line_rates(moment, torch.tensor([4.0, 16.0]), torch.ones(2), [2], beta2=0.5)
    >>> (10 * rates).round().tolist()
    [16.0, 8.0]
    """
    moment.lerp_(squares / widths, 1 - beta2)
    return rates_of(moment, squares, pieces)


def rates_of(moment: Tensor, squares: Tensor, pieces: Sequence[int]) -> Tensor:
    """``line_rates`` of averages that have taken in this step."""
    rates = torch.where(moment > 0, moment.rsqrt(), 0.0)
    scales = [
        torch.where(new > 0, (old / new).sqrt(), 0.0).expand(len(r))
        for s, r in zip(squares.split(pieces), rates.split(pieces), strict=True)
        for old, new in [(s.sum(), (r.square() * s).sum())]
    ]
    return rates * torch.cat(scales)
