"""Models to and from Hugging Face's files, where the architecture is the same: Llama, Qwen 3, DeepSeek-V3."""

import json
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectrain._files import write_file, write_json
from spectrain.nn import _hugging_face_experts as experts
from spectrain.nn._attention import Attention
from spectrain.nn._feed_forward import SwiGLU
from spectrain.nn._hugging_face_weights import to_ours, to_theirs
from spectrain.nn._language_model import Block, LanguageModel

_NAMES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"}
_LATENT_EPS = 1e-6
"""What their DeepSeek-V3 adds to the mean squares of latents, whatever its configuration says."""


def to_hugging_face(
    model: LanguageModel, folder: str | Path, *, context: int | None = None, end_of_text: int | None = None
) -> Path:
    """Write ``config.json`` and ``model.safetensors`` that transformers loads, with the same logits.

    Grouped-query attention goes out as Llama, with ``qk_norm`` as Qwen 3 (whose gains are then one), a latent as
    DeepSeek-V3, with :class:`MoE` where there is one and their routers are the same. Normalised embeddings are
    written normalised, as a table of their own, so a tied head is no longer tied. ``context`` (default: the model's)
    is the longest sequence they are told of.

    Raises ``ValueError`` naming what has no counterpart there: shared keys and values, windows, log n, partial RoPE
    without a latent, another feed-forward block, experts without a latent, without a shared one, by another router.
    """
    kind, config = _config_of(model)
    context = context or model.context
    config |= {"max_position_embeddings": context} if context else {}
    config |= {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "dtype": str(model.head.weight.dtype)[6:]}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    weights = to_theirs({name: p.detach() for name, p in model.named_parameters()}, _blocks(model), kind)
    weights |= experts.to_theirs(model)
    if model.embedding_norm:
        weights["model.embed_tokens.weight"] = F.rms_norm(
            model.embedding.weight.detach(), (model.embedding.embedding_dim,)
        )
    weights["lm_head.weight"] = model.head.weight.detach()
    if config["tie_word_embeddings"]:
        del weights["lm_head.weight"]
    tensors = {name: w.contiguous().clone() for name, w in weights.items()}
    write_file(
        folder / "model.safetensors",
        lambda temporary: safetensors.torch.save_file(tensors, str(temporary), metadata={"format": "pt"}),
    )
    return folder


def from_hugging_face(folder: str | Path) -> LanguageModel:
    """The model in a folder that transformers wrote: Llama, Qwen 3 with gains of one, DeepSeek-V3.

    Experts are balanced by the sign rule from the bias that comes with them.

    Raises ``FileNotFoundError`` where there is no ``config.json``, ``ValueError`` naming the setting that has no
    counterpart here, or the tensor that does not fit.
    """
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = _model_of(config)
    weights = _read(folder)
    if config.get("tie_word_embeddings"):
        weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    routed, weights = experts.to_ours(weights, model)
    ours = to_ours(weights, _blocks(model), config["model_type"], interleaved=config.get("rope_interleave", True))
    dtype = weights["model.embed_tokens.weight"].dtype
    try:
        model.to(dtype).load_state_dict(ours | routed)
    except RuntimeError as error:
        raise ValueError(f"{folder} does not fit its config.json: {str(error).splitlines()[-1].strip()}") from None
    return model.eval()


def _blocks(model: LanguageModel) -> list[Attention]:
    return [block.attention for block in model.blocks if isinstance(block, Block)]


def _config_of(model: LanguageModel) -> tuple[str, dict[str, Any]]:
    block = model.blocks[0]
    assert isinstance(block, Block)
    attention = block.attention
    dense = [b.feed_forward for b in model.blocks if isinstance(b, Block) and isinstance(b.feed_forward, SwiGLU)]
    s = attention.shape
    latent = s.latent is not None
    _refuse(
        {
            **experts.faults(model, latent=latent),
            f"share={s.share!r}": s.share != "none",
            "window": attention.window is not None,
            "log_n": attention.log_n is not None,
            "a scale of its own": attention.scale != s.head_dim**-0.5,
            "rotary_parts": attention.rotary.parts != 1,
            "partial rotary positions without a latent": not latent and s.rotary_dim != s.head_dim,
            "value_dim other than head_dim without a latent": not latent and s.value_dim != s.head_dim,
            "query_rank without a latent": not latent and s.query_rank is not None,
            "latent_norm=False": latent and not isinstance(attention.latent_norm, nn.RMSNorm),
            "a latent without both rotated and unrotated coordinates": latent and not (s.rotary_dim and s.content_dim),
        }
    )
    kind = "deepseek_v3" if latent else "qwen3" if attention.qk_norm else "llama"
    eps = model.norm.eps or torch.finfo(model.head.weight.dtype).eps
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


def _model_of(config: dict[str, Any]) -> LanguageModel:
    kind = config.get("model_type")
    if kind not in _NAMES:
        raise ValueError(f"config.json has model_type {kind!r}; what can be read is {', '.join(map(repr, _NAMES))}.")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    latent = kind == "deepseek_v3"
    _refuse(
        {
            f"hidden_act {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
            "biases": bool(config.get("attention_bias") or config.get("mlp_bias")),
            f"rope_type {rope.get('rope_type')!r}": rope.get("rope_type", rope.get("type", "default")) != "default",
            "sliding windows": bool(config.get("use_sliding_window")),
            "experts chosen from some groups only (topk_group is below n_group)": latent
            and config.get("first_k_dense_replace", 3) < config["num_hidden_layers"]
            and experts.restricted(config),
        }
    )
    eps = config.get("rms_norm_eps", 1e-6)
    width, heads = config["hidden_size"], config["num_attention_heads"]
    attention: dict[str, Any] = {"rotary_base": float(rope.get("rope_theta", config.get("rope_theta", 1e4)))}
    if latent:
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


def _refuse(faults: dict[str, bool]) -> None:
    found = [fault for fault, there in faults.items() if there]
    if found:
        raise ValueError(
            f"no counterpart for {'; '.join(found)}. What is the same on both sides: Llama, Qwen 3 (qk_norm) and "
            "DeepSeek-V3 (a latent; experts by one group of sigmoids)."
        )


def _read(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file in _files_of(folder):
        if not (folder / file).is_file():
            raise ValueError(f"{folder} has no {file}; other formats than safetensors are not read.")
        _refuse_link_out(folder, file)
        try:
            weights |= safetensors.torch.load_file(str(folder / file))
        except safetensors.SafetensorError as error:
            raise ValueError(f"{folder / file} is no whole safetensors file: {error}.") from None
    return weights


def _files_of(folder: Path) -> list[str]:
    """The names of the files of weights, each of a file in this folder.

    Names are plain: a folder from somebody else must not choose what is read elsewhere.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        plain = {name for name in names if _is_plain(name)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} holds no weight_map from tensors to files ({error!r:.100}); get it anew.") from None
    if other := sorted(map(str, names - plain)):
        raise ValueError(
            f"{index}: weight_map names {other[0]!r:.200}; each must be the name of a .safetensors file in {folder} "
            "itself, without folders. Do not trust this folder, or put the file there and mend the name."
        )
    return sorted(plain)


def _is_plain(name: object) -> bool:
    """Whether a name is that of a file of weights and of no folder, on any system."""
    return isinstance(name, str) and bool(re.fullmatch(r"[^/\\:\0]+\.safetensors", name))


def _refuse_link_out(folder: Path, file: str) -> None:
    """ValueError for a link that leaves the folder, but for huggingface_hub's from ``snapshots/...`` to ``blobs``."""
    home, real = folder.resolve(), (folder / file).resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if home not in real.parents and real.parent != blobs:
        raise ValueError(f"{folder / file} is a link to {real}, outside of the folder; put the file itself there.")
