"""Weight averages: the formula, and everything that goes wrong around them."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from spectrain.optim import WeightAverage


class Net(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.embedding = nn.Embedding(3, 2, dtype=dtype)
        self.norm = nn.BatchNorm1d(2, dtype=dtype)
        self.head = nn.Linear(2, 3, bias=False, dtype=dtype)
        self.head.weight = self.embedding.weight
        self.register_buffer("balance", torch.zeros(3))


@torch.no_grad()
def move(net, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.copy_(torch.randn(p.shape, generator=generator))
    net.balance.fill_(float(seed))
    net.norm.running_mean.fill_(float(seed))


def averaged(values, life, amounts):
    """The definition, in float64."""
    age = np.cumsum(amounts[::-1])[::-1] - amounts
    weights = (1 - 0.5 ** (amounts / life)) * 0.5 ** (age / life)
    return np.tensordot(weights / weights.sum(), np.stack(values), axes=1)


def run(average, net, seeds, amounts=None):
    values = []
    for i, seed in enumerate(seeds):
        move(net, seed)
        average.update(1.0 if amounts is None else amounts[i])
        values.append(net.embedding.weight.detach().double().numpy().copy())
    return values


@pytest.mark.parametrize("amounts", [np.ones(30), np.linspace(0.5, 4, 30)], ids=["steps", "tokens"])
def test_the_formula(amounts):
    net = Net()
    average = WeightAverage(net, half_lives=[2.0, 10.0, 300.0], dtype=torch.float64)
    values = run(average, net, range(30), amounts)
    for life in average.half_lives:
        truth = averaged(values, life, amounts)
        np.testing.assert_allclose(average.averaged(life)["embedding.weight"].numpy(), truth, rtol=1e-6, atol=1e-6)
        with average.applied(life):
            np.testing.assert_allclose(net.embedding.weight.detach().numpy(), truth, rtol=1e-5, atol=1e-6)


WRONG = {
    "initial weights count": lambda v, life, n: averaged([np.zeros_like(v[0]), *v], life, np.r_[n[:1], n]),
    "half-life taken for a time constant": lambda v, life, n: averaged(v, life * np.log(2), n),
    "plain mean": lambda v, life, n: np.mean(v, axis=0),
    "last weights": lambda v, life, n: v[-1],
    "amounts ignored": lambda v, life, n: averaged(v, life, np.ones(len(n))),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_other_averages(wrong):
    net, amounts = Net(), np.linspace(0.5, 4, 8)
    average = WeightAverage(net, half_lives=[10.0], dtype=torch.float64)
    values = run(average, net, range(8), amounts)
    found = average.averaged()["embedding.weight"].numpy()
    assert np.abs(found - wrong(values, 10.0, amounts)).max() > 1e-3


def test_the_first_average_is_the_first_weights_and_not_the_initial_ones():
    net = Net()
    average = WeightAverage(net, half_lives=[1e6])
    with pytest.raises(RuntimeError, match="before the first update"), average.applied():
        pass
    run(average, net, [5])
    assert torch.equal(average.averaged()["embedding.weight"], net.embedding.weight.detach())


def test_evaluation_gives_the_weights_back_bit_for_bit_also_after_an_error():
    net = Net(dtype=torch.bfloat16)
    average = WeightAverage(net, half_lives=[3.0], buffers="average")
    run(average, net, range(4))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(KeyError), average.applied():
        assert not torch.equal(net.embedding.weight, before["embedding.weight"])
        raise KeyError
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_saving_and_updating_are_refused_inside():
    """nequip #590, waifu-diffusion #31, schnetpack #785: a checkpoint written while averages were in the model."""
    net = Net()
    average = WeightAverage(net, half_lives=[3.0])
    run(average, net, range(2))
    with average.applied():
        for refused in (net.state_dict, average.state_dict, average.update, average.averaged):
            with pytest.raises(RuntimeError, match=r"inside applied"):
                refused()
        with pytest.raises(RuntimeError, match="inside applied"), average.applied():
            pass
    net.state_dict()


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resume_is_bit_exact_at_any_point(stop):
    """Samudra #313: the average was reset on resume."""
    whole, first, second = Net(), Net(), Net()
    kept = WeightAverage(whole, half_lives=[2.0, 7.0])
    run(kept, whole, range(6), np.r_[np.ones(3), 2.0, 2.0, 1.0])
    before = WeightAverage(first, half_lives=[2.0, 7.0])
    run(before, first, range(stop), np.r_[np.ones(3), 2.0, 2.0, 1.0])
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after = WeightAverage(second, half_lives=[2.0, 7.0])
    after.load_state_dict(torch.load(file, weights_only=True))
    assert after.updates == stop
    run(after, second, range(stop, 6), np.r_[np.ones(3), 2.0, 2.0, 1.0][stop:])
    for life in (2.0, 7.0):
        a, b = kept.averaged(life), after.averaged(life)
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_state_of_something_else_is_refused():
    net = Net()
    average = WeightAverage(net, half_lives=[2.0])
    run(average, net, [0])
    with pytest.raises(ValueError, match="half-lives"):
        WeightAverage(net, half_lives=[3.0]).load_state_dict(average.state_dict())
    with pytest.raises(ValueError, match=r"another model: .*embedding\.weight"):
        WeightAverage(nn.Linear(2, 2), half_lives=[2.0]).load_state_dict(average.state_dict())


@pytest.mark.parametrize("buffers", ["live", "average"])
def test_buffers_by_rule(buffers):
    """torchtitan #3985: should the expert bias be averaged? A choice, and integers never."""
    net = Net()
    average = WeightAverage(net, half_lives=[2.0], buffers=buffers)
    run(average, net, [2, 4])
    found = average.averaged()
    assert (found["balance"][0].item() == 4.0) == (buffers == "live")
    assert found["norm.num_batches_tracked"].dtype == torch.int64
    with average.applied():
        assert (net.norm.running_mean[0].item() == 4.0) == (buffers == "live")


def test_shared_weights_stay_shared_and_are_exported_under_both_names():
    net = Net()
    average = WeightAverage(net, half_lives=[2.0])
    run(average, net, range(3))
    found = average.averaged()
    assert torch.equal(found["head.weight"], found["embedding.weight"])
    assert not torch.equal(found["head.weight"], net.head.weight)
    assert net.head.weight is net.embedding.weight


def test_16_bit_weights_are_averaged_in_float32():
    net = Net(dtype=torch.bfloat16)
    average = WeightAverage(net, half_lives=[1000.0])
    values = run(average, net, range(50))
    truth = averaged(values, 1000.0, np.ones(50))
    kept = average.state_dict()["averages"][0]["embedding.weight"]
    np.testing.assert_allclose(kept.numpy(), truth, rtol=1e-4, atol=1e-5)
    assert average.averaged()["embedding.weight"].dtype == torch.bfloat16


def test_other_half_lives_after_the_fact():
    net = Net()
    average = WeightAverage(net, half_lives=[8.0, 16.0, 32.0, 64.0], dtype=torch.float64)
    values = run(average, net, range(200))
    for life, bound in [(16.0, 1e-6), (24.0, 0.02), (45.0, 0.02)]:
        found, error = average.synthesize(life)
        truth = averaged(values, life, np.ones(200))
        scale = np.linalg.norm(truth)
        assert error <= bound
        assert np.linalg.norm(found["embedding.weight"].numpy() - truth) <= max(10 * error, 1e-6) * scale
    assert average.synthesize(1.0)[1] > 0.3, "too far away, and it says so"


def test_deepcopy_and_pickle_of_the_model_do_not_drag_the_averages_along():
    net = Net()
    average = WeightAverage(net, half_lives=[2.0])
    run(average, net, [0])
    assert not copy.deepcopy(net)._state_dict_pre_hooks


@pytest.mark.parametrize("lives", [[], [0.0], [-1.0], [float("inf")], [2.0, 2.0]])
def test_half_lives_that_cannot_be(lives):
    with pytest.raises(ValueError, match="half_lives"):
        WeightAverage(Net(), half_lives=lives)
    with pytest.raises(ValueError, match="amount"):
        WeightAverage(Net(), half_lives=[1.0]).update(0.0)


def test_buffers_by_rules_for_names():
    """torchtitan #3985: a balancing bias stays as it is, statistics are averaged."""
    net = Net()
    average = WeightAverage(net, half_lives=[3.0], buffers={"norm.*": "average", "*": "live"})
    run(average, net, range(6))
    with average.applied():
        assert net.balance.eq(5.0).all()
        assert net.norm.running_mean.lt(5.0).all()
    with pytest.raises(ValueError, match=r"nothing matches nrom\.\* among balance, norm.running_mean"):
        WeightAverage(net, half_lives=[3.0], buffers={"nrom.*": "average"})


def test_nothing_of_the_model_is_saved_inside():
    """nequip #590, waifu-diffusion #31: not the whole, not a part, not by pickle."""
    net = Net()
    average = WeightAverage(net, half_lives=[3.0])
    run(average, net, range(3))
    with average.applied():
        for save in (
            net.state_dict,
            net.head.state_dict,
            lambda: torch.save(net, io.BytesIO()),
            lambda: copy.deepcopy(net),
        ):
            with pytest.raises(RuntimeError, match="inside applied"):
                save()
    net.state_dict()
    torch.save(net, io.BytesIO())


def test_weights_from_elsewhere_can_be_applied():
    net = Net()
    average = WeightAverage(net, half_lives=[2.0, 5.0])
    run(average, net, range(9))
    weights, _ = average.synthesize(3.0)
    with average.applied(weights=weights):
        torch.testing.assert_close(net.embedding.weight.detach(), weights["embedding.weight"])
    assert net.norm.running_mean.eq(8.0).all()


def test_parameters_that_were_replaced_after_the_last_update():
    """``load_state_dict(assign=True)`` puts new tensors in: averages are applied to those."""
    net = nn.Linear(2, 2)
    average = WeightAverage(net, half_lives=[2.0])
    for value in (1.0, 4.0):
        nn.init.constant_(net.weight, value)
        average.update()
    mean = average.averaged()["weight"]
    net.load_state_dict({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, assign=True)
    assert torch.equal(average.averaged()["weight"], mean)
    with average.applied():
        assert torch.equal(net.weight, mean)
    assert torch.equal(net.weight, torch.zeros(2, 2))


def test_a_half_life_far_from_those_kept_warns():
    net = nn.Linear(2, 2)
    average = WeightAverage(net, half_lives=[2.0])
    for _ in range(50):
        average.update()
    with pytest.warns(UserWarning, match=r"half-life 200 is too far from those kept, \[2.0\]"), average.applied(200):
        pass
    with pytest.warns(UserWarning, match="half-life 200"):
        average.averaged(200)


@pytest.mark.parametrize("weights", [{}, {"weight": torch.zeros(1), "bias": torch.zeros(2)}], ids=["none", "shape"])
def test_weights_of_something_else_are_refused(weights):
    net = nn.Linear(2, 2)
    average = WeightAverage(net, half_lives=[2.0])
    average.update()
    with pytest.raises(ValueError, match=r"applied: weights= lack these.*weight"), average.applied(weights=weights):
        pass
    assert len(net.state_dict()) == 2
