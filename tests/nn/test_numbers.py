"""Numbers of a configuration that cannot be are refused by name."""

import math

import pytest

from spectrain import nn
from spectrain.nn._numbers import check_sizes

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


@pytest.mark.parametrize("bad", [True, False, 1.0, 1.5, "4", [1], math.nan])
def test_a_size_is_a_whole_number(bad):
    with pytest.raises(TypeError, match="Attention: window must be a whole number, got "):
        check_sizes("Attention", window=bad)


NAMES = (
    "width",
    "heads",
    "kv_heads",
    "head_dim",
    "value_dim",
    "latent",
    "query_rank",
    "output_rank",
    "window",
    "sinks",
)


@pytest.mark.parametrize("bad", [True, 2**63, 2**31, 0, -1])
@pytest.mark.parametrize("name", NAMES)
def test_attention_takes_sizes_only(name, bad):
    kind, words = (TypeError, "a whole number") if bad is True else (ValueError, "at most" if bad > 0 else "at least 1")
    with pytest.raises(kind, match=rf"^Attention: {name} must be {words}.*, got {bad}\."):
        nn.Attention(**{"width": 16, "heads": 2} | {name: bad})


def test_sizes_may_be_numbers_of_numpy():
    numpy = pytest.importorskip("numpy")
    check_sizes("Attention", width=numpy.int64(16), window=None)
