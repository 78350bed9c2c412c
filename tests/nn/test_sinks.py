"""Windows with attention sinks: against brute force in float64, beyond any length, in a cache that stays small."""

import math

import pytest
import torch

from spectrain import nn

HEADS, GROUPS, DIM, ROTATED, WINDOW, SINKS = 4, 2, 10, 6, 5, 3
SIZES = {"heads": HEADS, "kv_heads": GROUPS, "head_dim": DIM, "rotary_dim": ROTATED, "window": WINDOW, "sinks": SINKS}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(**changes):
    block = nn.Attention(12, **{**SIZES, **changes}).double()
    with torch.no_grad():
        for i, p in enumerate(block.parameters()):
            p.copy_(normal(*p.shape, seed=i) * p.shape[-1] ** -0.5)
    return block


def places(documents):
    """Place of each token in its stretch of equal numbers, and whether two tokens are of one stretch."""
    place, stretch = torch.zeros_like(documents), torch.zeros_like(documents)
    for b, t in [(b, t) for b in range(documents.shape[0]) for t in range(1, documents.shape[1])]:
        goes_on = documents[b, t] == documents[b, t - 1]
        place[b, t] = place[b, t - 1] + 1 if goes_on else 0
        stretch[b, t] = stretch[b, t - 1] + (not goes_on)
    return place, stretch[:, :, None] == stretch[:, None, :]


def brute_force(block, x, documents, mistake=""):
    """Every pair of tokens with the distance that the definition gives it; pairs of coordinates as complex numbers."""
    place, same = places(documents)
    back = place[:, :, None] - place[:, None, :]
    sink = (place < SINKS)[:, None, :].expand_as(back)
    window = WINDOW - SINKS if mistake == "sinks count in the window" else WINDOW
    seen = (back >= 0) & ((back < window) | sink)
    seen = seen & same if mistake != "sinks of the row" else seen & (same | sink)
    near = place.clamp(max=SINKS + WINDOW - (mistake != "one place further"))
    near = place.clamp(max=WINDOW - 1) if mistake == "the sinks' own places forgotten" else near
    distance = torch.where(sink, near[:, :, None] - place[:, None, :], back)
    distance = back if mistake == "distances grow" else distance

    def split(y, heads):
        return y.unflatten(-1, (heads, DIM)).transpose(1, 2).repeat_interleave(HEADS // heads, dim=1)

    def norm(y):
        return y / (y.square().mean(-1, keepdim=True) + torch.finfo(y.dtype).eps).sqrt()

    q, k = norm(split(x @ block.query.weight.T, HEADS)), norm(split(x @ block.key.weight.T, GROUPS))
    v, still, half = split(x @ block.value.weight.T, GROUPS), DIM - ROTATED, ROTATED // 2
    scores = q[..., :still] @ k[..., :still].mT
    a, b = (torch.complex(y[..., still : still + half], y[..., still + half :]) for y in (q, k))
    for i in range(half):
        angle = distance.double() * 10_000.0 ** (-i / half)
        turned = a[..., i, None] * b[..., None, :, i].conj() * torch.polar(torch.ones_like(angle), angle)[:, None]
        scores = scores + turned.real
    scores = (scores / math.sqrt(DIM)).masked_fill(~seen[:, None], -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ block.output.weight.T


DOCUMENTS = torch.tensor([[0] * 23, [-1] * 4 + [0] * 19, [0] * 9 + [1] * 2 + [0] * 12])


def gradients(call, block, x):
    x = x.clone().requires_grad_()
    block.zero_grad()
    call(x).sin().sum().backward()
    return [x.grad, *(p.grad.clone() for p in block.parameters())]


def test_values_and_gradients_are_those_of_brute_force():
    block, x = make(), normal(3, 23, 12, seed=9)
    torch.testing.assert_close(block(x, documents=DOCUMENTS), brute_force(block, x, DOCUMENTS), rtol=1e-12, atol=1e-12)
    ours = gradients(lambda x: block(x, documents=DOCUMENTS), block, x)
    torch.testing.assert_close(ours, gradients(lambda x: brute_force(block, x, DOCUMENTS), block, x))


@pytest.mark.parametrize(
    "mistake",
    [
        "distances grow",
        "one place further",
        "the sinks' own places forgotten",
        "sinks count in the window",
        "sinks of the row",
    ],
)
def test_brute_force_rejects_wrong_answers(mistake):
    block, x = make(), normal(3, 23, 12, seed=9)
    wrong = brute_force(block, x, DOCUMENTS, mistake)
    assert (block(x, documents=DOCUMENTS) - wrong).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[1] * 23, [9] + [1] * 14, [2, 7, 1, 1, 12], [21, 1, 1], [12, 11]])
def test_a_cache_that_has_let_go_gives_what_the_whole_gives_with_documents(pieces):
    block, x = make(), normal(3, 23, 12, seed=9)
    cache = block.empty_cache()
    given = zip(x.split(pieces, dim=1), DOCUMENTS.split(pieces, dim=1), strict=True)
    parts = [block(part, cache=cache, documents=documents) for part, documents in given]
    torch.testing.assert_close(torch.cat(parts, 1), brute_force(block, x, DOCUMENTS), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_continuation_goes_on_with_the_document_before_it_and_padding_is_no_sink():
    block, x = make(), normal(2, 40, 12, seed=8)
    documents = torch.tensor([[0] * 6, [-1] * 4 + [0] * 2])  # a prompt shorter than the sinks, padded on the left
    cache = block.empty_cache()
    parts = [block(x[:, :6], cache=cache, documents=documents)]
    parts += [block(token, cache=cache) for token in x[:, 6:].split(1, dim=1)]
    y = torch.cat(parts, dim=1)
    torch.testing.assert_close(y[:1], block(x[:1]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y[1:, 4:], block(x[1:, 4:]), rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("numbers", [[-1, 0], [0, 0, 1], [-1] * 7 + [0]])
def test_a_single_padded_prompt_goes_on_alone(numbers):
    block, x, before = make(), normal(1, 30, 12, seed=8), numbers.index(numbers[-1])
    cache = block.empty_cache()
    first, *rest = x.split([len(numbers), *[1] * (30 - len(numbers))], dim=1)
    parts = [block(first, cache=cache, documents=torch.tensor([numbers])), *(block(t, cache=cache) for t in rest)]
    torch.testing.assert_close(torch.cat(parts, 1)[:, before:], block(x[:, before:]), rtol=1e-12, atol=1e-12)


def held(cache):
    return max(room.shape[2] for room in vars(cache)["_room"])


@torch.no_grad()
def test_a_long_text_is_held_in_sinks_and_two_windows():
    block, x = make(), normal(1, 300, 12)
    cache = block.empty_cache()
    parts = []
    for token in x.split(1, dim=1):
        parts.append(block(token, cache=cache))
        assert cache.stored <= SINKS + 2 * WINDOW + 1
        assert held(cache) <= 2 * (SINKS + WINDOW) + 2
    assert cache.seen == 300
    torch.testing.assert_close(torch.cat(parts, dim=1), block(x), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_what_is_let_go_of_leaves_no_trace_however_much_it_is():
    """The property of StreamingLLM: the last token's output depends on sinks and window, and on no count of others."""
    block, ends = make(), normal(1, SINKS + WINDOW, 12)
    first, last = ends.split((SINKS, WINDOW), dim=1)
    expected = block(ends)[:, -1]
    for between in (1, 50, 1000):
        text = torch.cat((first, normal(1, between, 12, seed=between), last), dim=1)
        torch.testing.assert_close(block(text)[:, -1], expected, rtol=1e-11, atol=1e-11)
    plain = nn.Attention(12, **{**SIZES, "sinks": None, "window": None}).double()
    plain.load_state_dict(block.state_dict())
    assert (plain(text)[:, -1] - expected).abs().max() > 1e-3


@torch.no_grad()
def test_within_sinks_and_window_it_is_attention_to_all():
    block, x = make(), normal(2, SINKS + WINDOW, 12)
    plain = nn.Attention(12, **{**SIZES, "sinks": None, "window": None}).double()
    plain.load_state_dict(block.state_dict())
    assert torch.equal(block(x), plain(x))


@torch.no_grad()
def test_gradients_flow_through_a_cache_that_has_let_go():
    block, x = make(), normal(1, 20, 12)

    def stepped(x):
        cache = block.empty_cache()
        with torch.enable_grad():
            return torch.cat([block(token, cache=cache) for token in x.split(1, dim=1)], dim=1)

    with torch.enable_grad():
        torch.testing.assert_close(gradients(stepped, block, x), gradients(block, block, x))


def model(**changes):
    sizes = {"vocabulary": 31, "width": 24, "depth": 2, "heads": 4, "kv_heads": 2, "generator": 0}
    net = nn.LanguageModel(**sizes, attention={"window": 5, "sinks": 2}, **changes)
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.add_(normal(*p.shape, seed=i).to(p), alpha=0.1)
    return net


@torch.no_grad()
def test_generation_goes_on_past_the_context_without_reading_anything_again():
    net, text, read = model(), torch.tensor([[1, 2, 3], [4, 5, 6]]), []
    net.register_forward_pre_hook(lambda module, args: read.append(args[0].shape[1]))
    drawn = nn.generate(net, text, tokens=60, temperature=0.0, context=12)
    assert read == [3] + [1] * 59
    for _ in range(60):
        text = torch.cat((text, net(text)[:, -1].argmax(-1, keepdim=True)), dim=1)
    assert torch.equal(drawn, text)
    assert torch.equal(nn.generate(net, text[:, :3], tokens=60, temperature=0.0, context=12, form="full"), text)


@pytest.mark.parametrize("limits", [{"context": 6}, {"own": 12}])
def test_a_context_that_cannot_hold_sinks_and_window_or_is_the_models_own_is_kept_to(limits):
    net, read = model(context=limits.get("own")), []
    net.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["caches"][0].seen + args[0].shape[1]), with_kwargs=True
    )
    nn.generate(net, torch.tensor([[1, 2, 3]]), tokens=30, temperature=0.0, context=limits.get("context"))
    assert max(read) <= (limits.get("context") or 12)


def test_what_cannot_hold_sinks_refuses_them_by_name(tmp_path):
    with pytest.raises(ValueError, match="no counterpart for sinks=2"):
        nn.to_hugging_face(model(), tmp_path)
    with pytest.raises(ValueError, match="to_latent: with sinks=3 keys are seen from a place of their own"):
        nn.attention.to_latent(make(qk_norm=False))


@pytest.mark.parametrize("other", [{"sinks": 1}, {"sinks": None}])
def test_the_cache_of_another_kind_is_refused(other):
    with pytest.raises(ValueError, match=r"the cache keeps no 3 sinks; take this block's empty_cache\(\)"):
        make()(normal(1, 2, 12), cache=make(**other).empty_cache())
