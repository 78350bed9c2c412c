"""Names of modes as type checkers know them. At run time they are strings, and a wrong one is a tuned ValueError."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    Scale = Literal[
        "match_rms_adamw", "original", "spectral", "none", "moonlight", "rms_norm", "adjusted", "shape_scaling",
        "spectral_unclamped", "spectral_norm", "rms_to_rms", "unit_rms_norm",
    ]  # fmt: skip
    Decay = Literal["decoupled", "independent", "cautious", "spectral"]
    VariantName = Literal["plain", "adam", "normuon", "muoneq"]
    BoundBy = Literal["post-clip", "pre-decay"]
    ComputeDtype = Literal["auto", "bfloat16", "float32"]
else:
    Scale = Decay = VariantName = BoundBy = ComputeDtype = str
