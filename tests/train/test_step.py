"""One step: accumulation is exact, bad numbers stop it and are named, weights are untouched then."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spectrain import nn, objectives
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run.loop import step
from spectrain.train.config import TrainConfig


def model(dtype=torch.float64):
    net = nn.LanguageModel(vocabulary=23, width=16, depth=2, heads=2, generator=0).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=dtype), alpha=0.1)
    return net


def batch():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 23, (8, 6), generator=generator)
    targets = torch.randint(0, 23, (8, 6), generator=generator)
    targets[0, 1:] = -100  # micro-batches with different numbers of targets
    targets[5] = -100
    return inputs, targets


def job(net, *, micro_batch=8):
    """The job of a run on :func:`batch`, without files to read."""
    made = object.__new__(LanguageJob)
    made.config = TrainConfig(batch_size=8, micro_batch_size=micro_batch)
    made.stream = SimpleNamespace(
        numbers=lambda step: np.arange(8), rows=lambda numbers: [part[numbers] for part in batch()]
    )
    made.text = SimpleNamespace(tokenizer=SimpleNamespace(byte_lengths=np.full(23, 3, dtype=np.int32)))
    made.model, made.device, made.autocast = net, torch.device("cpu"), torch.autocast("cpu", enabled=False)
    return made


def gradients(micro_batch):
    net = model()
    loss = job(net, micro_batch=micro_batch).accumulate(0).loss
    return loss, [p.grad for p in net.parameters()]


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_give_the_gradient_of_the_whole_batch(micro_batch):
    whole, pieces = gradients(8), gradients(micro_batch)
    assert pieces[0] == pytest.approx(whole[0], rel=1e-12)
    for a, b in zip(whole[1], pieces[1], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-13)


def test_a_mean_of_means_would_not():
    net = model()
    for x, y in zip(*(part.split(2) for part in batch()), strict=True):
        counted = max(1, int((y >= 0).sum()))
        (objectives.negative_log_likelihood(net(x), y) / counted / 4).backward()
    worst = max((p.grad - g).abs().max() for p, g in zip(net.parameters(), gradients(8)[1], strict=True))
    assert worst > 1e-3


def run(net):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    clip = lambda: torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0).item()  # noqa: E731
    return step(job(net), optimizer, 0, clip=clip)


def test_a_step_reports_loss_tokens_and_bytes():
    result = run(model())
    counted = int((batch()[1] >= 0).sum())
    assert result.measured.seen == {"tokens": counted, "bytes": 3 * counted}
    assert 0 < result.measured.loss < 10
    assert result.grad_norm > 0


PLANTED = {
    "weight blocks.1.feed_forward.up.weight": lambda net: net.blocks[1].feed_forward.up.weight.data[0].fill_(torch.nan),
    "weight embedding.weight": lambda net: net.embedding.weight.data[3].fill_(torch.inf),
    "output of blocks.0.attention": lambda net: net.blocks[0].attention.output.register_forward_hook(
        lambda _m, _i, out: out * torch.inf
    ),
    "gradient of blocks.0.attention.query.weight": lambda net: net.blocks[0].attention.query.weight.register_hook(
        lambda grad: grad * torch.nan
    ),
}


@pytest.mark.parametrize("where", PLANTED)
def test_the_first_bad_tensor_is_named_and_nothing_moves(where):
    net = model()
    PLANTED[where](net)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(FloatingPointError, match=where):
        run(net)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, net.parameters(), strict=True))


def test_healthy_numbers_are_not_accused():
    assert "although" in job(model()).first_bad_tensor(0)
