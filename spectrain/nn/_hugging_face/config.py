"""Configurations of Hugging Face's Llama, Qwen 3 and DeepSeek-V3, and ours: what is the same, and what is refused."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spectrain._files.read import NOT_FINITE, read_object
from spectrain.nn._attention.attention import Attention
from spectrain.nn._hugging_face import experts
from spectrain.nn._models.language_model import Block, LanguageModel, SwiGLU

_NAMES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"}
_LATENT_EPS = 1e-6
"""What their DeepSeek-V3 adds to the mean squares of latents, whatever its configuration says."""
_FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window", "rope_interleave")
_MOST, _MOST_BLOCKS = 2**31 - 1, 10_000
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_MORE_SIZES = {
    "llama": (),
    "qwen3": ("head_dim",),
    "deepseek_v3": ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"),
}


def attentions(model: LanguageModel) -> list[Attention]:
    """The attention of each block."""
    return [block.attention for block in model.blocks if isinstance(block, Block)]


def config_of(model: LanguageModel) -> tuple[str, dict[str, Any]]:
    """Their kind of model and its configuration; ``ValueError`` for what has no counterpart."""
    attention = attentions(model)[0]
    s, latent = attention.shape, attention.shape.latent is not None
    kind = "deepseek_v3" if latent else "qwen3" if attention.qk_norm else "llama"
    dtype = model.head.weight.dtype
    eps = _norm_eps(model.norm.eps, dtype)
    dense = [b.feed_forward for b in model.blocks if isinstance(b, Block) and isinstance(b.feed_forward, SwiGLU)]
    _refuse(
        {
            **experts.faults(model, latent=latent),
            "dense blocks of several widths": len({part.gate.out_features for part in dense}) > 1,
            "parameters of several dtypes": any(
                p.dtype != dtype for name, p in model.named_parameters() if not name.endswith("router.weight")
            ),
            "blocks that differ in their attention": any(_differs(a, attention) for a in attentions(model)),
            s.kind.foreign: bool(s.kind.foreign),
            "window": attention.window is not None,
            "log_n": attention.log_n is not None,
            "a scale of its own": attention.scale != s.head_dim**-0.5,
            "rotary_parts": attention.rotary.parts != 1,
            "partial rotary positions without a latent": not latent and s.rotary_dim != s.head_dim,
            "value_dim other than head_dim without a latent": not latent and s.value_dim != s.head_dim,
            "query_rank without a latent": not latent and s.query_rank is not None,
            "latent_norm=False": latent and not isinstance(attention.latent_norm, nn.RMSNorm),
            "a latent without both rotated and unrotated coordinates": latent and not (s.rotary_dim and s.content_dim),
            f"norm_eps of blocks other than the last norm's {eps:g}": any(e != eps for e in _block_eps(model)),
            f"norm_eps of attention other than that of the blocks, {eps:g}": kind == "qwen3"
            and any(_norm_eps(a.norm_eps, dtype) != eps for a in attentions(model)),
            f"norm_eps of latents other than {_LATENT_EPS:g}": any(e != _LATENT_EPS for e in _latent_eps(model)),
        }
    )
    config: dict[str, Any] = {
        "model_type": kind,
        "architectures": [_NAMES[kind]],
        "vocab_size": model.embedding.num_embeddings,
        "hidden_size": model.embedding.embedding_dim,
        "intermediate_size": dense[0].gate.out_features if dense else model.embedding.embedding_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "rms_norm_eps": eps,
        "rope_theta": attention.rotary.base,  # read by versions before 5
        "rope_parameters": {"rope_type": "default", "rope_theta": attention.rotary.base},
        "tie_word_embeddings": model.head.weight is model.embedding.weight and not model.embedding_norm,
    }
    if not latent:
        return kind, config | {"head_dim": s.head_dim}
    return kind, config | {
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


def _norm_eps(eps: float | None, dtype: torch.dtype) -> float:
    """What a norm adds: for None the rounding of the dtype in which torch computes it, float32 for narrower ones."""
    return torch.finfo(torch.promote_types(dtype, torch.float32)).eps if eps is None else eps


def _differs(a: Attention, b: Attention) -> bool:
    return any(
        x != y
        for x, y in (
            (a.shape, b.shape),
            (a.window, b.window),
            (a.log_n, b.log_n),
            (a.scale, b.scale),
            (a.qk_norm, b.qk_norm),
            ((a.rotary.dim, a.rotary.base, a.rotary.parts), (b.rotary.dim, b.rotary.base, b.rotary.parts)),
        )
    )


def _block_eps(model: LanguageModel) -> list[float]:
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    norms = [norm for block in blocks for norm in (block.attention_norm, block.feed_forward_norm)]
    return [_norm_eps(norm.eps, norm.weight.dtype) for norm in norms]


def _latent_eps(model: LanguageModel) -> list[float]:
    norms = [norm for a in attentions(model) for norm in a.children() if isinstance(norm, nn.RMSNorm)]
    return [_norm_eps(norm.eps, norm.weight.dtype) for norm in norms]


def read_config(path: Path) -> dict[str, Any]:
    """What a configuration says; ``ValueError`` where it is no JSON object, or a flag neither true nor false."""
    config = read_object(path, what="the config.json that transformers wrote", constants=NOT_FINITE)
    for name in _FLAGS:
        if not isinstance(config.get(name), bool | None):
            raise ValueError(f"config.json: {name} must be true or false, got {config[name]!r}.")
    return config


def model_of(config: dict[str, Any]) -> LanguageModel:
    """A model of their configuration; ``ValueError`` for what has no counterpart or cannot be."""
    kind = config.get("model_type")
    if kind not in _NAMES:
        raise ValueError(f"config.json has model_type {kind!r}; what can be read is {', '.join(map(repr, _NAMES))}.")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    latent = kind == "deepseek_v3"
    for name in (*_SIZES, *_MORE_SIZES[kind]):
        _whole(config, name)
    _whole_or_none(config, "num_key_value_heads", "head_dim", "max_position_embeddings", "q_lora_rank")
    mixed = latent and config.get("first_k_dense_replace", 3) < config["num_hidden_layers"]
    _refuse(
        {
            f"hidden_act {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
            "biases": bool(config.get("attention_bias") or config.get("mlp_bias")),
            f"rope_type {rope.get('rope_type')!r}": rope.get("rope_type", rope.get("type", "default")) != "default",
            f"partial_rotary_factor {rope.get('partial_rotary_factor')}": rope.get("partial_rotary_factor", 1) != 1,
            "sliding windows": bool(config.get("use_sliding_window"))
            or any(layer != "full_attention" for layer in config.get("layer_types") or ()),
            "experts chosen from some groups only (topk_group is below n_group)": mixed
            and experts.restricts_groups(config),
            **(experts.config_faults(config) if mixed else {}),
        }
    )
    if mixed:
        experts.check_config(config, _whole)
    eps = _positive(config, "rms_norm_eps", config.get("rms_norm_eps", 1e-6), zero=True)
    base = _positive(config, "rope_theta", rope.get("rope_theta", config.get("rope_theta", 1e4)))
    width, heads = config["hidden_size"], config["num_attention_heads"]
    attention: dict[str, Any] = {"rotary_base": base}
    if latent:
        if "q_lora_rank" not in config:
            raise ValueError("config.json has no q_lora_rank; write null for queries without one.")
        rotary = config["qk_rope_head_dim"]
        attention |= {
            "latent": config["kv_lora_rank"],
            "query_rank": config["q_lora_rank"],
            "rotary_dim": rotary,
            "head_dim": config["qk_nope_head_dim"] + rotary,
            "value_dim": config["v_head_dim"],
            "norm_eps": _LATENT_EPS,
        }
    else:
        head_dim = config.get("head_dim") or width // heads
        attention |= {"head_dim": head_dim, "qk_norm": kind == "qwen3", "norm_eps": eps}
    return LanguageModel(
        vocabulary=config["vocab_size"],
        width=width,
        depth=config["num_hidden_layers"],
        heads=heads,
        kv_heads=None if latent else config.get("num_key_value_heads") or heads,
        hidden=config["intermediate_size"],
        tied=bool(config.get("tie_word_embeddings")),
        context=config.get("max_position_embeddings"),
        embedding_norm=False,
        norm_eps=eps,
        attention=attention,
        feed_forward=experts.feed_forward_of(config) if latent else None,
    )


def _whole(config: dict[str, Any], name: str, least: int = 1) -> None:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"config.json: {name} must be a whole number of at least {least}, got {value!r:.40}.")
    most = _MOST_BLOCKS if name == "num_hidden_layers" else _MOST
    if value > most:
        raise ValueError(f"config.json: {name} must be at most {most}, got {value!r:.40}.")


def _whole_or_none(config: dict[str, Any], *names: str) -> None:
    for name in names:
        if config.get(name) is not None:
            _whole(config, name)


def _positive(config: dict[str, Any], name: str, value: object, *, zero: bool = False) -> float:
    real = isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300)
    number = float(value) if real else math.nan  # type: ignore[arg-type]
    if not (number >= 0 if zero else number > 0) or number == math.inf:
        at_least = "finite and 0 or more" if zero else "finite and positive"
        raise ValueError(f"config.json: {name} must be {at_least}, got {value!r:.40}.")
    return number


def _refuse(faults: dict[str, bool]) -> None:
    found = [fault for fault, there in faults.items() if there]
    if found:
        raise ValueError(
            f"no counterpart for {'; '.join(found)}. What is the same on both sides: Llama, Qwen 3 (qk_norm) and "
            "DeepSeek-V3 (a latent; experts by one group of sigmoids)."
        )
