"""Settings of the experts that may stand where a feed-forward block does. Standard library only."""

import math
from dataclasses import dataclass
from typing import Literal

from spectrain.train._run.config import RunConfig


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
    moe_balance_rate: float | None = None
    """Peak step of that bias with sign and rms, which falls with the learning rate. Default: 6 / steps, so that a
    short run gets through the range of scores, at least 0.01 and at most 0.03."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        self.require(0 <= self.moe_shared <= 2**24, "moe_shared", f"from 0 to {2**24:,}")
        rate = self.moe_balance_rate
        self.require(rate is None or 0 < rate < math.inf, "moe_balance_rate", "positive and finite")
        most = self.moe_top_k if self.moe_experts is None else self.moe_experts
        self.require(self.moe_top_k <= most, "moe_top_k", f"at most --moe-experts {most}")

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        return ("moe_experts", "moe_top_k", *super().at_least_one())
