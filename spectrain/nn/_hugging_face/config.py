"""Our models as configurations of Hugging Face's families; what no family can say is refused by name."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from spectrain.nn._attention.attention import Attention
from spectrain.nn._hugging_face import experts
from spectrain.nn._hugging_face.arguments import LATENT_EPS, refuse
from spectrain.nn._hugging_face.families import ALL, DEEPSEEK, FAMILIES, Family
from spectrain.nn._hugging_face.rope import rope_of
from spectrain.nn._models.language_model import Block, LanguageModel, SwiGLU


def attentions(model: LanguageModel) -> list[Attention]:
    """The attention of each block."""
    return [block.attention for block in _blocks(model)]


def family_for(model: LanguageModel, asked: str | None = None) -> Family:
    """The family that can say what a model is: the one ``asked`` for, else the plainest.

    Raises ``ValueError`` for an unknown name, and naming the settings that the family has not.
    """
    if asked is not None and asked not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {asked!r}.")
    latent = attentions(model)[0].shape.latent is not None
    if latent or asked == DEEPSEEK.name:
        refuse({f"a latent in {asked}": asked not in (None, DEEPSEEK.name), f"{asked} without a latent": not latent})
        return DEEPSEEK
    families = ALL if asked is None else (FAMILIES[asked],)
    unsaid = [_unsaid(model, family) for family in families]
    fewest = min(range(len(families)), key=lambda i: len(unsaid[i]))
    refuse(dict.fromkeys(unsaid[fewest], True))
    return families[fewest]


def _unsaid(model: LanguageModel, family: Family) -> list[str]:
    """Settings of the model that a family has no word for."""
    a = attentions(model)[0]
    norms, wide = model.blocks[0].norms, any(_has_bias(part) for part in _gated(model))
    faults = {
        f"bias={a.bias!r}": a.bias not in family.biases,
        "biases of the feed-forward block": wide and not family.feed_forward_bias,
        f"qk_norm={a.qk_norm!r}": a.qk_norm not in family.qk_norms,
        f"norms={norms!r}": norms != family.norms,
        f"window={a.window}": a.window is not None and family.window == "none",
    }
    return [f"{fault} in {family.name}" for fault, there in faults.items() if there]


def config_of(model: LanguageModel, family: Family) -> dict[str, Any]:
    """The configuration of a model in a family; ``ValueError`` for what has no counterpart."""
    attention = attentions(model)[0]
    s, latent = attention.shape, family is DEEPSEEK
    dtype = model.head.weight.dtype
    eps = _norm_eps(model.norm.eps, dtype)
    dense = _gated(model)
    refuse(_faults(model, latent=latent, eps=eps))
    config: dict[str, Any] = {
        "model_type": family.name,
        "architectures": [family.architecture],
        "vocab_size": model.embedding.num_embeddings,
        "hidden_size": model.embedding.embedding_dim,
        "intermediate_size": dense[0].gate.out_features if dense else model.embedding.embedding_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": eps,
        "rope_theta": attention.rotary.base,  # read by versions before 5
        "rope_parameters": rope_of(attention.rotary.base, attention.rotary.scaling),
        "tie_word_embeddings": model.head.weight is model.embedding.weight and not model.embedding_norm,
    }
    if attention.rotary.scaling is not None:
        config["rope_scaling"] = config["rope_parameters"]
    if not latent:
        return config | {"head_dim": s.head_dim, **_choices(model, family)}
    return config | {
        "attention_bias": False,
        "kv_lora_rank": s.latent,
        "q_lora_rank": s.query_rank,
        "qk_nope_head_dim": s.content_dim,
        "qk_rope_head_dim": s.rotary_dim,
        "v_head_dim": s.value_dim,
        "head_dim": s.rotary_dim,
        "rope_interleave": True,
        **experts.config_of(model),
        "num_nextn_predict_layers": 0,
    }


def _choices(model: LanguageModel, family: Family) -> dict[str, Any]:
    """What a family of grouped-query attention can say beyond sizes."""
    attention, depth = attentions(model)[0], len(model.blocks)
    said: dict[str, Any] = {}
    if len(family.biases) > 1:
        said["attention_bias"] = attention.bias == family.biases[-1]
    if family.feed_forward_bias:
        said["mlp_bias"] = any(_has_bias(part) for part in _gated(model))
    if family.window != "none":
        said["sliding_window"] = attention.window
    if family.window == "layers":
        layer = "full_attention" if attention.window is None else "sliding_attention"
        said |= {
            "use_sliding_window": attention.window is not None,
            "max_window_layers": depth if attention.window is None else 0,
            "layer_types": [layer] * depth,
        }
    return said


def _faults(model: LanguageModel, *, latent: bool, eps: float) -> dict[str, bool]:
    attention = attentions(model)[0]
    s, dense = attention.shape, _gated(model)
    dtype = model.head.weight.dtype
    scaling = attention.rotary.scaling
    grown = 1.0 if scaling is None else scaling.magnitude**2
    return {
        **experts.faults(model, latent=latent),
        "dense blocks of several widths": len({part.gate.out_features for part in dense}) > 1,
        "biases in some dense blocks only": len({_has_bias(part) for part in dense}) > 1,
        "parameters of several dtypes": any(
            p.dtype != dtype for name, p in model.named_parameters() if not name.endswith("router.weight")
        ),
        "blocks that differ in their attention": any(_differs(a, attention) for a in attentions(model)),
        "blocks that differ in their norms": len({block.norms for block in _blocks(model)}) > 1,
        s.kind.foreign: bool(s.kind.foreign),
        "window beside a latent": latent and attention.window is not None,
        "norms other than pre beside a latent": latent and model.blocks[0].norms != "pre",
        "scaled rotary positions beside a latent": latent and scaling is not None,
        "log_n": attention.log_n is not None,
        "a scale of its own": attention.scale != s.head_dim**-0.5 * grown,
        "rotary_parts": attention.rotary.parts != 1,
        "partial rotary positions without a latent": not latent and s.rotary_dim != s.head_dim,
        "value_dim other than head_dim without a latent": not latent and s.value_dim != s.head_dim,
        "query_rank without a latent": not latent and s.query_rank is not None,
        "output_rank": s.output_rank is not None,
        "latent_norm=False": latent and not isinstance(attention.latent_norm, nn.RMSNorm),
        "a latent without both rotated and unrotated coordinates": latent and not (s.rotary_dim and s.content_dim),
        f"norm_eps of blocks other than the last norm's {eps:g}": any(e != eps for e in _block_eps(model)),
        f"norm_eps of attention other than that of the blocks, {eps:g}": bool(attention.qk_norm)
        and any(_norm_eps(a.norm_eps, dtype) != eps for a in attentions(model)),
        f"norm_eps of latents other than {LATENT_EPS:g}": latent and any(e != LATENT_EPS for e in _latent_eps(model)),
    }


def _blocks(model: LanguageModel) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def _gated(model: LanguageModel) -> list[SwiGLU]:
    return [block.feed_forward for block in _blocks(model) if isinstance(block.feed_forward, SwiGLU)]


def _has_bias(part: SwiGLU) -> bool:
    return part.down.bias is not None


def _norm_eps(eps: float | None, dtype: torch.dtype) -> float:
    """What a norm adds: for None the rounding of the dtype in which torch computes it, float32 for narrower ones."""
    return torch.finfo(torch.promote_types(dtype, torch.float32)).eps if eps is None else eps


def _differs(a: Attention, b: Attention) -> bool:
    def settings(block: Attention) -> tuple[object, ...]:
        own = (block.shape, block.window, block.log_n, block.scale, block.qk_norm, block.bias)
        rotary = block.rotary
        return (*own, rotary.dim, rotary.base, rotary.parts, rotary.scaling)

    return settings(a) != settings(b)


def _block_eps(model: LanguageModel) -> list[float]:
    norms = [norm for block in _blocks(model) for norm in (block.attention_norm, block.feed_forward_norm)]
    return [_norm_eps(norm.eps, norm.weight.dtype) for norm in norms]


def _latent_eps(model: LanguageModel) -> Iterator[float]:
    norms = (norm for a in attentions(model) for norm in a.children() if isinstance(norm, nn.RMSNorm))
    return (_norm_eps(norm.eps, norm.weight.dtype) for norm in norms)
