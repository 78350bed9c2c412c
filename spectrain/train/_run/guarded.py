"""The part of a configuration that watches over weights and logits of a transformer. Standard library only."""

import math
from dataclasses import dataclass

from spectrain.train._mesh.layout import Layout
from spectrain.train._run.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class GuardedConfig(RunConfig):
    """The fields of guards, besides ``--bound`` that every job has."""

    qk_clip: float | None = None
    """After each step shrink query and key weights of the heads whose largest logit was above this; needs --qk-norm
    off or mla. Default: never; inf: only record the largest logits."""
    average: float | None = None
    """Average the weights, with a half-life that is this share of the steps so far, judge them beside the weights
    themselves and keep them in average.safetensors; 0.1 is usual. Default: no average."""
    decay_estimate: int | None = None
    """While the rate is at its peak, judge also an estimate of what its decay to 0 in a line would have reached, had
    it begun this many steps ago. Needs --schedule wsd, or --final-lr 1. Default: none."""
    muon_per_head: bool = False
    """Let our Muon see the queries, keys and values of each head as a matrix of its own."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the flag and the cure."""
        super().__post_init__()
        self.require(self.qk_clip is None or self.qk_clip > 0, "qk_clip", "positive")
        self.require(self.average is None or 0 < self.average < 1, "average", "between 0 and 1")
        if self.decay_estimate is not None:
            self._check_estimate()

    def _check_estimate(self) -> None:
        """Refuse the estimate of a decay where no rate stays, or weights decay in another way than it knows."""
        constant = self.schedule == "wsd" or self.final_lr == 1.0
        words = "given with --schedule wsd or --final-lr 1, where the rate stays at its peak"
        self.require(constant, "decay_estimate", words)
        self.require(self.decay == "decoupled", "decay_estimate", f"left out with --decay {self.decay}")

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        return ("decay_estimate", *super().at_least_one())

    @property
    def clips_logits(self) -> bool:
        """Whether weights may be changed for their logits."""
        return self.qk_clip is not None and self.qk_clip < math.inf

    def check_ranks(self, stand: Layout) -> None:
        """Refuse what several ranks cannot do in the order of one process."""
        super().check_ranks(stand)
        mixed = self.bound is not None and self.bound_by == "pre-decay" and self.decay == "spectral"
        words = "post-clip under torchrun with --decay spectral, whose singular vectors are those of before"
        self.require(not mixed, "bound_by", words)
