"""One token behind a cache: heads of any sizes, no copy of what is kept, and positions that are made once."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from spectrain import nn
from spectrain.nn._attention.cache import Cache
from spectrain.nn._attention.fused import FEW, LONG, fused
from spectrain.nn._attention.rotary import Rotary
from spectrain.nn._attention.turned import normalise_and_turn
from spectrain.nn._rms_norm import RMSNorm


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def definition(q, k, v, scale, causal, mask=None):
    """Maps written out, keys repeated."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.mT * scale
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v


CASES = {
    "values narrower": ((2, 4, 9, 6), (2, 4, 9, 6), (2, 4, 9, 3), True),
    "values wider": ((2, 4, 9, 3), (2, 4, 9, 3), (2, 4, 9, 7), True),
    "of one size": ((2, 4, 9, 5), (2, 4, 9, 5), (2, 4, 9, 5), True),
    "groups": ((1, 6, 9, 6), (1, 2, 9, 6), (1, 2, 9, 4), True),
    "one query": ((2, 4, 1, 6), (2, 4, 9, 6), (2, 4, 9, 3), False),
}


def off(found, true):
    return float((found.detach().double() - true.detach()).norm() / true.detach().norm())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_fused_attention_is_its_definition(case, dtype):
    *shapes, causal = CASES[case]
    parts = [normal(*shape, seed=i, dtype=dtype).requires_grad_() for i, shape in enumerate(shapes)]
    wide = [x.detach().double().requires_grad_() for x in parts]
    found, true = fused(*parts, scale=0.4, causal=causal), definition(*wide, 0.4, causal)
    u, g = torch.finfo(dtype).eps, normal(*true.shape, seed=9, dtype=dtype)
    assert found.shape == true.shape
    assert off(found, true) < 4 * u
    ours, theirs = torch.autograd.grad(found, parts, g), torch.autograd.grad(true, wide, g.double())
    assert max(off(a, b) for a, b in zip(ours, theirs, strict=True)) < 16 * u
    q, k, v = wide
    wrong = {
        "scaled by the width that is made": definition(q, k, v, 0.4 * 0.7, causal),
        "the first key heads for all": definition(q, k[:, :1], v[:, :1], 0.4, causal),
        "values from the end": definition(q, k, v.roll(1, -1), 0.4, causal),
    }
    assert min(off(found, each) for each in wrong.values()) > 0.02


def test_long_rows_in_bfloat16_and_a_mask_are_their_definition():
    q, k = (normal(1, 2, LONG + 3, 6, seed=i, dtype=torch.bfloat16).requires_grad_() for i in range(2))
    v = normal(1, 2, LONG + 3, 4, seed=2, dtype=torch.bfloat16).requires_grad_()
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    mask = normal(1, 1, LONG + 3, LONG + 3, seed=3) > 0
    true = definition(*wide, 0.4, False, mask)
    found = fused(q, k, v, scale=0.4, mask=mask)
    assert "Slice" in type(found.grad_fn).__name__  # widened
    assert off(found, true) < 2**-7
    g = normal(*true.shape, seed=4, dtype=torch.bfloat16)
    ours, theirs = torch.autograd.grad(found, (q, k, v), g), torch.autograd.grad(true, wide, g.double())
    assert max(off(a, b) for a, b in zip(ours, theirs, strict=True)) < 2**-6
    assert off(found, definition(*wide, 0.4, False, ~mask)) > 0.1


@pytest.mark.parametrize("length", [1, 3, FEW, FEW + 1])
@pytest.mark.parametrize("kind", ["whole", "mask", "bias"])
@torch.no_grad()
def test_few_queries_on_keys_by_coordinate_are_their_definition(length, kind):
    q, k, v = (normal(2, 3, n, 6, seed=n, dtype=torch.float32) for n in (length, 40, 41))
    cache = Cache(by_coordinate=True)
    for part in k.split([7, 32, 1], dim=2):
        (held,) = cache.append((part,))
    assert held.stride(2) == 1
    assert torch.equal(held, k)
    v = v[:, :, :40]
    mask = None if kind == "whole" else normal(2, 1, length, 40, seed=5) > -0.5
    given = torch.where(mask, 0.0, -torch.inf).float() if kind == "bias" else mask
    found = fused(q, held, v, scale=0.4, mask=given)
    wide = [x.double() for x in (q, k, v)]
    assert off(found, definition(*wide, 0.4, False, mask)) < 4 * torch.finfo(torch.float32).eps
    wrong = {
        "without the scale": definition(*wide, 1.0, False, mask),
        "the last key left out": definition(wide[0], *(x[:, :, :-1] for x in wide[1:]), 0.4, False, None),
        "keys of the next head": definition(wide[0], wide[1].roll(1, 1), wide[2], 0.4, False, mask),
        "what is hidden, and no more": definition(*wide, 0.4, False, None if mask is None else ~mask),
    }
    if kind == "whole":
        del wrong["what is hidden, and no more"]
    assert min(off(found, each) for each in wrong.values()) > 1e-3


def test_only_heads_with_keys_of_their_own_hold_them_by_coordinate():
    """In float32; what a window lets go of and where room grows the layout stays."""
    for arguments, dtype, expected in (
        ({}, torch.float32, True),
        ({"window": 3}, torch.float32, True),
        ({}, torch.bfloat16, False),
        ({}, torch.float64, False),
        ({"kv_heads": 2}, torch.float32, False),
        ({"share": "all"}, torch.float32, False),
        ({"window": 3, "sinks": 2}, torch.float32, False),
        ({"latent": 12}, torch.float32, False),
    ):
        block = nn.Attention(16, heads=4, **arguments).to(dtype)
        cache = block.empty_cache()
        with torch.no_grad():
            for seed in range(20):
                block(normal(2, 1, 16, seed=seed, dtype=dtype), cache=cache)
        room = vars(cache)["_room"]
        assert (room[0].stride(2) == 1) is expected
        assert all(part.stride(3) == 1 for part in room[1:])


@pytest.mark.parametrize("window", [None, 7, 300])
@torch.no_grad()
def test_a_long_part_behind_a_cache_is_what_the_whole_text_says(window):
    """Blocks of queries and their masks, the last of them short; then a token."""
    block = nn.Attention(8, heads=2, window=window)
    wide = nn.Attention(8, heads=2, window=window).double()
    torch.nn.init.normal_(block.output.weight, generator=torch.Generator().manual_seed(0))
    wide.load_state_dict(block.state_dict())
    x, cache = normal(1, 266, 8, dtype=torch.float32), block.empty_cache()
    found = torch.cat([block(part, cache=cache) for part in x.split([5, 260, 1], dim=1)], dim=1)
    assert off(found, wide(x.double())) < 16 * torch.finfo(torch.float32).eps
    other = nn.Attention(8, heads=2, window=6 if window is None else window + 1).double()
    other.load_state_dict(block.state_dict())
    assert window == 300 or off(found, other(x.double())) > 1e-3


class Made(TorchDispatchMode):
    """Bytes of the largest storage that an operation makes and was not given."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_iter(made):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return made


KINDS = {
    "MHA": {"head_dim": 8},
    "GQA": {"kv_heads": 2},
    "MQA": {"kv_heads": 1},
    "S1": {"kv_heads": 2, "share": "content", "head_dim": 8},
    "S1, values narrower": {"kv_heads": 2, "share": "content", "head_dim": 8, "value_dim": 7},
    "S3": {"kv_heads": 1, "share": "content", "head_dim": 8, "rotary_dim": 2, "value_dim": 6},
    "S2": {"kv_heads": 2, "share": "all"},
    "MLA": {"latent": 12},
    "MLA, wide heads": {"latent": 12, "head_dim": 10, "rotary_dim": 4, "value_dim": 5},
    "window": {"kv_heads": 2, "window": 900},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_token_costs_no_copy_of_those_before_it(name, dtype):
    block = nn.Attention(16, heads=4, **KINDS[name]).to(dtype)
    cache, stored = block.empty_cache(), 1000
    block(normal(1, stored, 16, dtype=dtype), cache=cache)
    block(normal(1, 1, 16, dtype=dtype), cache=cache)  # room doubles here
    with Made() as made:
        block(normal(1, 1, 16, dtype=dtype), cache=cache)
    assert made.largest < stored * cache.numbers_per_token * dtype.itemsize / 8


COPIES = {
    "keys repeated for their queries": lambda q, k, v: F.scaled_dot_product_attention(
        q, k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
    ),
    "values put together": lambda q, k, v: F.scaled_dot_product_attention(
        q, k, torch.cat((v[..., 1:], v[..., :1]), dim=-1), enable_gqa=True
    ),
    "torch's map of heads of two sizes": lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v[..., :3], enable_gqa=True
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_such_a_copy_would_have_been_seen(name):
    q, k, v = normal(1, 4, 1, 4), normal(1, 2, 1000, 4), normal(1, 2, 1000, 4)
    with Made() as made:
        COPIES[name](q, k, v)
    assert made.largest >= v.nbytes / 2


def test_one_position_is_turned_as_among_many():
    rotary = Rotary(8, base=500.0)
    cpu = torch.device("cpu")
    many = rotary.turns(0, 9000, device=cpu)
    for start in (0, 1, 8191):
        one = rotary.turns(start, 1, device=cpu)
        assert torch.equal(one.cos[0], many.cos[start])
        assert torch.equal(one.sin[0], many.sin[start])


def test_frequencies_are_kept_as_values_and_of_no_trace():
    """Whoever comes first, a trace or inference, the next one computes with numbers of its own kind."""
    for base, first in ((11.0, torch.inference_mode), (12.0, FakeTensorMode)):
        with first():
            Rotary(8, base=base)(torch.zeros(1, 3, 8))
        x = normal(1, 3, 8).requires_grad_()
        Rotary(8, base=base)(x).sum().backward()
        expected = base ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
        assert torch.equal(Rotary(8, base=base).frequencies(torch.device("cpu")), expected)
        with first():
            Rotary(8, base=base)(torch.zeros(1, 3, 8))


def test_the_turns_of_a_position_are_made_once_and_serve_in_every_mode():
    rotary, cpu = Rotary(8, base=13.0), torch.device("cpu")
    with torch.inference_mode():
        first = rotary.turns(5, 1, device=cpu)
        kept = first.cos, first.sin, *first.factors(torch.float64)
    assert rotary.turns(5, 1, device=cpu) is first
    assert rotary.turns(6, 1, device=cpu) is not first
    assert Rotary(8, base=14.0).turns(5, 1, device=cpu) is not first
    assert not any(t.is_inference() for t in kept)
    x = normal(1, 1, 8).requires_grad_()
    normalise_and_turn(x, first, eps=0.0).sum().backward()  # which saves them
    with FakeTensorMode():
        assert rotary.turns(5, 1, device=cpu) is not first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_gradient_the_numbers_are_the_same(dtype):
    turns = Rotary(8).turns(5, 1, device=torch.device("cpu"))
    x = normal(2, 3, 1, 8, dtype=dtype)
    with torch.no_grad():
        alone = normalise_and_turn(x, turns, eps=None), RMSNorm(8)(x.float())
    again = normalise_and_turn(x.requires_grad_(), turns, eps=None), RMSNorm(8)(x.float())
    assert all(torch.equal(a, b) for a, b in zip(alone, again, strict=True))


TOKENS = {
    **KINDS,
    "window": {"kv_heads": 2, "window": 5},
    "sinks": {"kv_heads": 2, "window": 4, "sinks": 2},
    "gains and biases": {"kv_heads": 2, "qk_norm": "gains", "bias": "all"},
    "log n": {"log_n": 4},
    "MLA, of ranks": {"latent": 12, "query_rank": 9, "output_rank": 7},
}


def behind_a_cache(block, x, documents, prompt, *, late=0, without=0):
    """Tokens one by one after a prompt; ``late`` puts them at a wrong position, ``without`` forgets so many of them."""
    cache = block.empty_cache()
    first = None if documents is None else documents[:, :prompt]
    block(x[:, :prompt], cache=cache, documents=first)
    cache.seen += late
    cache.stored -= without
    parts = []
    for i in range(prompt, x.shape[1]):
        now = None if documents is None else documents[:, i : i + 1]
        parts.append(block(x[:, i : i + 1], cache=cache, documents=now))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_token_behind_a_cache_is_what_the_whole_text_says_in_float64(name, dtype):
    torch.manual_seed(1)
    block = nn.Attention(16, heads=4, **TOKENS[name]).to(dtype)
    wide = nn.Attention(16, heads=4, **TOKENS[name]).double()
    wide.load_state_dict(block.state_dict())
    for batch, prompt in ((1, 1), (1, 7), (3, 6)):
        x = normal(batch, 10, 16, seed=prompt, dtype=dtype)
        packed = torch.tensor([[0] * 10, [1] * 4 + [2] * 6, [3] * 8 + [4] * 2]) if batch > 1 else None
        true = wide(x.double(), documents=packed, absorbed=False if wide.shape.latent else None)[:, prompt:]
        u = torch.finfo(dtype).eps * (4 if dtype == torch.bfloat16 else 16)
        assert off(behind_a_cache(block, x, packed, prompt), true) < u
        again = behind_a_cache(wide, x.double(), packed, prompt)
        torch.testing.assert_close(again, true, rtol=1e-11, atol=1e-11)
        if packed is None and name != "sinks":
            wrong = {
                "at the next position": behind_a_cache(wide, x.double(), packed, prompt, late=3),
                "the last of the prompt forgotten": behind_a_cache(wide, x.double(), packed, prompt, without=1),
                "tokens in another order": true.roll(1, 1),
            }
            assert min(off(each, true) for each in wrong.values()) > 2 * u


@torch.no_grad()
def test_absorbed_weights_are_not_copied_for_each_sequence():
    block = nn.Attention(8, heads=2, latent=256, head_dim=260, rotary_dim=4, value_dim=256)
    cache, x = block.empty_cache(), normal(3, 2, 8, dtype=torch.float32)
    block(x[:, :1], cache=cache)
    with Made() as made:
        block(x[:, 1:], cache=cache, absorbed=True)
    assert made.largest < block.value.weight.nbytes / 8
    with Made() as made:  # what torch makes of a product in which a matrix a head meets many sequences
        normal(3, 2, 1, 256, dtype=torch.float32) @ block.value.weight.unflatten(0, (2, -1)).mT
    assert made.largest >= 3 * block.value.weight.nbytes
