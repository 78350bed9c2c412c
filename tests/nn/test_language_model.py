"""The model: shapes, first loss, initial scales, causality, generation."""

import math

import pytest
import torch
import torch.nn.functional as F

from spectrain import nn

SIZES = {"vocabulary": 97, "width": 64, "depth": 3, "heads": 4, "kv_heads": 2}


def model(**changes):
    return nn.LanguageModel(**{**SIZES, "generator": 0, **changes})


def tokens(*shape):
    return torch.randint(0, 97, shape, generator=torch.Generator().manual_seed(1))


def test_the_first_loss_is_that_of_a_uniform_guess():
    logits = model()(tokens(2, 9))
    loss = F.cross_entropy(logits.flatten(0, 1), tokens(2, 9).flatten())
    assert math.isclose(loss.item(), math.log(97), rel_tol=1e-6)


def test_tied_weights_are_one_tensor_and_learn_as_one():
    tied, free = model(tied=True), model()
    assert tied.head.weight is tied.embedding.weight
    saved = sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters())
    assert saved == 97 * 64


def test_initial_weights_have_the_stated_scales():
    wide = model(width=256)
    block = wide.blocks[0]
    for reader in (
        block.attention.query,
        block.attention.value,
        block.feed_forward.gate,
        block.feed_forward.up,
    ):
        assert math.isclose(reader.weight.std().item(), 256**-0.5, rel_tol=0.05)
    for writer in (block.attention.output, block.feed_forward.down):
        assert writer.weight.count_nonzero() == 0


def test_a_new_model_is_the_identity_on_the_residual_stream():
    small = model()
    x = F.rms_norm(small.embedding(tokens(1, 5)), (64,))
    torch.testing.assert_close(small.features(tokens(1, 5)), F.rms_norm(x, (64,)), atol=1e-5, rtol=1e-5)


def test_the_same_seed_draws_the_same_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, second, other = model(), model(), model(generator=1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def perturbed(**changes):
    """A model that is not the identity: as after some training."""
    net = model(**changes)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    return net


def test_a_token_changes_no_logits_before_it():
    net, x = perturbed(), tokens(1, 8)
    y = x.clone()
    y[0, 5] = (x[0, 5] + 1) % 97
    a, b = net(x), net(y)
    torch.testing.assert_close(a[:, :5], b[:, :5])
    assert (a[:, 5:] - b[:, 5:]).abs().max() > 1e-3


def test_greedy_generation_with_a_cache_is_greedy_generation_without():
    net, text = perturbed(), tokens(2, 3)
    fast = nn.generate(net, text, tokens=6, temperature=0.0)
    for _ in range(6):
        text = torch.cat((text, net(text)[:, -1].argmax(-1, keepdim=True)), dim=-1)
    assert torch.equal(fast, text)


def test_generation_never_looks_back_further_than_the_context():
    net, text, seen = perturbed(), tokens(1, 3), []

    def look(_module, args, kwargs):
        seen.append(kwargs["caches"][0].seen + args[0].shape[1])

    net.register_forward_pre_hook(look, with_kwargs=True)
    out = nn.generate(net, text, tokens=20, context=8, generator=torch.Generator().manual_seed(0))
    assert out.shape == (1, 23)
    assert max(seen) <= 8


def test_top_k_of_one_is_the_most_likely_token():
    net, text = perturbed(), tokens(1, 4)
    one = nn.generate(net, text, tokens=5, top_k=1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(one, nn.generate(net, text, tokens=5, temperature=0.0))


def test_sampling_follows_the_softmax():
    net = perturbed(vocabulary=5)
    text = torch.zeros(4000, 1, dtype=torch.long)
    drawn = nn.generate(net, text, tokens=1, generator=torch.Generator().manual_seed(0))[:, 1]
    counts = torch.bincount(drawn, minlength=5) / 4000
    expected = net(text[:1])[0, -1].softmax(-1)
    assert (counts - expected).abs().max() < 4 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"temperature": -1.0}, "temperature"), ({"top_k": 0}, "top_k"), ({}, "empty")],
)
def test_generation_refuses_what_it_cannot_do(arguments, words):
    prompt = tokens(1, 0 if words == "empty" else 2)
    with pytest.raises(ValueError, match=words):
        nn.generate(model(), prompt, tokens=1, **arguments)


@pytest.mark.parametrize("form", ["auto", "absorbed", "expanded", "full"])
def test_every_form_of_decoding_draws_the_same_text(form):
    net = perturbed(kv_heads=None, attention={"latent": 24, "log_n": 8})
    expected = nn.generate(net, tokens(3, 4), tokens=30, context=12, temperature=0.0, form="full")
    assert torch.equal(nn.generate(net, tokens(3, 4), tokens=30, context=12, temperature=0.0, form=form), expected)


def test_padded_prompts_of_several_lengths_go_on_as_each_alone():
    net, text = perturbed(attention={"log_n": 8}), tokens(2, 6)
    documents = torch.tensor([[0] * 6, [-1] * 2 + [0] * 4])
    both = nn.generate(net, text, tokens=12, temperature=0.0, documents=documents, context=11)
    assert torch.equal(both[:1], nn.generate(net, text[:1], tokens=12, temperature=0.0, context=11))
    short = nn.generate(net, text[1:, 2:], tokens=5, temperature=0.0)  # up to where its own context would be fuller
    assert torch.equal(both[1:, 2:11], short)


def test_top_p_draws_from_the_fewest_tokens_that_hold_the_chance():
    net = perturbed(vocabulary=9)
    text = torch.zeros(3000, 1, dtype=torch.long)
    falling, order = net(text[:1])[0, -1].softmax(-1).sort(descending=True)
    for p in (0.2, 0.5, 0.9):
        drawn = nn.generate(net, text, tokens=1, top_p=p, generator=torch.Generator().manual_seed(0))[:, 1]
        enough = int((falling.cumsum(0) < p).sum()) + 1
        assert set(drawn.unique().tolist()) == set(order[:enough].tolist())


def test_a_row_that_has_stopped_stays_stopped_and_all_stopped_ends_the_stream():
    net = perturbed(vocabulary=3)
    out = nn.generate(
        net, torch.zeros(6, 1, dtype=torch.long), tokens=60, stop=2, generator=torch.Generator().manual_seed(1)
    )
    assert out.shape[1] < 61
    for row in out.tolist():
        first = row.index(2)
        assert set(row[first:]) == {2}


def test_streamed_tokens_are_the_generated_ones_and_come_one_by_one():
    net, text = perturbed(), tokens(2, 3)
    pieces = nn.stream(net, text, tokens=5, temperature=0.0)
    first = next(pieces)
    assert first.shape == (2, 1)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.cat((text, first, *pieces), 1), nn.generate(net, text, tokens=5, temperature=0.0))


def test_a_context_is_kept_to():
    net = perturbed(context=8)
    assert nn.generate(net, tokens(1, 3), tokens=20, temperature=0.0).shape == (1, 23)
    with pytest.raises(ValueError, match="9 tokens are beyond its context of 8"):
        net(tokens(1, 9))
    caches = net.empty_caches()
    net(tokens(1, 6), caches=caches)
    with pytest.raises(ValueError, match="beyond its context"):
        net(tokens(1, 3), caches=caches)


def test_the_feed_forward_can_be_replaced():
    class Square(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.drawn = layer, False

        def initialise(self, *, generator):
            self.drawn = True

        def forward(self, x):
            return self.layer * x.square()

    net = model(feed_forward=Square)
    assert [block.feed_forward.layer for block in net.blocks] == [0, 1, 2]
    assert all(block.feed_forward.drawn for block in net.blocks)
    assert net(tokens(1, 4)).shape == (1, 4, 97)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"top_p": 0.0}, "top_p"), ({"top_p": 1.5}, "top_p"), ({"form": "fast"}, "form must be one of")],
)
def test_more_that_generation_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        nn.generate(model(), tokens(1, 2), tokens=1, **arguments)


def test_a_token_outside_the_vocabulary_is_named():
    with pytest.raises(ValueError, match="token 97 of the prompt is outside the vocabulary of 97"):
        nn.generate(model(), torch.tensor([[1, 97]]), tokens=1)


@pytest.mark.parametrize("changes", [{"vocabulary": 0}, {"depth": 0}, {"heads": 5}, {"context": 0}])
def test_impossible_models_are_refused(changes):
    with pytest.raises(ValueError, match=r"needs|must be at least 1"):
        model(**changes)
