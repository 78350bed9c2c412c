"""Settings of the experts that may stand where a feed-forward block does. Standard library only."""

import math
from dataclasses import dataclass
from typing import Literal

from spectrain.train._mesh.layout import Layout
from spectrain.train._run.config import RunConfig

_OF_EXPERTS = (
    "moe_top_k", "moe_shared", "moe_balance", "moe_balance_rate", "moe_penalty", "moe_skew", "moe_select",
    "expert_parallel",
)  # fmt: skip
"""What says nothing of a dense model."""


@dataclass(frozen=True, kw_only=True)
class Experts(RunConfig):
    """The part of a :class:`TrainConfig` that replaces feed-forward blocks by experts."""

    moe_experts: int | None = None
    """Replace the feed-forward block by so many experts, of which a router chooses. Default: a dense block."""
    moe_top_k: int = 4
    """Experts that a token takes; each is so much narrower that routed and shared ones cost as much as --hidden."""
    moe_shared: int = 1
    """Experts that every token takes besides."""
    moe_balance: Literal["sign", "rms", "quantile", "histogram", "none"] = "sign"
    """What moves the router's bias after a step."""
    moe_select: Literal["top_k", "threshold"] = "top_k"
    """'threshold': a token takes every expert whose score and bias are above zero together, --moe-top-k on average."""
    moe_skew: float = 0.0
    """Shares that the experts are to take, the i-th in proportion to i^-SKEW; 0: all alike."""
    moe_penalty: float = 0.0
    """Coefficient of the auxiliary loss of each layer: the gradient of n sum F P, F the loads of the step before; 0.01
    is usual."""
    moe_balance_rate: float | None = None
    """Peak step of that bias with sign and rms, which falls with the learning rate. Default: 6 / steps, so that a
    short run gets through the range of scores, at least 0.01 and at most 0.03."""

    expert_parallel: int = 1
    """Under torchrun, ranks that divide the experts of a layer among them; a further dimension of --mesh."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        self.require(0 <= self.moe_shared <= 2**24, "moe_shared", f"from 0 to {2**24:,}")
        rate = self.moe_balance_rate
        self.require(rate is None or 0 < rate < math.inf, "moe_balance_rate", "positive and finite")
        most = self.moe_top_k if self.moe_experts is None else self.moe_experts
        self.require(self.moe_top_k <= most, "moe_top_k", f"at most --moe-experts {most}")
        self.require(0 <= self.moe_penalty < math.inf, "moe_penalty", "0 or more, and finite")
        self._check_choice()

    def _check_choice(self) -> None:
        """Refuse what asks for loads that nothing can bring about."""
        for name in _OF_EXPERTS:
            alone = self.moe_experts is not None or getattr(self, name) == getattr(Experts, name)
            self.require(alone, name, "left out without --moe-experts")
        moved = self.moe_balance_rate is None or self.moe_balance in ("sign", "rms")
        self.require(moved, "moe_balance_rate", f"left out with --moe-balance {self.moe_balance}, which has no rate")
        some = self.moe_top_k != self.moe_experts or self.moe_balance not in ("quantile", "histogram")
        self.require(some, "moe_balance", f"sign, rms or none where --moe-top-k takes all {self.moe_top_k} experts")
        held = self.moe_balance != "none"
        self.require(
            held or self.moe_select == "top_k",
            "moe_balance",
            "sign, rms, quantile or histogram with --moe-select threshold",
        )
        self.require(0 <= self.moe_skew < math.inf, "moe_skew", "0 or more, and finite")
        shares = self.moe_target
        if shares is None:
            return
        self.require(
            held or self.moe_penalty > 0, "moe_skew", "0 where neither --moe-balance nor --moe-penalty balances"
        )
        if max(shares) * self.moe_top_k >= 1:
            raise ValueError(
                f"--moe-skew {self.moe_skew:g} gives the first of {self.moe_experts} experts {max(shares):.3g} of all "
                f"assignments; with --moe-top-k {self.moe_top_k} one can take less than {1 / self.moe_top_k:.3g}. "
                "Give a smaller one."
            )

    @property
    def moe_target(self) -> tuple[float, ...] | None:
        """The share of all assignments that each expert is to take; None: all alike, or no experts."""
        if self.moe_experts is None or self.moe_skew == 0:
            return None
        weights = [i**-self.moe_skew for i in range(1, self.moe_experts + 1)]
        return tuple(weight / math.fsum(weights) for weight in weights)

    def check_ranks(self, stand: Layout) -> None:
        """Refuse experts that do not come out even, and what needs all scores in one place."""
        super().check_ranks(stand)
        if self.moe_experts is None:
            return
        counted = self.moe_balance != "quantile"
        self.require(
            counted,
            "moe_balance",
            "sign, rms, histogram or none under torchrun: quantile needs all scores in one place",
        )
        if stand.experts == 1:
            return
        own = self.optimizer != "adamw"
        self.require(own, "optimizer", "muon, normuon or muoneq with --expert-parallel: torch's AdamW takes one mesh")
        keepers = stand.experts * stand.shards
        if self.moe_experts % keepers:
            raise ValueError(
                f"--moe-experts {self.moe_experts} does not divide among {stand.experts} (--expert-parallel) x "
                f"{stand.shards} (shards) = {keepers} ranks, which keep whole experts; give a multiple of {keepers}, "
                f"or replicas for shards: --mesh {stand.replicas * stand.shards}x1."
            )

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        return ("moe_experts", "moe_top_k", "expert_parallel", *super().at_least_one())
