"""One test for each complaint that users of other libraries have filed about their Muon, by link."""

import copy
import math

import pytest
import torch
from torch import nn

from spectrain.optim import Matrix, Muon


def updated(p, grad, **settings):
    p.grad = grad
    before = p.detach().clone()
    Muon([{"params": [p], **settings}], lr=1.0, weight_decay=0.0).step()
    return before - p.detach()


def rms(tensor):
    return tensor.square().mean().sqrt().item()


def gaussian(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_naming_muon_is_muon():
    """DeepSpeed #8441, #8461: asked for Muon, ran SGD or skipped the orthogonalisation."""
    update = updated(nn.Parameter(torch.zeros(24, 24)), gaussian(24, 24), scale="none")
    values = torch.linalg.svdvals(update)
    assert values.max() < 1.2
    assert values.median() > 0.8


@pytest.mark.parametrize("width", [32, 128])
def test_global_clipping_does_not_divide_the_update(width):
    """DeepSpeed #8439: clipping divided each Muon update by its own norm, 4x at width 128."""
    a, b = (nn.Parameter(torch.zeros(width, width)) for _ in range(2))
    a.grad = b.grad = None
    free = updated(a, gaussian(width, width))
    b.grad = gaussian(width, width)
    torch.nn.utils.clip_grad_norm_([b], 1e-3)
    clipped = updated(b, b.grad)
    assert math.isclose(rms(free), rms(clipped), rel_tol=0.01)
    assert (free * clipped).mean() > 0.98 * rms(free) ** 2


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e-10, 1e10, 1e18])
def test_no_eps_floor_stalls_training(size):
    """Megatron-LM #5394, Emerging-Optimizers #229: tiny gradients gave no update at all, without an error."""
    update = updated(nn.Parameter(torch.zeros(16, 24)), gaussian(16, 24) * size)
    assert 0.15 < rms(update) < 0.25


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_momentum_is_not_normalised_in_place(dtype):
    """pytorch #194664: with nesterov=False and bf16 weights msign wrote into the momentum itself."""
    p = nn.Parameter(torch.zeros(8, 8, dtype=dtype))
    optimizer = Muon([p], nesterov=False, momentum=0.5)
    grads = [gaussian(8, 8, dtype=dtype) * (k + 1) for k in range(3)]
    expected = torch.zeros(8, 8)
    for grad in grads:
        p.grad = grad.clone()
        optimizer.step()
        expected = expected.lerp(grad.float(), 0.5)
    torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], expected, rtol=1e-6, atol=1e-6)


def test_convolution_scale_is_not_that_of_the_kernel():
    """ultralytics #25846: the factor came from the kernel's height and width, updates up to 5.3x too small."""
    conv = nn.ModuleDict({"conv": nn.Conv2d(64, 128, 3), "head": nn.Linear(4, 2)})
    factors = {row["name"]: row["lr_factor"] for row in Muon(conv, scale="original").rows}
    assert factors["conv.weight"] == 1.0  # 128 x 576
    update = updated(conv["conv"].weight, gaussian(128, 64, 3, 3), matrix=Matrix(flatten=True), scale="original")
    assert abs(torch.linalg.matrix_norm(update.flatten(1), 2).item() - 1.0) < 0.2


def test_experts_are_not_orthogonalised_along_the_expert_axis():
    """maxtext #4798, marin #8621: experts flattened together had norms 0.28 to 0.37 instead of 1."""
    update = updated(nn.Parameter(torch.zeros(4, 16, 32)), gaussian(4, 16, 32), matrix={"batch": 1}, scale="none")
    norms = torch.linalg.matrix_norm(update, 2)
    assert (norms > 0.8).all()
    with pytest.raises(ValueError, match="batch=1"):
        Muon([nn.Parameter(torch.zeros(4, 16, 32))])


def test_flattened_parameters_are_refused():
    """Moonlight #27, KellerJordan/Muon #45, Megatron-LM #5961: flat shards gave -inf or a wrong update."""
    with pytest.raises(ValueError, match="vector has no singular values"):
        Muon([nn.Parameter(torch.zeros(64))])


def test_one_scheduler_moves_both_halves():
    """tt-metal #56027: the scheduler moved only Muon's half."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = Muon(net, lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t)
    optimizer.step()
    scheduler.step()
    assert {group["algorithm"]: group["lr"] for group in optimizer.param_groups} == {"muon": 0.5, "adamw": 0.5}


def test_a_checkpoint_of_another_model_is_not_resumed_from():
    """Megatron-LM #6920: the resumed run continued from another model."""
    a = nn.ModuleDict({"x": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    b = nn.ModuleDict({"y": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    with pytest.raises(ValueError, match="another model"):
        Muon(b).load_state_dict(Muon(a).state_dict())


def test_state_dict_has_all_keys_and_takes_the_argument_by_name():
    """Megatron-LM #3885 (KeyError: 'state'), dion #109 (wrapper renamed the argument)."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    state = Muon(net).state_dict()
    assert set(state) == {"state", "param_groups"}
    Muon(net).load_state_dict(state_dict=state)


def test_the_adamw_half_survives_saving():
    """gram-newton-schulz: the state of the scalar optimizer was lost on save and load."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = Muon(net)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    fresh = Muon(copy.deepcopy(net))
    fresh.load_state_dict(optimizer.state_dict())
    states = [entry for entry in fresh.state.values() if "exp_avg" in entry]
    assert len(states) == 3
    assert all(entry["step"].item() == 1 and entry["exp_avg"].any() for entry in states)


def test_singular_values_are_one_when_asked_for():
    """Moonlight #22: "singular values are not 1" (0.68 to 1.14 with five fixed steps)."""
    p = nn.Parameter(torch.zeros(32, 48))
    p.grad = gaussian(32, 48)
    Muon([p], lr=1.0, weight_decay=0.0, scale="none", tol=1e-4).step()
    values = torch.linalg.svdvals(p.detach())
    torch.testing.assert_close(values, torch.ones(32), rtol=0, atol=1e-3)


def test_the_iteration_dtype_is_a_choice():
    """pytorch #160213, physicsnemo #1743, Emerging-Optimizers #228: bf16 was forced."""
    errors = {}
    for dtype, tol in (("bfloat16", None), ("float32", 1e-5)):
        p = nn.Parameter(torch.zeros(32, 48))
        p.grad = gaussian(32, 48)
        Muon([p], lr=1.0, weight_decay=0.0, scale="none", tol=tol, compute_dtype=dtype).step()
        errors[dtype] = (torch.linalg.svdvals(p.detach()) - 1).abs().max().item()
    assert errors["float32"] < 1e-4 < 1e-3 < errors["bfloat16"] < 0.2


def test_adamws_learning_rate_is_the_one_to_use():
    """KellerJordan/Muon #49, Emerging-Optimizers #80: which learning rate? Where did the 0.2 go?"""
    for shape in [(16, 64), (64, 16), (48, 48)]:
        update = updated(nn.Parameter(torch.zeros(shape)), gaussian(*shape))
        assert math.isclose(rms(update), 0.2, rel_tol=0.1)


def test_stored_in_x_out_is_sayable():
    """Keras #21885 (article 11416): in and out were swapped in the factor."""
    p = nn.Parameter(torch.zeros(16, 64))
    row = Muon([{"params": [p], "matrix": Matrix(transposed=True)}], scale="spectral").rows[0]
    assert (row["matrix"], row["lr_factor"]) == ("64x16", 2.0)


def test_the_adam_half_has_its_own_decay():
    """keras #21885, levanter #1147: separate weight decay for the Adam part."""
    net = nn.ModuleDict({"e": nn.Embedding(5, 4), "a": nn.Linear(4, 4), "head": nn.Linear(4, 5)})
    rows = Muon(net, weight_decay=0.1, adamw_weight_decay=0.01).rows
    assert {row["weight_decay"] for row in rows if row["algorithm"] == "muon"} == {0.1}
    assert {row["weight_decay"] for row in rows if row["name"] in ("e.weight", "head.weight")} == {0.01}


def test_zero_gradients_are_not_invented_for_unused_parameters():
    """KellerJordan's reference: missing gradients became zeros, and the parameter was decayed."""
    p, q = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    p.grad = torch.ones(4, 4)
    Muon([p, q], lr=0.5, weight_decay=0.5).step()
    assert q.grad is None
    assert torch.equal(q, torch.ones(4, 4))


def test_huge_gradients_do_not_become_nan():
    """HeavyBall #73, optimuon: NaN on large inputs; dion #76: NaN on ill-conditioned ones."""
    p = nn.Parameter(torch.zeros(16, 16))
    grad = gaussian(16, 16)
    for bad in (
        grad * 1e37,
        torch.ones(16, 16),
        torch.outer(grad[0], grad[1]),
        torch.diag(10.0 ** -torch.arange(16.0)),
    ):
        assert updated(p, bad.clone()).isfinite().all()


def test_low_rank_gradients_do_not_invent_directions():
    """HeavyBall's msign on a low-rank matrix: rounding noise became full-size directions, relative error 2.6."""
    p = nn.Parameter(torch.zeros(64, 64))
    factors = gaussian(64, 8)
    p.grad = factors[:, :4] @ factors[:, 4:].T
    Muon([p], lr=1.0, weight_decay=0.0, scale="none", compute_dtype="float32").step()
    values = torch.linalg.svdvals(p.detach())
    assert values[:4].min() > 0.8
    assert values[4:].max() < 0.01


def test_ill_conditioned_gradients_have_an_exact_path():
    """Emerging-Optimizers #45: QDWH was asked for, since fixed steps leave small singular values behind."""
    U, _, Vh = torch.linalg.svd(gaussian(12, 12).double())
    grad = (U * 10.0 ** torch.linspace(0, -6, 12, dtype=torch.float64)) @ Vh
    p = nn.Parameter(torch.zeros(12, 12, dtype=torch.float64))
    update = updated(p, grad, scale="none", tol=1e-6)
    torch.testing.assert_close(update, U @ Vh, rtol=0, atol=1e-5)


def test_a_decay_branches_off_one_stable_run():
    """maxtext #2882: several decays from one run at constant rate, each from a saved state."""
    from spectrain.optim import ScheduleLR, WarmupDecay

    def made(schedule):
        net = nn.Linear(4, 4, bias=False)
        nn.init.eye_(net.weight)
        optimizer = Muon([net.weight], lr=0.5)
        return net, optimizer, ScheduleLR(optimizer, schedule)

    net, optimizer, scheduler = made(WarmupDecay(steps=1000, decay=0))
    for _ in range(3):
        net.weight.grad = gaussian(4, 4)
        optimizer.step()
        scheduler.step()
    for length in (2, 4):
        branch, other, _ = made(WarmupDecay(steps=1))
        branch.load_state_dict(net.state_dict())
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        falling = ScheduleLR(other, WarmupDecay(steps=length))
        rates = []
        for _ in range(length):
            rates.append(other.param_groups[0]["lr"])
            branch.weight.grad = gaussian(4, 4)
            other.step()
            falling.step()
        assert rates == [0.5 * (1 - t / length) for t in range(length)]
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_one_object_sorts_a_whole_model_by_itself():
    """KellerJordan/Muon #11, #22, pytorch #180561, KataGo #1165: one optimizer, convolutions included."""
    net = nn.ModuleDict(
        {"c": nn.Conv2d(3, 8, 3), "e": nn.Embedding(5, 4), "a": nn.Linear(8, 4), "head": nn.Linear(4, 5)}
    )
    rows = {row["name"]: (row["algorithm"], row["matrix"]) for row in Muon(net).rows}
    assert rows["c.weight"] == ("muon", "8x27")
    assert {name for name, (algorithm, _) in rows.items() if algorithm == "muon"} == {"c.weight", "a.weight"}
