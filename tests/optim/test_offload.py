"""Where the optimizer's memory lies and in which dtypes it computes: complaints about offload, 8 bits and devices."""

import copy
import dataclasses
import gc

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from spectrain.approx.recipes import certify
from spectrain.matfun._iteration.bounded import Tries
from spectrain.matfun._proven.costs import SHIPPED
from spectrain.optim import Muon
from spectrain.optim._step import update
from spectrain.testing import with_singular_values


def net(dtype=torch.float32):
    torch.manual_seed(0)
    parts = [nn.Embedding(11, 16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16), nn.LayerNorm(16), nn.Linear(16, 11)]
    return nn.Sequential(*parts).to(dtype)


def loss(model, step):
    tokens = torch.randint(0, 11, (64,), generator=torch.Generator().manual_seed(step))
    return nn.functional.cross_entropy(model(tokens), (3 * tokens + 1) % 11)


def trained(after_step, *, steps=8, dtype=torch.float32, **settings):
    """Weights and losses of a short training; ``after_step`` does what it likes with the optimizer's state."""
    model = net(dtype)
    optimizer = Muon(model, **{"lr": 0.02, "compute_dtype": "float32"} | settings)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        found = loss(model, step)
        found.backward()
        optimizer.step()
        losses.append(found.item())
        after_step(optimizer)
    return model, losses


def on_the_host(change=lambda name, tensor: tensor):
    """Take every tensor of the state away and put another one in its place, as offloading does between steps."""

    def move(optimizer):
        for state in optimizer.state.values():
            for name, tensor in state.items():
                away = tensor.detach().cpu().numpy().copy()
                state[name] = change(name, torch.from_numpy(away) if away.ndim else torch.tensor(away.item()))

    return move


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_state_kept_elsewhere_between_steps_changes_no_bit():
    """DeepSpeed #8463, Megatron-LM #4691: with the state offloaded the run diverged by 9.4e-2."""
    stayed, losses = trained(lambda optimizer: None)
    moved, again = trained(on_the_host())
    assert same(stayed, moved)
    assert losses == again


def test_master_weights_on_the_host_are_trained_as_if_nothing_were_offloaded():
    """DeepSpeed #8463: weights of 16 bits on the device, float32 masters and the optimizer on the host."""
    model, masters = net(torch.bfloat16), net()
    optimizer = Muon(masters, lr=0.02, compute_dtype="float32")
    plain = net()
    reference = Muon(plain, lr=0.02, compute_dtype="float32")
    for step in range(8):
        model.load_state_dict(masters.state_dict())
        model.zero_grad()
        loss(model, step).backward()
        for p, *copies in zip(model.parameters(), masters.parameters(), plain.parameters(), strict=True):
            for each in copies:
                each.grad = p.grad.float()
        optimizer.step()
        reference.step()
    assert same(masters, plain)


WRONG = {
    "the momentum is lost": lambda name, tensor: torch.zeros_like(tensor) if name == "momentum_buffer" else tensor,
    "the momentum is rounded to 16 bits": lambda name, tensor: tensor.bfloat16().float(),
    "Adam's count is lost": lambda name, tensor: torch.zeros_like(tensor) if name == "step" else tensor,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_comparison_rejects_a_state_that_came_back_changed(wrong):
    assert not same(trained(lambda optimizer: None)[0], trained(on_the_host(wrong))[0])


def test_matrices_flattened_for_the_host_are_refused():
    """DeepSpeed #8463: the cause was a flat partition in host memory, on which nothing was orthogonalised."""
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in net().parameters()]))
    with pytest.raises(ValueError, match="a vector has no singular values"):
        Muon([flat])


def packed(bits):
    """What a store of ``bits`` a number with one scale for 64 numbers would give back."""
    top = 2 ** (bits - 1) - 1

    def change(name, tensor):
        if name == "step":
            return tensor
        rows = nn.functional.pad(tensor.flatten(), (0, -tensor.numel() % 64)).view(-1, 64)
        scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-30) / top
        return ((rows / scale).round().clamp(-top, top) * scale).flatten()[: tensor.numel()].view(tensor.shape)

    return lambda name, tensor: change(name, tensor) if name == "momentum_buffer" else tensor


def test_momentum_that_others_keep_in_8_bits_trains_alike():
    """bitsandbytes #1973 asks for 8-bit momentum: state is plain tensors, so a caller can pack them between steps.

    Beside it what the state costs as it is: one number a weight of a matrix, where AdamW keeps two.
    """
    _, whole = trained(lambda optimizer: None, steps=40)
    _, eight = trained(on_the_host(packed(8)), steps=40)
    _, two = trained(on_the_host(packed(2)), steps=40)
    assert whole[-1] < 0.5 * whole[0]
    differences = [max(abs(a - b) for a, b in zip(whole, run, strict=True)) for run in (eight, two)]
    assert differences[0] < 0.02 * whole[0] < differences[1]
    optimizer = Muon(model := net())
    matrices = {p for p in model.parameters() if "momentum_buffer" in optimizer.state[p]}
    kept = sum(t.numel() for p in matrices for t in optimizer.state[p].values())
    assert kept == sum(p.numel() for p in matrices) == 16 * 32 * 2


class OneDtype(TorchDispatchMode):
    """Refuses arithmetic on tensors of different floating dtypes, as Apple's compiler of graphs does.

    Copies convert, and torch's own AdamW kernel takes its rate in float32 on every device.
    """

    FREE = (
        "fused_adamw",
        "copy",
        "to_copy",
        "lift",
        "detach",
        "alias",
        "view",
        "empty",
        "zeros",
        "full",
        "is_",
        "local_scalar",
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.removeprefix("_foreach_").removeprefix("_")
        if not name.startswith(self.FREE):
            found = {t.dtype for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
            floating = {str(dtype) for dtype in found if dtype.is_floating_point}
            if len(floating) > 1:
                raise RuntimeError(f"{func} requires the same element type for all operands: {sorted(floating)}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{}, {"variant": "normuon", "decay": "cautious"}, {"variant": "adam"}], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_no_arithmetic_mixes_dtypes(dtype, settings):
    """nanochat #741: weights of 16 bits times float32 scalars; CUDA widens them without a word, Apple's MPS crashes.

    In float32, which "auto" takes there.
    """
    model = net(dtype)
    optimizer = Muon(model, lr=torch.tensor(0.01), compute_dtype="float32", **settings)
    loss(model, 0).backward()
    with OneDtype():
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_check_sees_mixed_dtypes():
    with pytest.raises(RuntimeError, match="same element type"), OneDtype():
        torch.ones(3, dtype=torch.bfloat16).mul_(1 - torch.tensor([0.01]))


def test_memory_does_not_climb_a_ladder():
    """dion #100: buffers were added step by step until memory ran out; google-deepmind/optax #1650: 37 GB of graph."""
    model = net()
    optimizer = Muon(model)
    held = []
    for step in range(6):
        optimizer.zero_grad()
        loss(model, step).backward()
        optimizer.step()
        gc.collect()
        held.append(sum(t.numel() for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter)))
    assert len(set(held[1:])) == 1
    copied = copy.deepcopy(optimizer.state_dict())
    states = sum(t.numel() for s in copied["state"].values() for t in s.values())
    assert states <= 2 * sum(p.numel() for p in model.parameters()) + len(list(model.parameters()))


def test_emulated_bfloat16_is_not_taken_for_fast(monkeypatch):
    """KellerJordan/Muon #47: 30 to 40 times slower on a T4, which emulates bfloat16; there we take float32."""
    for capability, native in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        update._asked_once.cache_clear()
        assert update._multiplies_bfloat16(torch.device("cuda", 0)) == native
    update._asked_once.cache_clear()
    assert not update._multiplies_bfloat16(torch.device("mps"))
    for native in (False, True):
        monkeypatch.setattr(update, "_multiplies_bfloat16", lambda device, found=native: found)
        matrix = torch.zeros(2, 2)
        assert update.working_dtype("auto", matrix) == (torch.bfloat16 if native else torch.float32)
        assert update.working_dtype("auto", matrix, tol=1e-3) == torch.float32


def test_a_processor_takes_bfloat16_only_where_that_was_measured_to_pay(monkeypatch):
    """A flag does not say it: with AVX512-BF16 alone five steps took 1.66 of torch's time, in float32 0.75."""
    fast = dataclasses.replace(SHIPPED, product_bfloat16=(900, 900, 900, 900, 900))
    slow = dataclasses.replace(SHIPPED, product_bfloat16=(90, 90, 90, 90, 90))
    barely = dataclasses.replace(SHIPPED, product_bfloat16=(900, 900, 900, 900, 300))
    for table, pays in ((SHIPPED, False), (fast, True), (slow, False), (barely, False)):
        monkeypatch.setattr(update, "costs", lambda found=table: found)
        update._asked_once.cache_clear()
        assert update.working_dtype("auto", torch.zeros(2, 2)) == (torch.bfloat16 if pays else torch.float32)
        assert update.working_dtype("bfloat16", torch.zeros(2, 2)) == torch.bfloat16
    update._asked_once.cache_clear()


def test_what_msign_computed_twice_is_told(monkeypatch, capsys):
    """What other optimizers of the process met before is no news of this one, nor of its copy."""
    monkeypatch.setattr("spectrain.matfun.planning.tries", lambda: Tries(100, 3))
    optimizer = Muon(net())
    optimizer.explain()
    assert "second" not in capsys.readouterr().out
    monkeypatch.setattr("spectrain.matfun.planning.tries", lambda: Tries(150, 5))
    optimizer.explain()
    assert "since this optimizer was made, 2 of 50 matrices were computed a second time" in capsys.readouterr().out
    copy.deepcopy(optimizer).explain()
    assert "second" not in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["jordan", "cans", "polar-express-5/1.01", "polar-express-8/1.01", "deepseek-8+2"])
def test_published_polynomials_are_a_choice_with_a_known_error(recipe):
    """google-deepmind/optax #1621 asks for Polar Express."""
    schedule = certify(recipe, 1e-3)
    p = nn.Parameter(torch.zeros(24, 32))
    p.grad = with_singular_values(torch.logspace(0, -2, 24), 24, 32, generator=0).float()
    Muon([p], lr=1.0, weight_decay=0.0, scale="none", schedule=schedule).step()
    off = (torch.linalg.svdvals(p.detach().double()) - 1).abs().max()
    assert off <= schedule.error + 1e-4
