"""Numbers of a configuration that cannot be are refused by name."""

import math

import pytest

from spectrain import nn

SIZES = {"vocabulary": 11, "width": 16, "depth": 1, "heads": 2}
IMAGE = {"size": 4, "channels": 1, "patch": 2, "width": 16, "depth": 1, "heads": 2}
MOE = {"experts": 4, "top_k": 2, "hidden": 8}
CALLS = {
    "rotary_base": lambda bad: nn.Attention(16, heads=2, rotary_base=bad),
    "base": lambda bad: nn.attention.Rotary(8, base=bad),
    "scale": lambda bad: nn.Attention(16, heads=2, scale=bad),
    "norm_eps": lambda bad: nn.Attention(16, heads=2, norm_eps=bad),
    " norm_eps": lambda bad: nn.LanguageModel(**SIZES, norm_eps=bad),
    "LanguageModel.*rotary_base|rotary_base": lambda bad: nn.LanguageModel(**SIZES, attention={"rotary_base": bad}),
    "MoE: scale": lambda bad: nn.MoE(16, **MOE, scale=bad),
    "temperature": lambda bad: nn.MoE(16, **MOE, temperature=bad),
    "weight": lambda bad: nn.experts.Penalty(weight=bad),
    "z_weight": lambda bad: nn.experts.Penalty(z_weight=bad),
}


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("words", CALLS)
def test_numbers_that_cannot_be_are_named(words, bad):
    with pytest.raises(ValueError, match=words):
        CALLS[words](bad)


COUNTS = {
    "width": lambda: nn.LanguageModel(**SIZES | {"width": 0}),
    "hidden": lambda: nn.LanguageModel(**SIZES, hidden=0),
    "heads": lambda: nn.LanguageModel(**SIZES | {"heads": 0}),
    "SwiGLU: hidden": lambda: nn.models.SwiGLU(8, hidden=-1),
    "parts": lambda: nn.attention.Rotary(8, parts=0),
    "kv_heads": lambda: nn.Attention(16, heads=2, kv_heads=0),
    "channels": lambda: nn.ImageTransformer(**IMAGE | {"channels": 0}),
    "size": lambda: nn.ImageTransformer(**IMAGE | {"size": 0}),
    "classes": lambda: nn.ImageTransformer(**IMAGE, classes=-1),
    "vocabulary": lambda: nn.TextEncoder(vocabulary=0, width=16, depth=1, heads=2),
    "target": lambda: nn.experts.Penalty(target=(math.nan, 0.5)),
}


@pytest.mark.parametrize("words", COUNTS)
def test_sizes_that_cannot_be_are_named(words):
    with pytest.raises(ValueError, match=words):
        COUNTS[words]()
