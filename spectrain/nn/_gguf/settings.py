"""A model's configuration in GGUF's words; what llama.cpp would leave out in silence is refused by name."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, tensor

from spectrain.nn._attention.rotary import Rotary
from spectrain.nn._attention.scaling import LinearScaling, Llama3Scaling, Scaling, YarnScaling

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "olmo2": "olmo2"}
"""By family of transformers: the name that llama.cpp reads it under. A Mistral is a Llama there."""
FREQUENCIES = "rope_freqs.weight"
"""Numbers by which llama.cpp divides the frequencies of rotary positions, where its architecture takes them."""
_BIASED = ("llama",)
"""Architectures whose maps behind the heads, or of the feed-forward block, may have biases."""


def settings_of(config: Mapping[str, Any], rotary: Rotary) -> dict[str, Any]:
    """Keys without their architecture's name, for :func:`write_model`; integers, floats and strings.

    ``config`` is what transformers' ``config.json`` would say, ``rotary`` the model's positions. Raises ``ValueError``
    for a family that has no name in ``ARCHITECTURES``, and for what llama.cpp does not compute: a window that is
    shorter than the longest text, biases outside of Llama, scalings of positions.
    """
    _refuse_unread(config, rotary.scaling)
    sizes = {
        "vocab_size": config["vocab_size"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "rope.dimension_count": config["head_dim"],
    }
    numbers = {
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(rotary.base),
    }
    return sizes | numbers | _scaling(rotary.scaling)


def frequency_factors(rotary: Rotary) -> Tensor | None:
    """What Llama 3's scaling divides the frequencies by, one number a pair; None for positions of another kind."""
    if not isinstance(rotary.scaling, Llama3Scaling):
        return None
    plain = Rotary(rotary.dim, base=rotary.base)
    device = tensor(0.0).device
    return (plain.frequencies(device) / rotary.frequencies(device)).float()


def _scaling(scaling: Scaling | None) -> dict[str, Any]:
    """Linear and YaRN by their keys; Llama 3's is a tensor."""
    if isinstance(scaling, LinearScaling):
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    if isinstance(scaling, YarnScaling):
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(scaling.factor),
            "rope.scaling.original_context_length": round(scaling.length),
            # llama.cpp multiplies the published magnitude by this
            "rope.scaling.attn_factor": scaling.magnitude / (0.1 * math.log(max(scaling.factor, 1.0)) + 1.0),
        }
    return {}


def _refuse_unread(config: Mapping[str, Any], scaling: Scaling | None) -> None:
    family = config["model_type"]
    if family not in ARCHITECTURES:
        raise ValueError(
            f"a {family} is not written as GGUF: what is, are {', '.join(ARCHITECTURES)}. nn.to_hugging_face writes it."
        )
    if "max_position_embeddings" not in config:
        raise ValueError("GGUF says how long the longest text is; give context=.")
    found = [fault for fault, there in _unread(config, scaling).items() if there]
    if found:
        raise ValueError(
            f"llama.cpp computes another model without a word for {'; '.join(found)}: not written as GGUF. "
            "nn.to_hugging_face writes it."
        )


def _unread(config: Mapping[str, Any], scaling: Scaling | None) -> dict[str, bool]:
    name = ARCHITECTURES[config["model_type"]]
    window, longest = config.get("sliding_window"), config["max_position_embeddings"]
    yarn = scaling if isinstance(scaling, YarnScaling) else None
    usual = yarn is None or (yarn.fast == 32 and yarn.slow == 1 and yarn.whole and yarn.factor >= 1)
    return {
        f"a window of {window}, below the {longest} tokens of the longest text": window is not None
        and window < longest,
        f"biases behind the heads in {name}": bool(config.get("attention_bias")) and name not in _BIASED,
        f"Llama 3's positions in {name}": isinstance(scaling, Llama3Scaling) and name != "llama",
        "positions by YaRN with fast, slow or whole of its own, or a factor below 1": not usual,
    }
