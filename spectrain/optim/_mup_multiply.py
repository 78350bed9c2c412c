"""Multipliers in the forward pass: on what a tied head reads, and on the logits of attention."""

import math
from typing import Any

from torch import nn

SCALES = ("scale", "scaling", "softmax_scale")


class ReadMultiplier:
    """A forward pre-hook that multiplies a module's first input. Plain data: copied, pickled and compiled with it."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with the first of them scaled."""
        if args:
            return (args[0] * self.factor, *args[1:]), kwargs
        name = next(iter(kwargs))
        return args, {**kwargs, name: kwargs[name] * self.factor}


def multiply_input(module: nn.Module, factor: float) -> None:
    """Let ``module`` read ``factor`` times what it is given, in place of any factor set before."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, ReadMultiplier):
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
    if factor != 1.0:
        module.register_forward_pre_hook(ReadMultiplier(factor), with_kwargs=True)


def scale_attention(model: nn.Module, *, base_head_dim: int) -> dict[str, float]:
    """Turn 1/sqrt(d) on the logits of every attention module into sqrt(base_head_dim)/d; return the new factors.

    Such a module keeps 1/sqrt(d), or what an earlier call made of it, in a number called ``scale``, ``scaling`` or
    ``softmax_scale`` and has ``head_dim`` (its own or that of its ``shape``).
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention) and module.head_dim != base_head_dim:
            raise ValueError(
                f"mup: {name} divides logits by sqrt(head_dim) inside of torch, where no multiplier reaches; its heads "
                f"have {module.head_dim} features and base_head_dim is {base_head_dim}. Let the number of heads grow "
                "with the width instead of their size, or use attention with a scale of its own."
            )
        size = getattr(module, "head_dim", getattr(getattr(module, "shape", None), "head_dim", None))
        kept = next((key for key in SCALES if isinstance(getattr(module, key, None), float)), None)
        if kept is None or not isinstance(size, int) or isinstance(module, nn.MultiheadAttention):
            continue
        found[name] = math.sqrt(base_head_dim) / size
        setattr(module, kept, found[name])
    if not found and not any(isinstance(m, nn.MultiheadAttention) for m in model.modules()):
        raise ValueError(
            f"mup: base_head_dim={base_head_dim}, but no module has head_dim and one of {', '.join(SCALES)}. Leave it "
            "out where the size of heads is the same at all widths; else give the attention modules both."
        )
    return found
