"""Mixtures of experts, ours and those of Hugging Face's DeepSeek-V3: configuration, names and layouts."""

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spectrain.nn._experts.moe import MoE
from spectrain.nn._models.language_model import Block, LanguageModel, SwiGLU

_NAME = re.compile(r"model\.layers\.(\d+)\.mlp\.(gate|experts|shared_experts)\.(?!weight_)(.+)")
_PARTS = ("gate", "up", "down")


def layers(model: LanguageModel) -> dict[int, MoE]:
    """Its layers of experts, by block."""
    parts = {i: block.feed_forward for i, block in enumerate(model.blocks) if isinstance(block, Block)}
    return {i: part for i, part in parts.items() if isinstance(part, MoE)}


def faults(model: LanguageModel, *, latent: bool) -> dict[str, bool]:
    """What of the feed-forward halves has no counterpart there."""
    found = layers(model)
    kinds = [isinstance(block.feed_forward, MoE) for block in model.blocks if isinstance(block, Block)]
    plain = [block.feed_forward for block in model.blocks if isinstance(block, Block)]
    return {
        "a feed-forward block other than SwiGLU and MoE": not all(isinstance(p, SwiGLU | MoE) for p in plain),
        "experts without a latent": bool(found) and not latent,
        "dense blocks after blocks of experts": kinds != sorted(kinds),
        "experts that differ from block to block": len({str(_settings(moe)) for moe in found.values()}) > 1,
        "experts without a shared one": any(moe.shared is None for moe in found.values()),
        "fewer than two experts": any(len(moe.bias) < 2 for moe in found.values()),
        "normalised experts": any(moe.experts.normalised for moe in found.values()),
        "a router that is no top-k of sigmoids at temperature 1": any(
            (moe.router.select, moe.router.activation, moe.router.selection, moe.router.temperature)
            != ("top_k", "sigmoid", "sigmoid", 1)
            for moe in found.values()
        ),
    }


def config_of(model: LanguageModel) -> dict[str, Any]:
    """Their settings of the feed-forward halves of a latent model."""
    found, depth = layers(model), len(model.blocks)
    if not found:
        return {"first_k_dense_replace": depth}
    return {"first_k_dense_replace": min(found), **_settings(found[min(found)])}


def _settings(moe: MoE) -> dict[str, Any]:
    hidden = moe.experts.gate.shape[1]
    return {
        "n_routed_experts": len(moe.bias),
        "num_experts_per_tok": moe.router.top_k,
        "moe_intermediate_size": hidden,
        "n_shared_experts": 0 if moe.shared is None else moe.shared.gate.out_features // hidden,
        "routed_scaling_factor": moe.scale,
        "norm_topk_prob": moe.router.renormalise,
        "n_group": 1,
        "topk_group": 1,
    }


def restricts_groups(config: dict[str, Any]) -> bool:
    """Whether their router may look at some groups of experts only."""
    return bool(config.get("topk_group", 4) < config.get("n_group", 8))


def config_faults(config: dict[str, Any]) -> dict[str, bool]:
    """What of the settings of the published files, which transformers does not look at, has no counterpart."""
    known = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1}
    return {f"{name} {config[name]!r}": config[name] != here for name, here in known.items() if name in config}


def check_config(config: dict[str, Any], whole: Callable[[dict[str, Any], str], None]) -> None:
    """``ValueError`` for a number that is missing or cannot be."""
    for name in ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts"):
        whole(config, name)
    factor = config.get("routed_scaling_factor", 2.5)
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
        raise ValueError(f"config.json: routed_scaling_factor must be finite and positive, got {factor!r}.")


def feed_forward_of(config: dict[str, Any]) -> Callable[[int], nn.Module]:
    """What makes the second half of each block."""
    width = config["hidden_size"]

    def make(block: int) -> nn.Module:
        if block < config.get("first_k_dense_replace", 3):
            return SwiGLU(width, hidden=config["intermediate_size"])
        return MoE(
            width,
            experts=config["n_routed_experts"],
            top_k=config["num_experts_per_tok"],
            hidden=config["moe_intermediate_size"],
            shared=config["n_shared_experts"],
            activation="sigmoid",
            renormalise=config.get("norm_topk_prob", True),
            scale=float(config.get("routed_scaling_factor", 2.5)),
        )

    return make


def to_theirs(model: LanguageModel) -> dict[str, Tensor]:
    """Weights and biases of the experts under their names, one expert after the other."""
    out: dict[str, Tensor] = {}
    for i, moe in layers(model).items():
        prefix = f"model.layers.{i}.mlp."
        out[f"{prefix}gate.weight"] = moe.router.weight.detach()
        out[f"{prefix}gate.e_score_correction_bias"] = moe.bias
        for part in _PARTS:
            for e, w in enumerate(getattr(moe.experts, part).detach()):
                out[f"{prefix}experts.{e}.{part}_proj.weight"] = w
            if moe.shared is not None:
                out[f"{prefix}shared_experts.{part}_proj.weight"] = getattr(moe.shared, part).weight.detach()
    return out


def to_ours(weights: dict[str, Tensor], model: LanguageModel) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The experts' tensors under our names, and those that are none of theirs; ``ValueError`` for a missing one."""
    found, rest = layers(model), dict(weights)
    out: dict[str, Tensor] = {}
    theirs = {name: rest.pop(name) for name in weights if (m := _NAME.fullmatch(name)) and int(m[1]) in found}
    for i, moe in found.items():
        prefix, ours = f"model.layers.{i}.mlp.", f"blocks.{i}.feed_forward."
        names = {"gate.weight": "router.weight", "gate.e_score_correction_bias": "bias"}
        names |= {f"shared_experts.{part}_proj.weight": f"shared.{part}.weight" for part in _PARTS}
        try:
            out |= {ours + o: theirs.pop(prefix + t) for t, o in names.items()}
            for part in _PARTS:
                own = [theirs.pop(f"{prefix}experts.{e}.{part}_proj.weight") for e in range(len(moe.bias))]
                out[f"{ours}experts.{part}"] = torch.stack(own)
        except KeyError as error:
            raise ValueError(f"the folder has no tensor {error.args[0]}.") from None
        out |= {ours + name: count for name, count in moe.named_buffers() if name != "bias"}
    if theirs:
        raise ValueError(f"{next(iter(theirs))} has no counterpart.")
    return out, rest
