"""Likelihood against its definition, and the sums that make accumulation exact."""

import math

import pytest
import torch

from spectrain import objectives


def logits(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def by_definition(x, targets):
    p = x.exp() / x.exp().sum(-1, keepdim=True)
    return -sum(math.log(p[i, t]) for i, t in enumerate(targets.tolist()) if t >= 0)


def test_it_is_the_negative_log_of_the_softmax():
    x, t = logits(5, 7), torch.tensor([0, 3, -100, 6, 1])
    got = objectives.negative_log_likelihood(x, t).item()
    assert math.isclose(got, by_definition(x, t), rel_tol=1e-12)


WRONG = {
    "mean": lambda x, t: torch.nn.functional.cross_entropy(x, t),
    "counts the ignored": lambda x, t: torch.nn.functional.cross_entropy(x, t.clamp(min=0), reduction="sum"),
    "bits": lambda x, t: objectives.negative_log_likelihood(x, t) / math.log(2),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_definition_rejects_wrong_answers(wrong):
    x, t = logits(5, 7), torch.tensor([0, 3, -100, 6, 1])
    assert not math.isclose(wrong(x, t).item(), by_definition(x, t), rel_tol=1e-6)


def test_narrow_logits_are_scored_in_float32():
    x = logits(4, 3000, dtype=torch.bfloat16)
    t = torch.arange(4)
    got = objectives.negative_log_likelihood(x, t)
    assert got.dtype == torch.float32
    assert math.isclose(got.item(), by_definition(x.double(), t), rel_tol=1e-5)


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 7], [11, 1]])
def test_sums_over_pieces_give_the_gradient_of_the_whole(sizes):
    t = torch.tensor([1, 2, -100, 0, 1, -100, -100, 2, 2, 1, 0, 0])
    whole = logits(12, 3).requires_grad_()
    (objectives.negative_log_likelihood(whole, t) / 9).backward()
    pieces = logits(12, 3).requires_grad_()
    for x, y in zip(pieces.split(sizes), t.split(sizes), strict=True):
        (objectives.negative_log_likelihood(x, y) / 9).backward()
    torch.testing.assert_close(pieces.grad, whole.grad, rtol=0, atol=0)


def test_a_mean_of_means_would_not():
    t = torch.tensor([1, 2, -100, 0])
    whole, pieces = logits(4, 3).requires_grad_(), logits(4, 3).requires_grad_()
    (objectives.negative_log_likelihood(whole, t) / 3).backward()
    for x, y in zip(pieces.split(2), t.split(2), strict=True):
        (torch.nn.functional.cross_entropy(x, y) / 2).backward()
    assert (pieces.grad - whole.grad).abs().max() > 1e-2


def test_one_bit_a_byte():
    assert objectives.bits_per_byte(math.log(2) * 10, bytes=10) == 1.0
    with pytest.raises(ValueError, match="at least one byte"):
        objectives.bits_per_byte(1.0, bytes=0)
