"""The part of a configuration that trains adapters instead of weights. Standard library only."""

import math
from dataclasses import dataclass

from spectrain.train._mesh.layout import Layout
from spectrain.train._run.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class LoRA(RunConfig):
    """Adapters of low rank beside the linear layers of a model that stays as it is."""

    lora: int | None = None
    """Leave the weights of --init-from as they are, and train W + alpha/rank B A with A and B of this rank beside each
    linear layer of the blocks. Default: all weights are trained."""
    lora_alpha: float | None = None
    """With --lora: the factor alpha. Default: the rank."""
    lora_layers: tuple[str, ...] = ()
    """With --lora: those layers alone: query, key, value, output, gate, up, down. Default: all of them."""
    lora_from: str | None = None
    """Begin with the adapters in this folder of peft's, with their rank, alpha and layers."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the flag and the cure."""
        super().__post_init__()
        for name in ("lora_alpha", "lora_layers"):
            self.require(self.adapters or not getattr(self, name), name, "left out without --lora or --lora-from")
        alpha = self.lora_alpha
        self.require(alpha is None or 0 < alpha < math.inf, "lora_alpha", "positive and finite")
        if not self.adapters:
            return
        name = "lora" if self.lora is not None else "lora_from"
        self.require(self._base is not None, name, "given with --init-from, whose weights stay as they are")
        for other, plain in self._others().items():
            self.require(plain, name, f"left out with --{other.replace('_', '-')}")

    @property
    def adapters(self) -> bool:
        """Whether adapters are trained and nothing else is."""
        return self.lora is not None or self.lora_from is not None

    @property
    def _base(self) -> str | None:
        base: str | None = getattr(self, "init_from", None)
        return base

    def _others(self) -> dict[str, bool]:
        """Flags that speak of weights whole, or of models without such layers: whether each is as ever."""
        values = {name: getattr(self, name, None) for name in ("moe_experts", "bound", "qk_clip")}
        return {
            **{name: value is None for name, value in values.items()},
            "muon_per_head": not getattr(self, "muon_per_head", False),
            "parametrisation": getattr(self, "parametrisation", "standard") == "standard",
        }

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        return ("lora", *super().at_least_one())

    def check_ranks(self, stand: Layout) -> None:
        """Refuse several ranks."""
        super().check_ranks(stand)
        for name in ("lora", "lora_from"):
            self.require(getattr(self, name) is None, name, "left out under torchrun")
