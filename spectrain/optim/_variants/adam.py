"""msign of an Adam update: the momentum average over the root of the running mean of squares."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrain.optim._variants.variant import Turn, Variant

_EPS = 1e-8


def adam_direction(
    averages: Sequence[Tensor],
    grads: Sequence[Tensor],
    squares: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    beta2: Sequence[float | int],
    eps: float | int = _EPS,
) -> list[Tensor]:
    """Return N / (sqrt(V / (1 - beta2^t)) + eps), whose msign is taken: N the momentum average, V <- that of G^2.

    ``squares`` (V) and ``steps`` (t) advance in place; ``beta2`` is one number a tensor. The correction of Adam's first
    moment is one number for the whole matrix, which msign does not see. The second moment comes before the sign, as in
    Muon^2 (arXiv 2604.09967); AdaMuon (arXiv 2507.11005) divides after it.

    >>> V, t = [torch.zeros(1, 2)], [torch.zeros(())]
    >>> G = [torch.tensor([[3.0, -0.5]])]
    >>> adam_direction(G, G, V, t, beta2=[0.9], eps=0.0)[0].round(decimals=4).tolist()
    [[1.0, -1.0]]
    """
    torch._foreach_add_(list(steps), 1)
    torch._foreach_mul_(list(squares), list(beta2))
    torch._foreach_addcmul_(list(squares), list(grads), list(grads), [1 - beta for beta in beta2])
    return [
        adam_quotient(*state, beta2=beta, eps=eps) for *state, beta in zip(averages, squares, steps, beta2, strict=True)
    ]


def adam_quotient(N: Tensor, V: Tensor, t: Tensor, *, beta2: float | int, eps: float | int = _EPS) -> Tensor:
    """N / (sqrt(V / (1 - beta2^t)) + eps)."""
    correction = 1 - beta2 ** t.to(N.dtype)
    return N / ((V / correction).sqrt() + eps)


def _before(turn: Turn) -> list[Tensor]:
    squares, steps = [s["exp_avg_sq"] for s in turn.states], [s["step"] for s in turn.states]
    if turn.advance:
        return adam_direction(turn.tensors, turn.grads, squares, steps, beta2=turn.beta2)
    return [
        N if not t else adam_quotient(N, V, t, beta2=beta2)  # not moved yet: there is nothing to divide by
        for N, V, t, beta2 in zip(turn.tensors, squares, steps, turn.beta2, strict=True)
    ]


ADAM = Variant(
    name="adam",
    words="msign of an Adam update",
    keeps={"step": "count", "exp_avg_sq": "entries"},
    before=_before,
    squares=True,
    entrywise=True,
)
