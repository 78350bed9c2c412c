"""The powers of the width: initialisation, rates and decay of every role, and multipliers in the forward pass."""

import math
from typing import Any

from torch import nn

from spectrain.optim._mup.roles import Part
from spectrain.optim._step.scale import canonical

SCALES = ("scale", "scaling", "softmax_scale")

# Exponents e of the factor (width / base_width)^e on the learning rate, by role.
ADAMW = {"input": 0.0, "hidden": -1.0, "output": -1.0, "tied": 0.0, "vector": 0.0}
# Of SGD: eta ~ out / in (article 10795): gradients have the norm sqrt(in / out), and updates need its inverse.
SGD = {"input": 1.0, "hidden": 0.0, "output": -1.0, "tied": 1.0}

# The spectral norm that an update may have, and the one that a scale mode gives: sqrt(out/in) as powers of the width
# (a hidden matrix has out ~ in ~ width). Their difference is the exponent of Muon's learning rate.
TARGET = {"input": 0.5, "hidden": 0.0, "output": -0.5, "tied": 0.5, "vector": 0.0}
GIVEN = {
    "match_rms_adamw": {"input": 0.5, "hidden": 0.5, "output": 0.5, "tied": 0.5},
    "original": {"input": 0.5, "hidden": 0.0, "output": 0.0, "tied": 0.5},
    "spectral": {"input": 0.5, "hidden": 0.0, "output": -0.5, "tied": 0.5},
    "none": {"input": 0.0, "hidden": 0.0, "output": 0.0, "tied": 0.0},
}


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


def standard_deviation(part: Part, out: int, *, base_width: int, standard: bool = False) -> float:
    """Return the standard deviation of the initial entries of a piece of ``out`` rows.

    Hidden and input: sqrt(min(1, out/in) / in) (article 10795). Output: sqrt(base_width) / in, whose square falls as
    1/width^2 (article 10770), and which is 1/sqrt(in) at ``base_width``. A table of rows: 1; one that is the head as
    well: 1/sqrt(base_width).
    """
    if standard or part.role == "output":
        return part.in_**-0.5 if standard else math.sqrt(base_width) / part.in_
    if part.role == "tied":
        return base_width**-0.5
    return math.sqrt(min(1.0, out / part.in_) / part.in_)


def rate(part: Part, algorithm: str, scale: str, *, base_width: int) -> float:
    """Return the factor on the learning rate of one parameter; 1 where its growing side is ``base_width``.

    ``algorithm`` as ``route`` names it. ``"sign"`` moves each entry by ``lr``, as AdamW does, and ``"rows"`` each row
    by sqrt(width) times the scale mode, as Muon moves an input. ``"sgd"`` moves by ``lr`` times the gradient; its
    vectors are not decided here, for they go by their length.
    """
    ratio = part.width / base_width
    if algorithm == "sgd":
        return float(ratio ** SGD[part.role])
    if algorithm in ("adamw", "sign") or part.role == "vector":
        return float(ratio ** ADAMW[part.role])
    exponent = TARGET[part.role] - GIVEN[canonical(scale)][part.role]
    return float(ratio**exponent) * _heads_along_in(part, scale, ratio)


def _heads_along_in(part: Part, scale: str, ratio: float) -> float:
    """Heads cut along ``in`` add up in the output: as many pieces, each no wider, must share the norm of one.

    k pieces of norm s have together up to sqrt(k) s, and a scale mode sees the head's own ``in``, which stays.
    """
    if part.matrix is None or not part.matrix.heads or part.matrix.along != "in" or part.role != "hidden":
        return 1.0
    seen = GIVEN[canonical(scale)]["input"] - GIVEN[canonical(scale)]["hidden"]
    return float(ratio ** (-0.5 - seen))
