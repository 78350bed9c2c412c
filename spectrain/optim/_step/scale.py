"""The factor on a Muon update, and every name under which users know it."""

import math
from collections.abc import Callable

SCALES: dict[str, Callable[[int, int], float]] = {
    "match_rms_adamw": lambda out, in_: 0.2 * math.sqrt(max(out, in_)),
    "original": lambda out, in_: math.sqrt(max(1.0, out / in_)),
    "spectral": lambda out, in_: math.sqrt(out / in_),
    "none": lambda out, in_: 1.0,
}

ALIASES = {
    "moonlight": "match_rms_adamw",
    "rms_norm": "match_rms_adamw",  # dion, gram-newton-schulz
    "adjusted": "match_rms_adamw",  # pytorch_optimizer
    "shape_scaling": "original",  # emerging-optimizers
    "spectral_unclamped": "spectral",  # torch >= 2.14
    "spectral_norm": "spectral",  # dion, gram-newton-schulz
    "rms_to_rms": "spectral",  # timm
    "unit_rms_norm": "spectral",  # emerging-optimizers
}

# Emerging-Optimizers and Megatron-LM call sqrt(max(out, in)) "spectral"; here that word means sqrt(out/in).
REFUSED = ("sqrt_max", "emerging_spectral", "megatron_spectral")


def canonical(scale: str) -> str:
    """Return the one name of a scale mode.

    Raises ValueError for an unknown name, and for the names of another library's ``spectral``,
    sqrt(max(out, in)), which is 5 times ``match_rms_adamw`` and not the spectral condition.

    >>> canonical("rms_norm")
    'match_rms_adamw'
    """
    if scale in REFUSED:
        raise ValueError(
            f"scale={scale!r}: sqrt(max(out, in)), which some libraries call 'spectral', is not offered: "
            "it is 5 x 'match_rms_adamw' and its best learning rate moves with the width. Use "
            "'match_rms_adamw' with 5 x the learning rate, or 'spectral' for sqrt(out/in)."
        )
    name = ALIASES.get(scale, scale)
    if name not in SCALES:
        raise ValueError(
            f"scale must be one of {', '.join(SCALES)} (or an alias: {', '.join(ALIASES)}), got {scale!r}."
        )
    return name


def factor(scale: str, out: int, in_: int) -> float:
    """Return the factor on the update of an ``out x in`` matrix; dimensionless.

    With it the update of ``match_rms_adamw`` has entries of RMS 0.2, as AdamW's has (article 10739,
    kexue.fm/archives/10739); ``spectral`` changes RMS of inputs into RMS of outputs at unit rate
    (article 11416, kexue.fm/archives/11416, lists the four).

    >>> factor("match_rms_adamw", 100, 25)
    2.0
    >>> factor("spectral", 100, 25), factor("spectral", 25, 100), factor("original", 25, 100)
    (2.0, 0.5, 1.0)
    """
    return SCALES[canonical(scale)](out, in_)
