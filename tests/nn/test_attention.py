"""Attention of every kind against a plain loop over positions; every form and split of the cache agrees with it."""

import math
from typing import Any

import pytest
import torch

from spectrain import nn

WIDTH = 32
VARIANTS: dict[str, dict[str, Any]] = {
    "MHA": {"heads": 4},
    "GQA": {"heads": 4, "kv_heads": 2},
    "MQA": {"heads": 4, "kv_heads": 1},
    "MQA, large heads, partial RoPE": {"heads": 4, "kv_heads": 1, "head_dim": 20, "rotary_dim": 6},
    "GQA, values wider, no norm": {"heads": 4, "kv_heads": 2, "value_dim": 10, "qk_norm": False},
    "no positions": {"heads": 4, "rotary_dim": 0},
    "shared, S1": {"heads": 4, "kv_heads": 2, "head_dim": 12, "rotary_dim": 4, "share": "content"},
    "shared, S3": {"heads": 4, "kv_heads": 1, "head_dim": 12, "rotary_dim": 4, "value_dim": 8, "share": "content"},
    "shared, S1, values wider": {
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 12,
        "rotary_dim": 4,
        "value_dim": 19,
        "share": "content",
    },
    "shared, S1, values narrower": {
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 12,
        "rotary_dim": 4,
        "value_dim": 10,
        "share": "content",
    },
    "shared, S2": {"heads": 4, "kv_heads": 2, "head_dim": 12, "rotary_dim": 4, "share": "all"},
    "MLA": {"heads": 4, "latent": 12},
    "MLA, query rank, wide heads": {
        "heads": 4,
        "latent": 10,
        "head_dim": 14,
        "rotary_dim": 6,
        "value_dim": 9,
        "query_rank": 11,
    },
    "MLA, all rotated": {"heads": 4, "latent": 10, "head_dim": 6, "rotary_dim": 6, "value_dim": 9},
    "MLA, no positions": {"heads": 4, "latent": 10, "rotary_dim": 0, "latent_norm": False},
    "window": {"heads": 4, "kv_heads": 2, "window": 3},
    "shared, S2, queries and outputs by ranks": {
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 12,
        "rotary_dim": 4,
        "share": "all",
        "query_rank": 9,
        "output_rank": 7,
    },
    "MLA, output rank": {"heads": 4, "latent": 12, "output_rank": 6},
    "sinks": {"heads": 4, "kv_heads": 2, "window": 2, "sinks": 1},
    "sinks, partial RoPE, log n": {
        "heads": 4,
        "kv_heads": 1,
        "head_dim": 12,
        "rotary_dim": 4,
        "window": 1,
        "sinks": 2,
        "log_n": 5,
    },
    "sinks, no positions": {"heads": 4, "rotary_dim": 0, "window": 2, "sinks": 2},
    "log n": {"heads": 4, "kv_heads": 2, "log_n": 5},
    "MLA, window, log n": {"heads": 4, "latent": 12, "window": 3, "log_n": 5, "log_n_learned": True},
}
every = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(variant):
    """A block whose output matrix, learned factors and gains are not where they start."""
    block = nn.Attention(WIDTH, **variant)
    g = torch.Generator().manual_seed(3)
    block.initialise(generator=g)
    with torch.no_grad():
        for p in block.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (p.shape[-1] ** -0.5 if p.dim() > 1 else 0.2) + (p.dim() == 1))
    return block


def rotate(x, position, dim):
    """Rotary embedding of the last ``dim`` coordinates, as complex multiplication: a second implementation."""
    half, moving = dim // 2, x[x.numel() - dim :]
    turn = torch.polar(torch.ones(half), position * 10_000.0 ** -(torch.arange(half) / max(1, half)))
    turned = torch.complex(moving[:half], moving[half:]) * turn
    return torch.cat((x[: x.numel() - dim], turned.real, turned.imag))


def rms(x, on=True, eps=None):
    return x / (x.square().mean() + (torch.finfo(x.dtype).eps if eps is None else eps)).sqrt() if on else x


def by_loop(block, x, *, documents=None, mistake=""):
    """The definition, one query of one head at a time, from the weights alone."""
    s, out = block.shape, torch.zeros(*x.shape)
    for b, t in [(b, t) for b in range(x.shape[0]) for t in range(x.shape[1])]:
        first = 0 if block.window is None else max(0, t - block.window + (mistake != "window too wide"))
        last = t + 1 + (mistake == "sees the next token" and t + 1 < x.shape[1])
        own = [i for i in range(last) if documents is None or documents[b, i] == documents[b, t]]
        sinks = own[: getattr(block.kind, "sinks", 0)]
        seen = [i for i in own if i >= first or (i in sinks and mistake != "sinks forgotten")]
        heads = []
        for h in range(s.heads):
            stream = x[b, t]
            if s.query_rank is not None:
                stream = rms(block.query_down.weight @ stream, eps=1e-6) * block.query_norm.weight
            q = rms((block.query.weight @ stream).view(s.heads, -1)[h], block.qk_norm)
            if block.log_n is not None:
                n = x.shape[1] if mistake == "n is the length" else len(seen)
                q = q * math.log(n) / math.log(block.log_n)
                q = q * (1 if block.log_n_gain is None else block.log_n_gain[h])
            keys, values = zip(*(key_and_value(block, x[b, i], i, h, mistake) for i in seen), strict=True)
            dim = s.value_dim if mistake == "scale of the values" else s.head_dim
            near = own[0] + min(t - own[0], len(sinks) + (block.window or 0) - 1)
            places = [near if i in sinks and mistake != "sinks from afar" else t for i in seen]
            turned = torch.stack([rotate(q, place, s.rotary_dim) for place in places])
            weights = ((torch.stack(keys) * turned).sum(1) / math.sqrt(dim)).softmax(0)
            o = weights @ torch.stack(values)
            if s.share == "all" and mistake != "output not turned back":
                o = rotate(o, -t, s.rotary_dim)
            heads.append(o)
        found = torch.cat(heads)
        if s.output_rank is not None:
            found = block.output_down.weight @ found
        out[b, t] = block.output.weight @ found
    return out


def key_and_value(block, x, position, head, mistake):
    s = block.shape
    if s.latent is not None:
        c = block.latent.weight @ x
        c = rms(c, eps=1e-6) * block.latent_norm.weight if isinstance(block.latent_norm, torch.nn.RMSNorm) else c
        key = (block.key.weight @ c).view(s.heads, -1)[head] if s.content_dim else torch.zeros(0)
        rotated = block.key_rotary.weight @ x if s.rotary_dim else torch.zeros(0)
        return torch.cat((key, rotate(rotated, position, s.rotary_dim))), (block.value.weight @ c).view(s.heads, -1)[
            head
        ]
    group = head % s.kv_heads if mistake == "shares the wrong heads" else head * s.kv_heads // s.heads
    key = rms((block.key.weight @ x).view(s.kv_heads, -1)[group], block.qk_norm)
    turned = rotate(key, position, s.rotary_dim)
    if s.share == "all":
        return turned, turned
    extra = (block.value.weight @ x).view(s.kv_heads, -1)[group] if s.extra_dim else torch.zeros(0)
    return turned, extra if s.share == "none" else torch.cat((key[: s.content_dim], extra))


@every
def test_attention_is_its_definition(variant):
    block, x = make(variant), normal(2, 6, WIDTH)
    torch.testing.assert_close(block(x), by_loop(block, x), atol=1e-12, rtol=1e-12)


@every
def test_packed_and_padded_documents_are_documents_alone(variant):
    block, x = make(variant), normal(2, 7, WIDTH)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [-1, -1, 4, 4, 4, 4, 4]])  # packed; padded on the left
    packed = block(x, documents=documents)
    torch.testing.assert_close(packed, by_loop(block, x, documents=documents), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(packed[:1, 3:], block(x[:1, 3:]), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(packed[1:, 2:], block(x[1:, 2:]), atol=1e-12, rtol=1e-12)


MISTAKES = {
    "sees the next token": "MHA",
    "shares the wrong heads": "GQA",
    "output not turned back": "shared, S2",
    "window too wide": "window",
    "n is the length": "log n",
    "scale of the values": "MLA",
    "sinks forgotten": "sinks",
    "sinks from afar": "sinks",
}


@pytest.mark.parametrize(("mistake", "variant"), MISTAKES.items(), ids=MISTAKES)
def test_the_definition_rejects_wrong_answers(mistake, variant):
    block, x = make(VARIANTS[variant]), normal(1, 6, WIDTH)
    assert (block(x) - by_loop(block, x, mistake=mistake)).abs().max() > 1e-3


def splits(length, full):
    pieces = [[length], [1] * length, [2] * (length // 2), [1, 5, length - 6]]
    return pieces + ([[i, length - i] for i in range(1, length)] if full else [[3, length - 3]])


@every
@pytest.mark.parametrize("absorbed", [None, True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_every_split_of_the_cache_in_every_form_gives_the_full_forward(variant, absorbed, dtype, bound, full):
    if absorbed and "latent" not in variant:
        return  # refused, below
    block, x = make(variant).to(dtype), normal(2, 12, WIDTH).to(dtype)
    whole = block(x, absorbed=False)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(block(x, absorbed=absorbed), whole, atol=bound, rtol=bound)
            for pieces in splits(12, full):
                cache = block.empty_cache()
                parts = [block(part, cache=cache, absorbed=absorbed) for part in x.split(pieces, dim=1)]
                torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=bound, rtol=bound)
                assert cache.seen == 12


@every
def test_a_cache_of_padded_prompts_gives_what_each_gives_alone(variant):
    block, x = make(variant), normal(2, 9, WIDTH)
    documents = torch.tensor([[0] * 5, [-1, -1, 0, 0, 0]])
    cache = block.empty_cache()
    block(x[:, :5], cache=cache, documents=documents)
    steps = [block(x[:, i : i + 1], cache=cache) for i in range(5, 9)]  # no documents: each goes on with its own
    last = torch.cat(steps, dim=1)
    torch.testing.assert_close(last[0], block(x[:1])[0, 5:], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(last[1], block(x[1:, 2:])[0, 3:], atol=1e-12, rtol=1e-12)


@every
def test_the_cache_holds_the_numbers_that_are_stated(variant):
    block = make(variant)
    cache = block.empty_cache()
    with torch.no_grad():
        block(normal(2, 4, WIDTH), cache=cache)
    assert cache.numbers_per_token == block.shape.cache_numbers
    assert f"cache={block.shape.cache_numbers:,} numbers a token" in repr(block)


def test_the_published_shape_keeps_576_numbers_and_not_40960():
    with torch.device("meta"):
        block = nn.Attention(7168, heads=128, latent=512, query_rank=1536, head_dim=192, rotary_dim=64, value_dim=128)
    assert (block.shape.cache_numbers, block.shape.expanded_numbers) == (576, 40_960)
    shared = {"heads": 16, "kv_heads": 2, "head_dim": 256, "rotary_dim": 64}
    with torch.device("meta"):
        kept = [nn.Attention(2048, **shared, share=share).shape.cache_numbers for share in ("none", "content", "all")]
        s3 = nn.Attention(2048, heads=16, kv_heads=1, head_dim=576, rotary_dim=64, value_dim=512, share="content")
    assert kept == [1024, 640, 512]  # article 10907, part V
    assert s3.shape.cache_numbers == 576


def test_absorbing_is_chosen_for_few_queries_on_many_tokens_and_not_for_training():
    with torch.device("meta"):
        shape = nn.Attention(7168, heads=128, latent=512, head_dim=192, rotary_dim=64, value_dim=128).shape
    assert shape.absorbing_pays(1, 4096)
    assert shape.absorbing_pays(16, 4096)
    assert not shape.absorbing_pays(4096, 4096)
    assert not make(VARIANTS["MHA"]).shape.absorbing_pays(1, 4096)


def test_a_window_lets_go_of_what_nobody_sees():
    block, x = make(VARIANTS["window"]), normal(1, 200, WIDTH)
    cache = block.empty_cache()
    with torch.no_grad():
        steps = [block(x[:, i : i + 1], cache=cache) for i in range(200)]
        torch.testing.assert_close(torch.cat(steps, dim=1), block(x), atol=1e-12, rtol=1e-12)
    assert cache.seen == 200
    assert cache.stored <= 7


def test_log_n_makes_one_match_as_clear_at_any_length():
    """Article 9034: one key of score a log(train) among n keys of score 0 has weight n^a / (n^a + n - 1)."""
    train, a = 64, 1.5
    block = nn.Attention(4, heads=1, log_n=train, rotary_dim=0, qk_norm=False)
    with torch.no_grad():
        for module in (block.query, block.key, block.value, block.output):
            module.weight.copy_(torch.eye(4))
        for n in (8, 64, 1024):
            x = torch.zeros(1, n, 4)
            x[0, 0, 0], x[0, 0, 3] = 2 * a * math.log(train), 1.0  # scores are divided by sqrt(4)
            x[0, -1, 0] = 1.0
            weight = block(x)[0, -1, 3]
            own = math.log(n) / math.log(train) / 2
            assert math.isclose(weight, n**a / (n**a + n - 2 + math.exp(own)), rel_tol=1e-9)


def test_only_relative_positions_matter_to_scores():
    rotary = nn.attention.Rotary(16)
    q, k = normal(1, 16), normal(1, 16, seed=1)
    scores = [rotary(q, start=s + 7) @ rotary(k, start=s).mT for s in (0, 3, 100_000)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(scores[0], scores[2], atol=1e-9, rtol=1e-9)


BAD = {
    "heads do not divide": ({"heads": 3}, "divisible by heads"),
    "kv_heads do not divide": ({"heads": 4, "kv_heads": 3}, "divisible by kv_heads"),
    "no heads": ({"heads": 0}, "heads must be at least 1, got 0"),
    "odd rotary": ({"heads": 4, "rotary_dim": 3}, "must be even"),
    "odd heads": ({"heads": 4, "head_dim": 5}, "must be even"),
    "rotary beyond the head": ({"heads": 4, "rotary_dim": 10}, "rotary_dim must be even, from 0 to head_dim=8"),
    "latent and kv_heads": ({"heads": 4, "latent": 8, "kv_heads": 2}, "leave kv_heads=2 out"),
    "latent and share": ({"heads": 4, "latent": 8, "share": "all"}, "not both"),
    "latent and qk_norm": ({"heads": 4, "latent": 8, "qk_norm": True}, "cannot be absorbed"),
    "latent of nothing": ({"heads": 4, "latent": 0}, "latent must be at least 1"),
    "values too narrow": ({"heads": 4, "share": "content", "value_dim": 2}, "at least that"),
    "values not keys": ({"heads": 4, "share": "all", "value_dim": 4}, "key is the value"),
    "window 0": ({"heads": 4, "window": 0}, "at least 1"),
    "sinks without a window": ({"heads": 4, "sinks": 4}, "sinks=4 needs window="),
    "no sinks": ({"heads": 4, "sinks": 0, "window": 4}, "sinks must be at least 1, got 0"),
    "sinks of a latent": ({"heads": 4, "sinks": 4, "latent": 8, "window": 4}, "latent=8, sinks=4 .* not both"),
    "log_n 1": ({"heads": 4, "log_n": 1}, "at least 2"),
    "learned without log_n": ({"heads": 4, "log_n_learned": True}, "needs log_n"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_impossible_shapes_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        nn.Attention(WIDTH, **arguments)


def test_absorbing_without_a_latent_and_a_cache_of_another_batch_are_refused():
    block = make(VARIANTS["GQA"])
    with pytest.raises(ValueError, match="needs a latent"):
        block(normal(1, 2, WIDTH), absorbed=True)
    cache = block.empty_cache()
    block(normal(2, 2, WIDTH), cache=cache)
    with pytest.raises(ValueError, match="holds a batch of 2, got 1"):
        block(normal(1, 2, WIDTH), cache=cache)


def test_odd_heads_cannot_be_rotated():
    with pytest.raises(ValueError, match="even"):
        nn.attention.Rotary(5)
