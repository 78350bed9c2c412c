"""Which Linear layers are output heads: they want AdamW (article 11416, kexue.fm/archives/11416)."""

import re

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

NAMES = ("lm_head", "head", "classifier", "score", "unembed", "embed_out", "output", "to_logits")


def output_heads(model: nn.Module) -> dict[Tensor, str]:
    """Return the weights of output heads, each with the reason why it is taken for one.

    The first of these that finds any decides: ``model.get_output_embeddings()`` as in transformers; a Linear
    outside numbered blocks under a usual name; a Linear that shares its weight with an embedding (handled by
    the caller, which sees the tie); else the last Linear, unless it is one of several equal ones.
    """
    linears = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)
    ]  # the latter is the output projection of nn.MultiheadAttention
    get = getattr(model, "get_output_embeddings", None)
    declared = get() if callable(get) else None
    if declared is not None and hasattr(declared, "weight"):
        return {declared.weight: "output head (get_output_embeddings)"}
    named = {
        module.weight: f"output head (named {name})"
        for name, module in linears
        if name.rsplit(".", 1)[-1] in NAMES and not re.search(r"\d", name)
    }
    return named or _last(model, linears)


def _last(model: nn.Module, linears: list[tuple[str, nn.Linear]]) -> dict[Tensor, str]:
    """The last Linear, where nothing says that it is a hidden one."""
    if not linears or linears[-1][0] == "":
        return {}
    name, last = linears[-1]
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    tied = any(module.weight in embeddings for _, module in linears)
    twins = [
        other
        for other, module in linears[:-1]
        if name_pattern(other) == name_pattern(name) and module.weight.shape == last.weight.shape
    ]
    return {} if tied or twins else {last.weight: "output head (the last Linear of the model)"}


def name_pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)
