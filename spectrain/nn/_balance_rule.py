"""Which rule moves a router's bias after an optimizer step, and what it needs to remember of the step."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from spectrain.nn._experts import balance


@dataclass(frozen=True, kw_only=True)
class Balance:
    """A rule for the bias of a :class:`MoE`; every rule moves it after the step that it selected for.

    ``"sign"`` and ``"rms"``: loss-free steps of ``rate`` (articles 10757, 10815). ``"quantile"``: the exact quantile of
    all scores of the step, warm-started (11619); ``"histogram"``: the same from integer counts in 1024 bins, which
    need no scores kept and add up over micro-batches in any order. ``"none"``: the bias stays. Quantiles are averaged
    over steps with weight ``decay`` on the old bias (11626): those of one batch balance that batch, and its text is not
    the next one's. With a threshold in place of top-k sign steps hold the number of experts a token at ``top_k`` with
    ``budget_rate`` times their rate.

    >>> Balance(rule="rms", rate=2e-3).rate
    0.002
    """

    rule: str = "sign"
    rate: float = 1e-3
    centred: bool = True
    budget_rate: float = 1.0
    decay: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.rule not in balance.RULES:
            raise ValueError(f"Balance: rule must be one of {', '.join(balance.RULES)}, got {self.rule!r}.")
        if not 0 < self.rate < math.inf or not 0 <= self.budget_rate < math.inf:
            raise ValueError(f"Balance: rates must be finite, rate above 0, got {self.rate} and {self.budget_rate}.")
        if not 0 <= self.decay < 1:
            raise ValueError(f"Balance: decay must be at least 0 and below 1, got {self.decay}.")

    @property
    def by_quantile(self) -> bool:
        """Whether the rule looks at scores and not at loads alone."""
        return self.rule in ("quantile", "histogram")

    def evidence(
        self, scores: Float[Tensor, "tokens experts"], bias: Float[Tensor, " experts"], *, top_k: int | None
    ) -> Tensor | None:
        """What a rule by quantile keeps of a micro-batch: margins, or their histogram; ``top_k`` None: a threshold.

        Tokens whose scores are not finite are left out.
        """
        if not self.by_quantile:
            return None
        above = balance.margins(scores.detach(), bias, top_k=top_k)
        return above[above.isfinite().all(dim=1)] if self.rule == "quantile" else balance.histogram(above)

    def moved(
        self, bias: Float[Tensor, " experts"], loads: "Loads", evidence: Tensor | None, *, top_k: int, dynamic: bool
    ) -> Float[Tensor, " experts"]:
        """The bias of the next step."""
        if self.rule == "none":
            return bias
        if not self.by_quantile:
            budget_rate = self.budget_rate if dynamic else 0.0
            return balance.moved(
                bias,
                loads.counts,
                tokens=loads.tokens,
                top_k=top_k,
                rule=self.rule,
                rate=self.rate,
                centred=self.centred,
                budget_rate=budget_rate,
            )
        assert evidence is not None
        rank = balance.expected_load(loads.tokens, top_k, len(bias))
        if self.rule == "quantile":
            shift = evidence.kthvalue(len(evidence) - rank, dim=0).values
        else:
            shift = balance.histogram_quantile(evidence, rank=rank)
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

    @property
    def experts_a_token(self) -> float:
        """Mean number of experts that a token took."""
        return int(self.counts.sum()) / self.tokens if self.tokens else 0.0
