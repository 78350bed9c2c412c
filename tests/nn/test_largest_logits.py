"""The largest logit of each head, in every form of attention, against what torch was given; and QK-clip by it."""

import pytest
import torch
import torch.nn.functional as F

from spectrain import nn, optim
from spectrain.nn._attention.peak import largest_logits_of
from spectrain.nn._attention.visibility import Visibility

KINDS = {
    "MHA": {"heads": 4, "qk_norm": False},
    "GQA": {"heads": 4, "kv_heads": 2, "qk_norm": False},
    "MQA": {"heads": 4, "kv_heads": 1, "qk_norm": False},
    "MLA": {"heads": 4, "latent": 6},
    "MLA through a rank": {"heads": 4, "latent": 6, "query_rank": 5},
    "MLA, all rotated": {"heads": 4, "latent": 6, "head_dim": 4, "rotary_dim": 4, "value_dim": 4},
    "S1": {"heads": 4, "kv_heads": 2, "share": "content", "qk_norm": False},
    "S2": {"heads": 4, "kv_heads": 2, "share": "all", "qk_norm": False},
    "sinks": {"heads": 4, "sinks": 2, "window": 3, "qk_norm": False},
    "window": {"heads": 4, "window": 4, "qk_norm": False},
    "normalised": {"heads": 4, "kv_heads": 2},
    "log n": {"heads": 4, "log_n": 8, "log_n_learned": True},
}


def block(kind, *, loud=3.0):
    made = nn.Attention(16, **KINDS[kind]).double()
    made.initialise(generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.query.weight.view(4, -1, made.query.in_features).mul_(
            torch.tensor([1.0, loud, 0.1, 2 * loud])[:, None, None]
        )
    return made


def inputs(length=12, batch=2):
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Spy:
    """What torch's attention was given: the logits of each head over the pairs that it may see, written out."""

    def __init__(self, monkeypatch, heads=4):
        self.true, self.heads, self.found = F.scaled_dot_product_attention, heads, []
        monkeypatch.setattr(F, "scaled_dot_product_attention", self)

    def __call__(self, q, k, v, attn_mask=None, is_causal=False, scale=None, enable_gqa=False):
        rows = q.detach().double().unflatten(1, (k.shape[1], -1))
        logits = rows @ k.detach().double().unsqueeze(2).mT * scale
        if is_causal:
            logits = logits.masked_fill(~torch.ones(logits.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask.unsqueeze(2), -torch.inf)
        self.found.append(logits.flatten(1, 3).unflatten(1, (self.heads, -1)).amax((0, 2, 3)))
        return self.true(q, k, v, attn_mask=attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa)

    @property
    def largest(self):
        return torch.stack(self.found).amax(0)


CALLS = {
    "whole": lambda b, x: b(x),
    "two micro-batches": lambda b, x: [b(part) for part in x.split(1)],
    "documents": lambda b, x: b(x, documents=torch.arange(12).expand(2, -1) // 5),
    "in pieces, from a cache": lambda b, x: (lambda c: [b(part, cache=c) for part in x.split(3, dim=1)])(
        b.empty_cache()
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_logit_is_that_of_what_torch_was_given(kind, call, monkeypatch):
    layer, spy = block(kind), Spy(monkeypatch)
    nn.attention.watch_logits(layer)
    call(layer, inputs())
    found = nn.attention.largest_logits(layer)[""]
    torch.testing.assert_close(found, spy.largest.float(), rtol=1e-6, atol=1e-7)
    assert found.unique().numel() == 4  # heads differ: one number for all would not do


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "MLA" in kind])
def test_absorbed_expanded_and_watched_attention_see_the_same(kind, monkeypatch):
    layer, x, found = block(kind), inputs(), []
    nn.attention.watch_logits(layer)
    for absorbed in (True, False):
        layer(x, absorbed=absorbed)
        found.append(nn.attention.largest_logits(layer)[""])
    with nn.capture(layer, ["maps"]) as maps:
        layer(x)
    found.append(nn.attention.largest_logits(layer)[""])
    assert maps["maps"][0].shape == (2, 4, 12, 12)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-6, atol=0)


def test_by_the_definition_pair_by_pair():
    layer, x = block("GQA"), inputs()
    nn.attention.watch_logits(layer)
    with nn.capture(layer, ["queries", "keys"]) as seen:
        layer(x)
    q, k = seen["queries"][0], seen["keys"][0]
    pairs = [(b, i, j) for b in range(2) for i in range(12) for j in range(i + 1)]
    truth = [max(float(q[b, h, i] @ k[b, h // 2, j]) * layer.scale for b, i, j in pairs) for h in range(4)]
    truth = torch.tensor(truth)
    found = nn.attention.largest_logits(layer)[""]
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=0)
    unmasked = torch.einsum("bhid,bhjd->bhij", q, k.repeat_interleave(2, 1)).amax((0, 2, 3)) * layer.scale
    assert not torch.allclose(found.double(), unmasked)  # keys that no query sees do not count
    assert not torch.allclose(found.double(), truth.double() / layer.scale)


@pytest.mark.parametrize("length", [1, 127, 128, 129, 1500])
def test_blocks_of_queries_miss_nothing(length):
    draw = torch.Generator().manual_seed(length)
    q, k = (torch.randn(1, h, length + 7, 8, generator=draw) for h in (4, 2))
    q = q[:, :, 7:]
    visible = Visibility(length, length + 7, q.device)
    logits = q @ k.repeat_interleave(2, 1).mT * 0.5
    logits = logits.masked_fill(torch.ones(length, length + 7).triu(8).bool(), -torch.inf)
    torch.testing.assert_close(largest_logits_of(q, k, visible, scale=0.5), logits.amax((0, 2, 3)))


def test_it_looks_when_told_in_training_and_stays_in_float32():
    model = nn.LanguageModel(vocabulary=9, width=16, depth=2, heads=2, generator=0)
    tokens = torch.arange(8)[None] % 9
    model(tokens)
    with pytest.raises(ValueError, match="no logit was seen"):
        nn.attention.largest_logits(model)
    nn.attention.watch_logits(model)
    model.eval()
    model(tokens)
    with pytest.raises(ValueError, match="no logit was seen"):
        nn.attention.largest_logits(model)
    model.train().bfloat16()
    model(tokens).float().sum().backward()
    found = nn.attention.largest_logits(model)
    assert list(found) == ["blocks.0.attention", "blocks.1.attention"]
    assert all(top.dtype == torch.float32 and top.shape == (2,) for top in found.values())
    with pytest.raises(ValueError, match="no logit was seen"):  # taken
        nn.attention.largest_logits(model)
    assert not any("peak" in name for name in model.state_dict())
    nn.attention.watch_logits(model, on=False)
    model(tokens)
    with pytest.raises(ValueError, match="no logit was seen"):
        nn.attention.largest_logits(model)


@pytest.mark.parametrize(
    "kind", ["MHA", "GQA", "MQA", "MLA", "MLA through a rank", "MLA, all rotated", "S1", "S2", "sinks"]
)
def test_clipped_by_it_no_head_is_above_the_threshold_and_the_others_are_as_they_were(kind, monkeypatch):
    layer, x, spy = block(kind), inputs(), Spy(monkeypatch)
    nn.attention.watch_logits(layer)
    layer(x)
    top = nn.attention.largest_logits(layer)[""]
    threshold = float(top.sort().values[1:3].mean())
    kept = {name: p.detach().clone() for name, p in layer.named_parameters()}
    gamma = optim.qk_clip_(**layer.clip_arguments(), max_logits=top, threshold=threshold)
    assert ((gamma < 1) == (top > threshold)).all()
    assert (gamma < 1).sum() == 2
    spy.found.clear()
    layer(x)
    torch.testing.assert_close(spy.largest.float(), top.clamp(max=threshold), rtol=1e-5, atol=0)
    torch.testing.assert_close(nn.attention.largest_logits(layer)[""], top.clamp(max=threshold), rtol=1e-5, atol=0)
    moved = {name.removesuffix(".weight") for name, p in layer.named_parameters() if not torch.equal(p, kept[name])}
    shared = kind in ("S1", "S2", "MLA, all rotated")  # keys that are values, or of all heads
    assert moved == ({"query"} if shared else {"query", "key"})


def test_with_normalised_queries_and_keys_there_is_nothing_to_clip():
    with pytest.raises(ValueError, match="no weight changes a logit"):
        block("normalised").clip_arguments()
    layer = block("normalised", loud=100.0)
    nn.attention.watch_logits(layer)
    layer(inputs())
    assert nn.attention.largest_logits(layer)[""].max() <= layer.scale * layer.shape.head_dim * (1 + 1e-6)
