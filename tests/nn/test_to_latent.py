"""GQA as MLA: the same function where nothing is cut, the nearest of its rank where something is."""

import pytest
import torch

from spectrain import nn

BLOCKS = {
    "MHA": {"heads": 4},
    "GQA, all rotated": {"heads": 4, "kv_heads": 2},
    "MQA, partial RoPE": {"heads": 4, "kv_heads": 1, "head_dim": 12, "rotary_dim": 4},
    "GQA, partial RoPE, window, log n": {
        "heads": 4, "kv_heads": 2, "head_dim": 10, "rotary_dim": 4, "window": 3, "log_n": 6, "log_n_learned": True,
    },
    "S1": {"heads": 4, "kv_heads": 2, "head_dim": 12, "rotary_dim": 4, "share": "content"},
    "no positions, ranks": {"heads": 4, "kv_heads": 2, "rotary_dim": 0, "query_rank": 9, "output_rank": 5},
    "wider than the stream": {"heads": 4, "head_dim": 16, "rotary_dim": 4},
}  # fmt: skip
every = pytest.mark.parametrize("arguments", BLOCKS.values(), ids=BLOCKS)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(arguments):
    block = nn.Attention(32, **arguments, qk_norm=False).double()
    with torch.no_grad():
        for i, p in enumerate(block.parameters()):
            p.copy_(normal(*p.shape, seed=i) * (p.shape[-1] ** -0.5 if p.dim() > 1 else 0.2) + (p.dim() == 1))
    return block


@every
@torch.no_grad()
def test_uncut_it_is_the_same_function_in_every_form(arguments):
    block, x = make(arguments), normal(2, 9, 32)
    found = nn.attention.to_latent(block)
    assert found.error == 0
    assert found.attention.shape.cache_numbers <= block.shape.cache_numbers + (block.shape.content_dim * 2)
    for absorbed in (True, False):
        torch.testing.assert_close(found.attention(x, absorbed=absorbed), block(x), rtol=1e-11, atol=1e-11)
    cache = found.attention.empty_cache()
    pieces = [found.attention(part, cache=cache) for part in x.split([4, 1, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), block(x), rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_cut_it_is_the_best_of_its_rank_and_says_how_far():
    block = make({"heads": 4, "kv_heads": 2})
    W = block.value.weight  # all keys are rotated: the latent stands for the values alone
    s = torch.linalg.svdvals(W)
    for r in (1, 5, 15):
        found = nn.attention.to_latent(block, latent=r)
        near = found.attention.value.weight.view(4, 8, r)[::2].flatten(0, 1) @ found.attention.latent.weight
        best = (s[r:].square().sum() / s.square().sum()).sqrt()
        assert abs((near - W).norm() / W.norm() - best) < 1e-12
        assert abs(found.error - best) < 1e-12
        assert found.attention.shape.cache_numbers == r + 16


@torch.no_grad()
def test_with_inputs_the_cut_is_nearest_on_them():
    block = make({"heads": 4, "kv_heads": 2})
    X = normal(200, 6, seed=9) @ normal(6, 32, seed=8) + 1e-3 * normal(200, 32, seed=7)
    W = block.value.weight

    def lost(found):
        near = found.attention.value.weight.view(4, 8, -1)[::2].flatten(0, 1) @ found.attention.latent.weight
        return ((X @ (near - W).mT).norm() / (X @ W.mT).norm()).item()

    told, blind = nn.attention.to_latent(block, latent=6, inputs=X), nn.attention.to_latent(block, latent=6)
    assert abs(lost(told) - told.error) < 1e-10
    assert told.error < 2e-3 < 0.1 < lost(blind)


def test_what_cannot_be_converted_is_refused():
    with pytest.raises(ValueError, match="keys are normalised"):
        nn.attention.to_latent(nn.Attention(32, heads=4))
    with pytest.raises(ValueError, match="latent of 8 already"):
        nn.attention.to_latent(nn.Attention(32, heads=4, latent=8))
    with pytest.raises(ValueError, match="values are rotated"):
        nn.attention.to_latent(nn.Attention(32, heads=4, share="all", qk_norm=False))
    with pytest.raises(ValueError, match="from 1 to 16, got 17"):
        nn.attention.to_latent(make({"heads": 4, "kv_heads": 2}), latent=17)
    with pytest.raises(ValueError, match="give more of them"):
        nn.attention.to_latent(make({"heads": 4, "kv_heads": 2}), latent=9, inputs=normal(4, 32))
