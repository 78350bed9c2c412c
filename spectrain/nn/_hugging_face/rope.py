"""Rotary positions in a ``config.json`` and ours: the base, and what changes the frequencies."""

import math
from typing import Any

from spectrain.nn._attention.scaling import LinearScaling, Llama3Scaling, Scaling, YarnScaling
from spectrain.nn._hugging_face.numbers import positive

_READ: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate",
    ),
}  # fmt: skip
_LACKING = {
    "dynamic": "turns by frequencies that depend on the length of the text",
    "longrope": "has a list of factors for short text and another for long text",
    "proportional": "turns a part of the coordinates by frequencies of the whole",
}


def rotary_of(config: dict[str, Any]) -> tuple[float, Scaling | None]:
    """Base and scaling that a configuration asks for; ``ValueError`` naming what is not there, or cannot be."""
    rope = _parameters(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _READ:
        why = _LACKING.get(kind, "is not known here") if isinstance(kind, str) else "is no name"
        raise ValueError(
            f"config.json says rope_type {kind!r}, which {why}: no counterpart. Supported: {', '.join(_READ)}."
        )
    for name in rope:
        if name not in (*_READ[kind], "rope_type", "type", "rope_theta", "partial_rotary_factor"):
            raise ValueError(f"config.json: {name} is not known beside rope_type {kind!r}; what would it change?")
    for where in (config, rope):
        if where.get("partial_rotary_factor") not in (None, 1):
            raise ValueError(f"no counterpart for partial_rotary_factor {where['partial_rotary_factor']!r}.")
    said = rope.get("rope_theta", config.get("rope_theta", 1e4))
    base = positive("rope_theta", said)
    if config.get("rope_theta") not in (None, said):
        raise ValueError(
            f"config.json: rope_theta is {config['rope_theta']!r} and {said!r} in rope_parameters; leave one out."
        )
    return base, _scaling(kind, rope, config)


def rope_of(base: float, scaling: Scaling | None) -> dict[str, Any]:
    """The ``rope_parameters`` that say it."""
    plain = {"rope_theta": base}
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor, **plain}
    if isinstance(scaling, Llama3Scaling):
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low,
            "high_freq_factor": scaling.high,
            "original_max_position_embeddings": round(scaling.length),
            **plain,
        }
    if isinstance(scaling, YarnScaling):
        return {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "original_max_position_embeddings": round(scaling.length),
            "attention_factor": scaling.magnitude,
            "beta_fast": scaling.fast,
            "beta_slow": scaling.slow,
            "truncate": scaling.whole,
            **plain,
        }
    return {"rope_type": "default", **plain}


def _parameters(config: dict[str, Any]) -> dict[str, Any]:
    """The one object that is there under either of its names."""
    found = [config[name] for name in ("rope_scaling", "rope_parameters") if config.get(name)]
    for each in found:
        if not isinstance(each, dict):
            raise ValueError(f"config.json: rope_parameters must be an object, got {each!r:.40}.")
    if len(found) == 2 and found[0] != found[1]:
        raise ValueError("config.json: rope_scaling and rope_parameters say different things; leave one out.")
    return found[0] if found else {}


def _scaling(kind: str, rope: dict[str, Any], config: dict[str, Any]) -> Scaling | None:
    if kind == "default":
        return None
    own = {name: value for name, value in rope.items() if value is not None}
    if kind == "linear":
        return LinearScaling(factor=positive("factor", own.get("factor")))
    longest = config.get("max_position_embeddings")
    own.setdefault("original_max_position_embeddings", longest)
    if config.get("original_max_position_embeddings") is not None:  # it goes before the one inside, as in transformers
        own["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    length = positive("original_max_position_embeddings", own["original_max_position_embeddings"])
    if kind == "llama3":
        factor, low, high = (positive(name, own.get(name)) for name in _READ["llama3"][:3])
        return Llama3Scaling(factor=factor, low=low, high=high, length=length)
    return _yarn(own, length, longest)


def _yarn(own: dict[str, Any], length: float, longest: object) -> YarnScaling:
    if "factor" not in own:
        own["factor"] = positive("max_position_embeddings", longest) / length
    factor = positive("factor", own["factor"])
    whole = own.get("truncate", True)
    if not isinstance(whole, bool):
        raise ValueError(f"config.json: truncate must be true or false, got {whole!r:.40}.")
    return YarnScaling(
        factor=factor,
        length=length,
        fast=positive("beta_fast", own.get("beta_fast") or 32.0),
        slow=positive("beta_slow", own.get("beta_slow") or 1.0),
        magnitude=_magnitude(own, factor),
        whole=whole,
    )


def _magnitude(own: dict[str, Any], factor: float) -> float:
    """``attention_factor``, else the published 0.1 log(factor) + 1, or the quotient of two of them."""
    if "attention_factor" in own:
        return positive("attention_factor", own["attention_factor"])

    def grown(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    if own.get("mscale") and own.get("mscale_all_dim"):
        return grown(positive("mscale", own["mscale"])) / grown(positive("mscale_all_dim", own["mscale_all_dim"]))
    return grown(1.0)
