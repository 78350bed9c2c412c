"""The likelihood of a linear head against that of its logits, which never exist in one piece."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spectrain import objectives

TOKENS, WIDTH, VOCABULARY = 23, 6, 40


def draw(dtype=torch.float64, scale=1.0):
    g = torch.Generator().manual_seed(0)
    features = torch.randn(TOKENS, WIDTH, generator=g, dtype=torch.float64) * scale
    weight = torch.randn(VOCABULARY, WIDTH, generator=g, dtype=torch.float64)
    targets = torch.randint(0, VOCABULARY, (TOKENS,), generator=g)
    targets[[3, 11]] = -100
    return features.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def by_logits(features, weight, targets):
    return objectives.negative_log_likelihood(features @ weight.mT, targets)


def gradients(loss, *of):
    return torch.autograd.grad(3 * loss, of)


@pytest.mark.parametrize("rows", [1, 4, 23, 512])
def test_loss_and_gradients_are_those_of_the_logits(rows):
    features, weight, targets = draw()
    got = objectives.linear_negative_log_likelihood(features, weight, targets, rows=rows)
    want = by_logits(features, weight, targets)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=0)
    for g, w in zip(gradients(got, features, weight), gradients(want, features, weight), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-13)


WRONG = {
    "counts the ignored": lambda f, w, t: by_logits(f, w, t.clamp(min=0)),
    "forgets the last piece": lambda f, w, t: by_logits(f[:20], w, t[:20]),
    "mean": lambda f, w, t: by_logits(f, w, t) / 21,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_definition_rejects_wrong_answers(wrong):
    features, weight, targets = draw()
    want = by_logits(features, weight, targets).item()
    assert not math.isclose(WRONG[wrong](features, weight, targets).item(), want, rel_tol=1e-6)


def test_only_what_needs_a_gradient_gets_one():
    features, weight, targets = draw()
    loss = objectives.linear_negative_log_likelihood(features.detach(), weight, targets)
    want = by_logits(features, weight, targets)
    torch.testing.assert_close(*gradients(loss, weight), *gradients(want, weight))
    with torch.no_grad():
        assert not objectives.linear_negative_log_likelihood(features, weight, targets).requires_grad


def test_shapes_before_the_last_are_free():
    features, weight, targets = draw()
    cut = objectives.linear_negative_log_likelihood(features[:20].view(4, 5, WIDTH), weight, targets[:20].view(4, 5))
    torch.testing.assert_close(cut, by_logits(features[:20], weight, targets[:20]))


def test_a_target_of_no_probability_has_its_true_loss():
    weight = torch.tensor([[0.0], [1000.0]])
    features = torch.ones(1, 1, requires_grad=True)
    loss = objectives.linear_negative_log_likelihood(features, weight, torch.tensor([0]))
    assert loss.item() == 1000
    loss.backward()
    assert features.grad.item() == 1000


def test_what_is_not_a_number_is_not_hidden():
    features, weight, targets = draw()
    with torch.no_grad():
        features[5, 0] = math.nan
    assert objectives.linear_negative_log_likelihood(features, weight, targets).isnan()


def test_a_target_outside_the_vocabulary_is_refused():
    features, weight, targets = draw()
    targets[2] = VOCABULARY
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        objectives.linear_negative_log_likelihood(features, weight, targets)


def test_rows_below_one_are_refused():
    with pytest.raises(ValueError, match="rows=0"):
        objectives.linear_negative_log_likelihood(*draw(), rows=0)


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that was made meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_no_more_logits_exist_than_asked_for():
    features, weight, targets = draw()
    with Largest() as seen:
        objectives.linear_negative_log_likelihood(features, weight, targets, rows=6).backward()
    assert seen.numbers == max(6 * VOCABULARY, VOCABULARY * WIDTH)
    with Largest() as seen:
        by_logits(features, weight, targets).backward()
    assert seen.numbers == TOKENS * VOCABULARY


def test_under_autocast_the_error_is_no_larger_than_that_of_the_logits():
    features, weight, targets = draw(torch.float32, scale=2.0)
    exact = [t.detach().double().requires_grad_() for t in (features, weight)]
    truth = gradients(by_logits(*exact, targets), *exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = objectives.linear_negative_log_likelihood(features, weight, targets, rows=5)
        theirs = by_logits(features, weight, targets)
    assert ours.dtype == torch.float32
    for got, plain, want in zip(
        gradients(ours, features, weight), gradients(theirs, features, weight), truth, strict=True
    ):
        assert got.dtype == torch.float32
        assert (got - want).norm() <= 1.1 * (plain - want).norm()
        assert (got - want).norm() < 2**-7 * want.norm()
