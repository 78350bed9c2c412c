"""QK-clip (KellerJordan/Muon #59, pytorch #148819) judged by the logits of attention, head by head."""

import pytest
import torch

from spectrain import nn
from spectrain.optim import qk_clip_

X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LAYOUTS = {"multi-head": (4, 4, 0), "grouped": (4, 2, 0), "multi-query": (4, 1, 0), "latent": (4, 4, 2)}
WIDTH = 5


def weights(layout, sizes):
    heads, kv_heads, shared = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(heads, WIDTH, 6, generator=generator, dtype=torch.float64) * sizes[:, None, None]
    key = torch.randn(kv_heads * (WIDTH - shared) + shared, 6, generator=generator, dtype=torch.float64)
    return query.flatten(0, 1).contiguous(), key


def logits(query, key, layout):
    """Scaled logits of every head over all pairs of inputs, written out head by head."""
    heads, kv_heads, shared = LAYOUTS[layout]
    own = WIDTH - shared
    found = []
    for h in range(heads):
        g = h // (heads // kv_heads)
        rows = [key[g * own : (g + 1) * own]] + ([key[-shared:]] if shared else [])
        found.append((X @ query[h * WIDTH : (h + 1) * WIDTH].T) @ (X @ torch.cat(rows).T).T / WIDTH**0.5)
    return torch.stack(found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_head_is_brought_to_the_threshold_and_no_other_changes(layout):
    heads, kv_heads, shared = LAYOUTS[layout]
    query, key = weights(layout, torch.tensor([1.0, 30.0, 0.1, 60.0], dtype=torch.float64))
    before = logits(query, key, layout)
    top = before.amax((1, 2))
    threshold = float(top.sort().values[1:3].mean())  # two heads above, two below
    gamma = qk_clip_(query, key, heads=heads, kv_heads=kv_heads, shared=shared, max_logits=top, threshold=threshold)
    expected = torch.minimum(torch.ones_like(top), threshold / top)
    torch.testing.assert_close(gamma, expected)
    torch.testing.assert_close(logits(query, key, layout), before * expected[:, None, None], rtol=1e-12, atol=1e-12)


def test_the_rotary_key_that_all_heads_share_is_not_touched():
    query, key = weights("latent", torch.ones(4, dtype=torch.float64))
    kept = key[-2:].clone()
    qk_clip_(query, key, heads=4, shared=2, max_logits=torch.tensor([400.0, 1.0, 1.0, 1.0]))
    assert torch.equal(key[-2:], kept)
    assert not torch.equal(key[:3] * 2, key[:3])


def test_below_the_threshold_nothing_changes():
    query, key = weights("grouped", torch.ones(4, dtype=torch.float64))
    kept = query.clone(), key.clone()
    assert qk_clip_(query, key, heads=4, kv_heads=2, max_logits=torch.full((4,), 99.0)).eq(1).all()
    assert torch.equal(query, kept[0])
    assert torch.equal(key, kept[1])


def test_parameters_that_need_gradients_and_bfloat16():
    query = torch.nn.Parameter(torch.ones(4, 3, dtype=torch.bfloat16))
    key = torch.nn.Parameter(torch.ones(4, 3, dtype=torch.bfloat16))
    qk_clip_(query, key, heads=2, max_logits=torch.tensor([200.0, 50.0]))
    assert query.grad_fn is None
    assert torch.equal(query[:2], torch.full((2, 3), 0.5**0.5, dtype=torch.bfloat16))
    assert torch.equal(key[2:], torch.ones(2, 3, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"heads": 3}, "do not hold"),
        ({"heads": 4, "kv_heads": 3}, "multiple"),
        ({"heads": 4, "kv_heads": 2}, "do not hold"),
        ({"heads": 4, "shared": 9}, "do not hold"),
        ({"heads": 4, "max_logits": torch.ones(3)}, "shape"),
        ({"heads": 4, "max_logits": torch.tensor([1.0, 1.0, 1.0, float("inf")])}, "finite"),
        ({"heads": 4, "threshold": 0.0}, "positive"),
    ],
)
def test_what_does_not_fit_is_refused(settings, said):
    query, key = weights("multi-head", torch.ones(4, dtype=torch.float64))
    with pytest.raises(ValueError, match=said):
        qk_clip_(query, key, **{"max_logits": torch.ones(settings["heads"]), **settings})


def test_latent_attention_of_this_project_by_its_own_queries_and_keys():
    layer = nn.Attention(12, heads=3, head_dim=6, rotary_dim=2, latent=5).double()
    layer.initialise(generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def seen():
        with torch.no_grad(), nn.capture(layer, ["queries", "keys"]) as found:
            layer(x)
        return torch.einsum("bhid,bhjd->bhij", found["queries"][0], found["keys"][0]) * layer.scale

    before = seen()
    top = before.amax((0, 2, 3))
    threshold = float(top.sort().values[1] * 0.7)
    gamma = qk_clip_(layer.query.weight, layer.key.weight, heads=3, shared=2, max_logits=top, threshold=threshold)
    assert (gamma < 1).sum() >= 2
    torch.testing.assert_close(
        seen(), before * (threshold / top).clamp(max=1)[None, :, None, None], rtol=1e-12, atol=1e-12
    )
