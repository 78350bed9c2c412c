"""How the bias of a router moves: the rules that need no loss, and which one a layer follows.

:class:`Balance` names the rule, says what it must remember of a step and applies it; the rules below are functions of
loads or of scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spectrain.nn._modes import BalanceRule, StepRule

BINS = 1024
FINEST, WIDEST = 2.0**-20, 2.0**7  # margins that the bins of a histogram tell apart, and the largest
RULES = ("sign", "rms", "quantile", "histogram", "none")


@dataclass(frozen=True, kw_only=True)
class Balance:
    """A rule for the bias of a :class:`MoE`; every rule moves it after the step that it selected for.

    ``"sign"`` and ``"rms"``: loss-free steps of ``rate`` (articles 10757, 10815). ``"quantile"``: the exact quantile of
    all scores of the step, warm-started (11619); ``"histogram"``: the same from integer counts in 1024 bins, which
    need no scores kept and add up over micro-batches in any order. ``"none"``: the bias stays. Quantiles are averaged
    over steps with weight ``decay`` on the old bias (11626): those of one batch balance that batch, and its text is not
    the next one's. With a threshold in place of top-k sign steps hold the number of experts a token at ``top_k`` with
    ``budget_rate`` times their rate.

    ``target`` are the shares of all assignments that the experts are to take, in their order (None: 1 / n each; whether
    that is best is the question of article 10945). The rules by sign and rms step by F - Q, those by quantile let
    expert j exceed its margin for k Q_j of the tokens. A share is at most that of one expert in each token, 1 / k.

    >>> Balance(rule="rms", rate=2e-3).rate
    0.002
    """

    rule: BalanceRule = "sign"
    rate: float = 1e-3
    centred: bool = True
    budget_rate: float = 1.0
    decay: float = 0.5
    target: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.rule not in RULES:
            raise ValueError(f"Balance: rule must be one of {', '.join(RULES)}, got {self.rule!r}.")
        if not 0 < self.rate < math.inf or not 0 <= self.budget_rate < math.inf:
            raise ValueError(f"Balance: rates must be finite, rate above 0, got {self.rate} and {self.budget_rate}.")
        if not 0 <= self.decay < 1:
            raise ValueError(f"Balance: decay must be at least 0 and below 1, got {self.decay}.")
        check_target("Balance", self.target)

    def check_shares(self, experts: int, top_k: int) -> None:
        """Raise ValueError where the target cannot be that of as many experts with ``top_k`` a token."""
        if self.target is not None and (len(self.target) != experts or max(self.target) * top_k >= 1):
            raise ValueError(
                f"MoE: the target of the balance needs a share for each of {experts} experts, each below 1 / top_k = "
                f"{1 / top_k:.3g}, since a token takes an expert once; got {len(self.target)} shares, the largest "
                f"{max(self.target):.3g}."
            )

    @property
    def by_quantile(self) -> bool:
        """Whether the rule looks at scores and not at loads alone."""
        return self.rule in ("quantile", "histogram")

    def evidence(
        self,
        scores: Float[Tensor, "tokens experts"],
        bias: Float[Tensor, " experts"],
        *,
        top_k: int | None,
        counted: Bool[Tensor, " tokens"] | None = None,
    ) -> Tensor | None:
        """What a rule by quantile keeps of a micro-batch: margins, or their histogram; ``top_k`` None: a threshold.

        Tokens whose scores are not finite are left out, and those that are not ``counted``.
        """
        if not self.by_quantile:
            return None
        above = margins(scores.detach(), bias, top_k=top_k)
        if counted is not None:
            above = above.masked_fill(~counted[:, None], math.nan)
        return above[above.isfinite().all(dim=1)] if self.rule == "quantile" else histogram(above)

    def moved(
        self, bias: Float[Tensor, " experts"], loads: "Loads", evidence: Tensor | None, *, top_k: int, dynamic: bool
    ) -> Float[Tensor, " experts"]:
        """The bias of the next step."""
        if self.rule == "none":
            return bias
        if self.rule in ("sign", "rms"):
            budget_rate = self.budget_rate if dynamic else 0.0
            return loss_free_step(
                bias,
                loads.counts,
                tokens=loads.tokens,
                top_k=top_k,
                rule=self.rule,
                rate=self.rate,
                centred=self.centred,
                budget_rate=budget_rate,
                target=self.target,
            )
        assert evidence is not None
        rank = expected_load(loads.tokens, top_k, len(bias), target=self.target)
        if self.rule == "quantile":
            shift = exceeded_by(evidence, rank)
        else:
            shift = histogram_quantile(evidence, rank=rank)
        new = bias - (1 - self.decay) * shift.to(bias.dtype)
        return new - new.mean() if self.centred and not dynamic else new


class Loads(NamedTuple):
    """How many tokens each expert took."""

    counts: Int[Tensor, " experts"]
    tokens: int

    @property
    def max_violation(self) -> float:
        """MaxVio: the largest load over the mean load, minus 1; 0 is perfect balance.

        >>> import torch
        >>> Loads(torch.tensor([3, 1]), tokens=4).max_violation
        0.5
        """
        total = int(self.counts.sum())
        return int(self.counts.max()) * len(self.counts) / total - 1 if total else 0.0

    def violation(self, target: Sequence[float]) -> float:
        """The largest load over the one that ``target`` gives the expert, minus 1: MaxVio where shares differ.

        >>> import torch
        >>> Loads(torch.tensor([3, 1]), tokens=4).violation((0.75, 0.25))
        0.0
        """
        total = int(self.counts.sum())
        if len(target) != len(self.counts):
            raise ValueError(f"Loads.violation: {len(target)} shares for {len(self.counts)} experts.")
        return max(c / (total * q) for c, q in zip(self.counts.tolist(), target, strict=True)) - 1 if total else 0.0

    @property
    def experts_a_token(self) -> float:
        """Mean number of experts that a token took."""
        return int(self.counts.sum()) / self.tokens if self.tokens else 0.0


def loss_free_step(
    bias: Float[Tensor, " experts"],
    loads: Int[Tensor, " experts"],
    *,
    tokens: int,
    top_k: int,
    rule: StepRule = "sign",
    rate: float = 1e-3,
    centred: bool = True,
    budget_rate: float = 0.0,
    target: Sequence[float] | None = None,
) -> Float[Tensor, " experts"]:
    """The bias after one loss-free step: ``b - rate * (d(F - Q) + budget_rate * sign(A - k))``.

    Q is the ``target`` (None: 1/n each), F the share of each expert in all assignments, A their number a token, ``d``
    the sign (articles 10757, 10815: kexue.fm/archives/10757, 10815) or, with ``rule="rms"``, division by the root mean
    square. ``centred`` subtracts the mean of d, which leaves the choice of the ``top_k`` largest as it is and keeps the
    mean of the bias for the budget. Signs are those of integers, exact, without a target.

    >>> loss_free_step(torch.zeros(3), torch.tensor([8, 2, 2]), tokens=6, top_k=2, rate=1.0, centred=False).tolist()
    [-1.0, 1.0, 1.0]
    """
    if rule not in ("sign", "rms"):
        raise ValueError(f"loss_free_step: rule must be 'sign' or 'rms', got {rule!r}; Balance has the others.")
    total = int(loads.sum())
    gap = loads * len(loads) - total  # n * total * (F - 1/n), an integer
    if target is not None:
        gap = loads.double() - total * torch.tensor(target, dtype=torch.float64, device=loads.device)
    if rule == "sign":
        step = gap.sign().to(bias.dtype)
    else:
        wide = gap.double()
        step = (wide / wide.square().mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny)).to(bias.dtype)
    if centred:
        step = step - step.mean()
    excess = (total > tokens * top_k) - (total < tokens * top_k)
    return bias - rate * (step + budget_rate * excess)


def margins(
    scores: Float[Tensor, "tokens experts"], bias: Float[Tensor, " experts"], *, top_k: int | None
) -> Float[Tensor, "tokens experts"]:
    """How far each biased score is above what it must exceed: the (k+1)-th largest of its token; 0 for None.

    Quantile balancing moves the bias of expert j by minus the (m k / n + 1)-th largest of column j.
    """
    biased = scores + bias.to(scores.dtype)
    if top_k is None:
        return biased
    if top_k == scores.shape[1]:
        raise ValueError(f"quantile balancing needs fewer chosen experts than there are, got {top_k} of {top_k}.")
    return biased - biased.topk(top_k + 1, dim=1).values[:, -1:]


def quantile_bias(
    scores: Float[Tensor, "tokens experts"],
    bias: Float[Tensor, " experts"] | None = None,
    *,
    top_k: int,
    dynamic: bool = False,
    iterations: int = 1,
    target: Sequence[float] | None = None,
) -> Float[Tensor, " experts"]:
    """The bias that balances these scores: ``-beta`` of the dual of the optimal assignment.

    Each of ``iterations`` alternates two exact minimisations: alpha, the (k+1)-th largest of each token, and beta, the
    (m k / n + 1)-th largest of each expert. From ``bias`` it is warm-started and one is enough; from None (zero) take
    tens. With ``dynamic`` tokens take any number of experts, and one is exact. Source: articles 11619 and, dynamic,
    11626 (kexue.fm/archives/11619, 11626). With a ``target`` expert j takes its share of the m k assignments. Cost: a
    selection over the tokens for each expert and iteration.

    >>> s = torch.rand(1000, 8, generator=torch.Generator().manual_seed(0)) + torch.linspace(0, 1, 8)
    >>> b = quantile_bias(s, top_k=2, dynamic=True)
    >>> ((s + b) > 0).sum(dim=0).unique().tolist()                 # 1000 * 2 / 8 tokens for each expert
    [250]
    """
    bias = scores.new_zeros(scores.shape[1]) if bias is None else bias.to(scores.dtype)
    rank = expected_load(len(scores), top_k, scores.shape[1], target=target)
    for _ in range(iterations):
        above = margins(scores, bias, top_k=None if dynamic else top_k)
        bias = bias - exceeded_by(above, rank)
    return bias


def expected_load(tokens: int, top_k: int, experts: int, *, target: Sequence[float] | None = None) -> list[int]:
    """Tokens of each expert in balance, rounded down, and below the number of tokens."""
    if target is None:
        return [min(tokens * top_k // experts, tokens - 1)] * experts
    return [min(math.floor(tokens * top_k * share + 1e-9), tokens - 1) for share in target]


def exceeded_by(above: Float[Tensor, "tokens experts"], rank: Sequence[int]) -> Float[Tensor, " experts"]:
    """The margin of each expert that as many tokens exceed as its ``rank`` says."""
    if len(set(rank)) == 1:
        return above.kthvalue(len(above) - rank[0], dim=0).values
    return torch.stack(
        [column.kthvalue(len(above) - r).values for column, r in zip(above.unbind(1), rank, strict=True)]
    )


def check_target(name: str, target: Sequence[float] | None) -> None:
    """Raise ValueError for shares that are none."""
    if target is not None and not (len(target) and min(target) > 0 and abs(sum(target) - 1) <= 1e-6):
        raise ValueError(f"{name}: target must be positive and sum to 1, got {tuple(target)}.")


def histogram(above: Float[Tensor, "tokens experts"]) -> Int[Tensor, "experts bins"]:
    """Counts of margins in ``BINS`` bins a column, finest near zero, where a warm start needs them.

    Bins are equal in ``asinh(margin / FINEST)``: about ``FINEST`` wide at zero and 4 % of a large margin. Integer
    counts add up over micro-batches and ranks in any order. Tokens with a margin that is not finite are left out.
    """
    top = math.asinh(WIDEST / FINEST)
    place = ((above.double().nan_to_num() / FINEST).asinh() / top + 1) * (BINS / 2)
    bins = place.floor().clamp(0, BINS - 1).long()
    columns = above.shape[1]
    flat = bins + torch.arange(columns, device=above.device) * BINS
    flat = flat.flatten()  # torch.bincount, in a form whose shape does not depend on values
    ones = above.isfinite().all(dim=1, keepdim=True).to(flat.dtype).expand(-1, columns).flatten()
    return flat.new_zeros(columns * BINS).scatter_add_(0, flat, ones).view(columns, BINS)


def histogram_quantile(counts: Int[Tensor, "experts bins"], *, rank: int | Sequence[int]) -> Float[Tensor, " experts"]:
    """The margin that ``rank`` tokens of each expert (or one number for each) exceed, interpolated inside its bin."""
    above = counts.flip(1).cumsum(dim=1).flip(1)  # tokens in this bin or a higher one
    ranks = torch.as_tensor(rank, device=counts.device).reshape(-1, 1)
    bin_ = (above > ranks).sum(dim=1, keepdim=True).sub(1).clamp_min(0)
    inside, up_to = counts.gather(1, bin_).double(), above.gather(1, bin_).double()
    place = bin_ + (up_to - ranks) / inside.clamp_min(1)
    top = math.asinh(WIDEST / FINEST)
    return ((place / (BINS / 2) - 1) * top).sinh().squeeze(1) * FINEST
