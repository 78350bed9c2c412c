"""A ``config.json`` of Hugging Face's as arguments of our models; each of its keys is honoured, or refused by name."""

from pathlib import Path
from typing import Any

from spectrain._files.read import NOT_FINITE, read_object
from spectrain.nn._hugging_face import experts
from spectrain.nn._hugging_face.families import COMMON, DEEPSEEK, FAMILIES, IDLE, LACKING, OFF, READ, Family, default
from spectrain.nn._hugging_face.numbers import check_whole, check_whole_or_none, positive
from spectrain.nn._hugging_face.rope import rotary_of
from spectrain.nn._models.language_model import LanguageModel, SwiGLU

LATENT_EPS = 1e-6
"""What their DeepSeek-V3 adds to the mean squares of latents, whatever its configuration says."""
_FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window", "rope_interleave")
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_LATENT_SIZES = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
_SAME = "Llama, Mistral, Qwen 2, Qwen 3, OLMo 2 and DeepSeek-V3 (a latent; experts by one group of sigmoids)"


def read_config(path: Path) -> dict[str, Any]:
    """What a configuration says, and for keys of its family that it leaves out what their absence means.

    Raises ``ValueError`` where it is no JSON object, of no family that is known here, or a flag neither true nor false.
    """
    config = read_object(path, what="the config.json that transformers wrote", constants=NOT_FINITE)
    family = family_of(config)
    for name in {**COMMON, **family.defaults}:
        if name not in config and (meant := default(family, name)) is not None:
            config[name] = meant
    for name in _FLAGS:
        if not isinstance(config.get(name), bool | None):
            raise ValueError(f"config.json: {name} must be true or false, got {config[name]!r}.")
    return config


def family_of(config: dict[str, Any]) -> Family:
    """The family of a configuration; ``ValueError`` for another one, with the parts of it that are not here."""
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES:
        return FAMILIES[kind]
    lacking = LACKING.get(kind) if isinstance(kind, str) else None
    why = f", which has what our model lacks: {lacking}" if lacking else ""
    raise ValueError(
        f"config.json has model_type {kind!r:.60}{why}; what can be read is {', '.join(map(repr, FAMILIES))}."
    )


def arguments_of(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`LanguageModel`, by grouped-query attention, and ``feed_forward_bias``.

    ``ValueError`` naming a key without counterpart, and a number that is missing or cannot be.
    """
    family = family_of(config)
    for name in _SIZES:
        check_whole(config, name)
    check_whole_or_none(config, "num_key_value_heads", "max_position_embeddings", "sliding_window")
    head_dim = config.get("head_dim")
    if head_dim is not None or family.defaults.get("head_dim") is not None:
        check_whole(config, "head_dim")
    refuse(_faults(config, family))
    eps = positive("rms_norm_eps", config["rms_norm_eps"], zero=True)
    base, scaling = rotary_of(config)
    width, heads = config["hidden_size"], config["num_attention_heads"]
    return {
        "vocabulary": config["vocab_size"],
        "width": width,
        "depth": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "hidden": config["intermediate_size"],
        "tied": bool(config["tie_word_embeddings"]),
        "context": config.get("max_position_embeddings"),
        "embedding_norm": False,
        "norm_eps": eps,
        "norms": family.norms,
        "feed_forward_bias": bool(config.get("mlp_bias")),
        "attention": {
            "head_dim": head_dim or width // heads,
            "qk_norm": family.qk_norms[0],
            "norm_eps": eps,
            "bias": family.biases[-1 if config.get("attention_bias") else 0],
            "window": _window(config, family),
            "rotary_base": base,
            "rotary_scaling": scaling,
        },
    }


def model_of(config: dict[str, Any]) -> LanguageModel:
    """A model of their configuration; ``ValueError`` for what has no counterpart or cannot be."""
    if family_of(config) is DEEPSEEK:
        return _deepseek(config)
    arguments = arguments_of(config)
    width, hidden, bias = arguments["width"], arguments["hidden"], arguments.pop("feed_forward_bias")
    biased = (lambda i: SwiGLU(width, hidden=hidden, bias=True)) if bias else None
    return LanguageModel(**arguments, feed_forward=biased)


def refuse(faults: dict[str, bool]) -> None:
    """``ValueError`` naming the faults that are there."""
    found = [fault for fault, there in faults.items() if there]
    if found:
        raise ValueError(f"no counterpart for {'; '.join(found)}. What is the same on both sides: {_SAME}.")


def _faults(config: dict[str, Any], family: Family) -> dict[str, bool]:
    act = config.get("hidden_act")
    wrong = {f"hidden_act {act!r}": act != "silu"}
    if not family.feed_forward_bias:
        wrong["mlp_bias"] = bool(config.get("mlp_bias"))
    known = {*READ, *COMMON, *family.defaults, *IDLE, "mlp_bias"}
    for name, value in config.items():
        if name in OFF and name not in family.defaults:
            wrong[f"{name} {value!r:.60}"] = bool(value)
        elif name not in known and value is not None:
            wrong[f"the key {name} ({value!r:.60}; where it changes nothing, take it out of config.json)"] = True
    return wrong


def _window(config: dict[str, Any], family: Family) -> int | None:
    """What all blocks see; ``ValueError`` where some see more than others."""
    width = config.get("sliding_window")
    if family.window == "all":
        return width
    if family.window == "none" or not config.get("use_sliding_window"):
        refuse({"sliding windows": any(layer != "full_attention" for layer in config.get("layer_types") or ())})
        return None
    depth, first = config["num_hidden_layers"], config["max_window_layers"]
    check_whole(config, "max_window_layers", 0)
    layers = config.get("layer_types") or ["full_attention" if i < first else "sliding_attention" for i in range(depth)]
    if width is None or layers == ["full_attention"] * depth:
        return None
    refuse({"sliding windows in some blocks only": layers != ["sliding_attention"] * depth})
    return int(width)


def _deepseek(config: dict[str, Any]) -> LanguageModel:
    for name in (*_SIZES, *_LATENT_SIZES):
        check_whole(config, name)
    check_whole_or_none(config, "max_position_embeddings", "q_lora_rank")
    mixed = config.get("first_k_dense_replace", 3) < config["num_hidden_layers"]
    base, scaling = rotary_of(config)
    refuse(
        {
            **_faults(config, DEEPSEEK),
            "biases": bool(config.get("attention_bias")),
            "scaled rotary positions beside a latent": scaling is not None,
            "experts chosen from some groups only (topk_group is below n_group)": mixed
            and experts.restricts_groups(config),
            **(experts.config_faults(config) if mixed else {}),
        }
    )
    if mixed:
        experts.check_config(config, check_whole)
    if "q_lora_rank" not in config:
        raise ValueError("config.json has no q_lora_rank; write null for queries without one.")
    rotary, eps = config["qk_rope_head_dim"], positive("rms_norm_eps", config["rms_norm_eps"], zero=True)
    return LanguageModel(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        tied=bool(config["tie_word_embeddings"]),
        context=config.get("max_position_embeddings"),
        embedding_norm=False,
        norm_eps=eps,
        attention={
            "rotary_base": base,
            "latent": config["kv_lora_rank"],
            "query_rank": config["q_lora_rank"],
            "rotary_dim": rotary,
            "head_dim": config["qk_nope_head_dim"] + rotary,
            "value_dim": config["v_head_dim"],
            "norm_eps": LATENT_EPS,
        },
        feed_forward=experts.feed_forward_of(config),
    )
