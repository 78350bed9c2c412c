"""Settings of a language model beyond its sizes, by which it can be one of other projects'. Standard library only."""

import math
from dataclasses import dataclass
from typing import Literal

from spectrain.nn import internal
from spectrain.train._run.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Architecture(RunConfig):
    """The part of a :class:`TrainConfig` that says which of the known architectures a model is."""

    qk_norm: Literal["auto", "off", "plain", "gains", "whole"] = "auto"
    """Divide queries and keys by their rms: of each head (plain), with learned gains (gains), of all heads together,
    with gains (whole). 'auto': plain, but off with mla."""
    bias: Literal["none", "inputs", "all"] = "none"
    """Biases of the maps of queries, keys and values, and with 'all' of the output."""
    feed_forward_bias: bool = False
    """Biases inside the feed-forward block."""
    norms: Literal["pre", "post"] = "pre"
    """Normalise what each half of a block reads, or what it writes."""
    norm_eps: float | None = None
    """What norms add to mean squares. Default: the rounding of the dtype; 1e-6 for latents."""
    embedding_norm: bool = True
    """Divide embeddings by their rms."""
    rotary_base: float = 10_000.0
    """Positions turn the pair i of d coordinates by 1 / base^(2i/d)."""
    rotary_scaling: tuple[str, ...] = ()
    """Change those frequencies: linear factor=4; llama3 factor=8 low=1 high=4 length=8192; yarn factor=4 length=4096
    magnitude=1.139 (and fast=, slow=, whole=)."""
    value_dim: int | None = None
    """Coordinates of a value. Default: as many as of a key; with mla without the rotated ones."""
    block: int = 256
    """Tokens in a sequence."""
    context: int | None = None
    """Longest text that the model knows; at least --block. Default: --block."""
    embedding_rows: int | None = None
    """Rows of embedding and head. Default: as many as the tokenizer has tokens."""
    family: str | None = None
    """Which of transformers' families the verb export writes. Default: the plainest that has these settings."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        eps, base = self.norm_eps, self.rotary_base
        self.require(eps is None or 0 <= eps < math.inf, "norm_eps", "0 or more, and finite")
        self.require(0 < base < math.inf, "rotary_base", "positive and finite")
        self.require(self.context is None or self.context >= self.block, "context", f"at least --block {self.block}")
        if self.rotary_scaling:  # torch is loaded only where there is one
            internal.read_scaling(self.rotary_scaling)

    @property
    def longest(self) -> int:
        """The longest text that the model knows."""
        return self.context or self.block

    def check_shared(self) -> None:
        """Refuse what ranks that share each matrix cannot share."""
        self.require(self.bias == "none", "bias", "none with --tensor-parallel")
        self.require(not self.feed_forward_bias, "feed_forward_bias", "left out with --tensor-parallel")
        gains = self.qk_norm in ("gains", "whole")
        self.require(not gains, "qk_norm", "off or plain with --tensor-parallel")

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        return ("context", "embedding_rows", *super().at_least_one())
