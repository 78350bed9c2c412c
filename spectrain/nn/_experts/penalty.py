"""Losses that push a router to balance, with the straight-through gradient of the true loads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain.nn._experts.balance import check_target
from spectrain.nn._experts.router import Routing
from spectrain.nn._modes import PenaltyKind, PenaltyScope
from spectrain.nn._numbers import check_not_negative


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """``weight`` times an auxiliary loss, plus ``z_weight`` times the mean of ``logsumexp(logits)^2``.

    With F the share of each expert in the assignments, P the mean of normalised scores, Q the ``target`` distribution
    (None: uniform) and G = P + sg(F - P), sg stopping the gradient:

    - ``"product"``: ``sum((F - Q + 1/n) P)``, which is F . P for a uniform target, 1/n in balance;
    - ``"squared"``: ``sum((G - Q)^2) / 2``, zero in balance, with the same gradient;
    - ``"entropy"``: ``sum(G log(G / Q))``, experts without a token counted as half a token.

    Published losses count otherwise. With n experts, k of them a token and their coefficient alpha they are
    ``"product"`` of weight ``alpha n`` for Switch and DeepSeek (V2, and V3 with ``scope="sequence"``), whose f is n F,
    and of weight ``alpha n k`` for Mixtral (transformers' ``load_balancing_loss_func``), whose shares of tokens sum to
    k. The latter pools the tokens of all layers into one loss; here each layer balances by itself, and losses add up.

    ``scope="sequence"``: F and P of each sequence, and the mean of the losses; ``"batch"``: of all tokens of the
    forward pass, the micro-batch; ``"global"``: of all tokens of the optimizer step. The gradient of F . P is F times
    that of P, which is a mean over tokens: with F known, the losses of micro-batches, weighed by their shares of the
    tokens, add up to the loss and gradient of the whole step, exactly, however it is divided. F is that of the step
    before (saved with the layer; before the first step Q, which pushes nowhere), or exactly that of this one where a
    first pass without gradient counts it for :meth:`MoE.expect`.

    Sources: article 10735 (kexue.fm/archives/10735); global batches: Qiu et al., arXiv 2501.11873; z-loss: Zoph et
    al., ST-MoE, arXiv 2202.08906.

    >>> Penalty(kind="entropy", weight=1e-2, z_weight=1e-3).scope
    'batch'
    """

    kind: PenaltyKind = "squared"
    weight: float = 1e-2
    scope: PenaltyScope = "batch"
    target: Sequence[float] | None = None
    z_weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.kind not in ("product", "squared", "entropy"):
            raise ValueError(f"Penalty: kind must be 'product', 'squared' or 'entropy', got {self.kind!r}.")
        if self.scope not in ("batch", "sequence", "global"):
            raise ValueError(f"Penalty: scope must be 'batch', 'sequence' or 'global', got {self.scope!r}.")
        check_not_negative("Penalty", weight=self.weight, z_weight=self.z_weight)
        if not (self.weight >= 0 and self.z_weight >= 0 and self.weight + self.z_weight > 0):
            raise ValueError(f"Penalty: weights must be 0 or more and not both 0, got {self.weight}, {self.z_weight}.")
        check_target("Penalty", self.target)

    def __call__(
        self, routing: Routing, *, sequence: int, expected: Int[Tensor, " experts"] | None = None
    ) -> Float[Tensor, ""]:
        """The loss of one forward pass, whose tokens lie in sequences of length ``sequence``.

        ``expected``: with ``scope="global"`` the loads that F is made of, all zero for unknown. No tokens: 0. Padding,
        which is not ``counted``, is in no share and no mean; a sequence of it alone has no loss.
        """
        scores = routing.scores
        if not len(scores):
            return scores.sum()
        length = sequence if self.scope == "sequence" else len(scores)
        n = scores.shape[1]
        target = scores.new_full((n,), 1 / n) if self.target is None else scores.new_tensor(self.target)
        if len(target) != n:
            raise ValueError(f"Penalty: target holds {len(target)} shares and the router {n} experts.")
        tiny = torch.finfo(scores.dtype).tiny
        there = torch.ones_like(scores[:, 0], dtype=torch.bool) if routing.counted is None else routing.counted
        size = there.view(-1, length).sum(dim=1).to(scores.dtype)
        normal = scores / scores.sum(dim=1, keepdim=True).clamp_min(tiny)
        shares = _where(there, normal).view(-1, length, n).sum(dim=1) / size.clamp_min(1)[:, None]
        if self.scope == "global":
            assert expected is not None, "a global penalty is that of expected loads"
            counts = torch.where(expected.any(), expected.to(scores.dtype), target).unsqueeze(0)
        else:
            counts = (routing.chosen & there[:, None]).view(-1, length, n).sum(dim=1).to(scores.dtype)
        total = counts.sum(dim=1, keepdim=True).clamp_min(tiny)
        loss = _LOSS[self.kind](counts / total, shares, target, 0.5 / total.clamp_min(1))
        seen = size > 0
        z = _where(there, routing.logits.logsumexp(dim=1, keepdim=True).square()).sum() / size.sum().clamp_min(1)
        return self.weight * (loss * seen).sum() / seen.sum().clamp_min(1) + self.z_weight * z


def _where(there: Tensor, values: Tensor) -> Tensor:
    return torch.where(there[:, None], values, 0.0)


def _product(loads: Tensor, shares: Tensor, target: Tensor, _: Tensor) -> Tensor:
    return ((loads - target + 1 / target.numel()) * shares).sum(dim=1)


def _square(loads: Tensor, shares: Tensor, target: Tensor, _: Tensor) -> Tensor:
    return (_straight_through(loads, shares) - target).square().sum(dim=1) / 2


def _entropy(loads: Tensor, shares: Tensor, target: Tensor, least: Tensor) -> Tensor:
    held = _straight_through(torch.maximum(loads, least), shares)
    return (held * (held / target).log()).sum(dim=1)


def _straight_through(loads: Tensor, shares: Tensor) -> Tensor:
    """The value of ``loads`` with the gradient of ``shares``."""
    return loads.detach() + (shares - shares.detach())


_LOSS = {"product": _product, "squared": _square, "entropy": _entropy}
