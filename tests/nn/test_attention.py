"""Attention against a plain loop over positions, and its cache at every split point."""

import math

import pytest
import torch
import torch.nn.functional as F

from spectrain import nn

SHAPES = [(4, 4), (4, 2), (4, 1)]


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def rotate(x: torch.Tensor, position: int) -> torch.Tensor:
    """Rotary embedding as complex multiplication: a second implementation."""
    half = x.shape[-1] // 2
    angle = position * 10_000.0 ** -(torch.arange(half) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones(half), angle)
    return torch.cat((turned.real, turned.imag), dim=-1)


def by_loop(block: nn.Attention, x: torch.Tensor, *, future: int = 0, group: bool = True) -> torch.Tensor:
    """The definition, one query at a time."""
    d, out = block.head_dim, torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            heads = []
            for h in range(block.heads):
                shared = h * block.kv_heads // block.heads if group else h % block.kv_heads
                q = F.rms_norm(block.query(x[b, t]).view(block.heads, d)[h], (d,))
                keys = [F.rms_norm(block.key(x[b, s]).view(-1, d)[shared], (d,)) for s in range(x.shape[1])]
                scores = [rotate(q, t) @ rotate(k, s) / math.sqrt(d) for s, k in enumerate(keys)][: t + 1 + future]
                weights = torch.stack(scores).softmax(0)
                values = torch.stack([block.value(x[b, s]).view(-1, d)[shared] for s in range(len(scores))])
                heads.append(weights @ values)
            out[b, t] = block.output(torch.cat(heads))
    return out


@pytest.mark.parametrize(("heads", "kv_heads"), SHAPES)
def test_attention_is_its_definition(heads, kv_heads):
    block, x = nn.Attention(32, heads=heads, kv_heads=kv_heads), torch.randn(2, 5, 32)
    torch.testing.assert_close(block(x), by_loop(block, x), atol=1e-6, rtol=1e-6)


WRONG = {
    "sees the next token": {"future": 1},
    "shares the wrong heads": {"group": False},
}


@pytest.mark.parametrize("mistake", WRONG.values(), ids=WRONG)
def test_the_definition_rejects_wrong_answers(mistake):
    block, x = nn.Attention(32, heads=4, kv_heads=2), torch.randn(1, 5, 32)
    assert (block(x) - by_loop(block, x, **mistake)).abs().max() > 1e-3


@pytest.mark.parametrize("pieces", [[6], [1, 5], [5, 1], [2, 2, 2], [1] * 6])
@pytest.mark.parametrize(("heads", "kv_heads"), SHAPES)
def test_cached_pieces_give_the_full_forward(pieces, heads, kv_heads):
    block, x = nn.Attention(32, heads=heads, kv_heads=kv_heads), torch.randn(2, 6, 32)
    cache = block.empty_cache(2)
    parts = [block(part, cache=cache) for part in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), block(x))
    assert cache[0].shape == (2, kv_heads, 6, 8)


def test_only_relative_positions_matter_to_scores():
    rotary = nn.Rotary(16)
    q, k = torch.randn(1, 16), torch.randn(1, 16)
    scores = [rotary(q, start=s + 7) @ rotary(k, start=s).mT for s in (0, 3, 100)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores[0], scores[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"heads": 3}, "divisible by heads"),
        ({"heads": 4, "kv_heads": 3}, "divisible by kv_heads"),
        ({"heads": 0}, "divisible by heads"),
    ],
)
def test_impossible_shapes_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        nn.Attention(32, **arguments)


def test_odd_heads_cannot_be_rotated():
    with pytest.raises(ValueError, match="even"):
        nn.Rotary(5)
