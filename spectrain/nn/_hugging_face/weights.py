"""Names and layouts of weights, ours and Hugging Face's."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from spectrain.nn._attention.attention import Attention
from spectrain.nn._hugging_face.families import DEEPSEEK, QWEN3, Family

_OUTSIDE = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
_INSIDE = {
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
    "attention.output": "self_attn.o_proj",
}
_NORMS = {
    "pre": {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"},
    "post": {"attention_norm": "post_attention_layernorm", "feed_forward_norm": "post_feedforward_layernorm"},
}
_PLAIN = {f"attention.{ours}": f"self_attn.{ours[0]}_proj" for ours in ("query", "key", "value")}
_GAINS = {"attention.query_gains": "self_attn.q_norm", "attention.key_gains": "self_attn.k_norm"}
_LATENT = {
    "attention.query_down": "self_attn.q_a_proj",
    "attention.query_norm": "self_attn.q_a_layernorm",
    "attention.latent_norm": "self_attn.kv_a_layernorm",
}


def to_theirs(weights: dict[str, Tensor], blocks: Sequence[Attention], family: Family) -> dict[str, Tensor]:
    """Our parameters under their names."""
    names, out = module_names(family), {}
    for name, w in weights.items():
        inside = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        outer, leaf = name.rpartition(".")[::2]
        if outer in _OUTSIDE:
            out[f"{_OUTSIDE[outer]}.{leaf}"] = w
        elif inside and inside[2] in names:
            out[f"model.layers.{inside[1]}.{names[inside[2]]}.{inside[3]}"] = w
    for i, attention in enumerate(blocks):
        prefix, layer = f"blocks.{i}.", f"model.layers.{i}."
        if attention.qk_norm is True and family is QWEN3:
            one = weights[f"{prefix}attention.key.weight"].new_ones(attention.shape.head_dim)
            out |= {f"{layer}{gain}.weight": one for gain in _GAINS.values()}
        if family is DEEPSEEK:
            own = {n.removeprefix(f"{prefix}attention."): w for n, w in weights.items() if n.startswith(prefix)}
            out |= {f"{layer}self_attn.{name}.weight": w for name, w in _pack(own, attention).items()}
    return out


def to_ours(
    weights: dict[str, Tensor], blocks: Sequence[Attention], family: Family, *, interleaved: bool
) -> dict[str, Tensor]:
    """Their parameters, all of which have a place, under our names."""
    names = {theirs: ours for ours, theirs in module_names(family).items()}
    outside = {theirs: ours for ours, theirs in _OUTSIDE.items()}
    out: dict[str, Tensor] = {}
    for name, w in weights.items():
        base, leaf = name.rpartition(".")[::2]
        inner = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", base)
        if base in outside:
            out[f"{outside[base]}.{leaf}"] = w
        elif inner and inner[2] in names:
            out[f"blocks.{inner[1]}.{names[inner[2]]}.{leaf}"] = w
    if family is DEEPSEEK:
        for i, attention in enumerate(blocks):
            layer = f"model.layers.{i}.self_attn."
            own = {n.removeprefix(layer).removesuffix(".weight"): w for n, w in weights.items() if n.startswith(layer)}
            unpacked = _unpack(own, attention, interleaved=interleaved)
            out |= {f"blocks.{i}.attention.{n}.weight": w for n, w in unpacked.items()}
    return out


def module_names(family: Family) -> dict[str, str]:
    """Modules of a block by our names: what they are called there."""
    return {**_INSIDE, **_NORMS[family.norms], **(_LATENT if family is DEEPSEEK else _PLAIN | _GAINS)}


def _pack(own: dict[str, Tensor], attention: Attention) -> dict[str, Tensor]:
    """Latent and rotary key in one matrix, keys and values in another, rotary rows in pairs."""
    s = attention.shape
    query = own["query.weight"].unflatten(0, (s.heads, s.head_dim))
    query = torch.cat((query[:, : s.content_dim], pairs(query[:, s.content_dim :], 1)), dim=1).flatten(0, 1)
    key, value = (own[f"{name}.weight"].unflatten(0, (s.heads, -1)) for name in ("key", "value"))
    return {
        "q_proj" if s.query_rank is None else "q_b_proj": query,
        "kv_a_proj_with_mqa": torch.cat((own["latent.weight"], pairs(own["key_rotary.weight"], 0))),
        "kv_b_proj": torch.cat((key, value), dim=1).flatten(0, 1),
    }


def _unpack(own: dict[str, Tensor], attention: Attention, *, interleaved: bool) -> dict[str, Tensor]:
    s = attention.shape
    assert s.latent is not None
    query = own["q_proj" if s.query_rank is None else "q_b_proj"].unflatten(0, (s.heads, s.head_dim))
    content, turned = query.split((s.content_dim, s.rotary_dim), dim=1)
    latent, rotary = own["kv_a_proj_with_mqa"].split((s.latent, s.rotary_dim))
    key, value = own["kv_b_proj"].unflatten(0, (s.heads, -1)).split((s.content_dim, s.value_dim), dim=1)
    if interleaved:
        turned, rotary = _halves(turned, 1), _halves(rotary, 0)
    return {
        "query": torch.cat((content, turned), dim=1).flatten(0, 1),
        "latent": latent,
        "key_rotary": rotary,
        "key": key.flatten(0, 1),
        "value": value.flatten(0, 1),
    }


def pairs(w: Tensor, dim: int) -> Tensor:
    """Rows 0, h, 1, h + 1, ...: what is turned together stands together."""
    return w.unflatten(dim, (2, -1)).transpose(dim, dim + 1).flatten(dim, dim + 1)


def _halves(w: Tensor, dim: int) -> Tensor:
    """The order back."""
    return w.unflatten(dim, (-1, 2)).transpose(dim, dim + 1).flatten(dim, dim + 1)
