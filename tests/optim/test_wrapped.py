"""Optimizers and parameters in the hands of others: wrappers that cut parameters, schedulers that cycle momentum."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import Replicate, distribute_tensor
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from spectrain.optim import Muon, clip_grad_norm_, route


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 9))


def backward(model, seed=0):
    tokens = torch.randint(0, 9, (20,), generator=torch.Generator().manual_seed(seed))
    nn.functional.cross_entropy(model(tokens), tokens).backward()


@pytest.fixture
def one_rank():
    """A process group of this process alone, without a network."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


SCHEDULERS = {
    "OneCycle": lambda optimizer: OneCycleLR(optimizer, max_lr=0.01, total_steps=6),
    "Cyclic": lambda optimizer: CyclicLR(optimizer, base_lr=0.001, max_lr=0.01, step_size_up=3),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_adamws_first_beta_follows_a_cycle_of_momentum(make):
    """Beside torch's AdamW under the same scheduler: the same weights. Before, beta1 stayed where it was."""
    ours, theirs = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    groups = [{"params": [nn.Parameter(torch.ones(3, 3))]}, {"params": [ours], "algorithm": "adamw"}]
    muon = Muon(groups, lr=0.01, weight_decay=0.1, adamw_betas=(0.9, 0.95))
    adamw = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1, betas=(0.9, 0.95))
    schedules = make(muon), make(adamw)
    for i in range(5):
        for p in (ours, theirs):
            p.grad = torch.randn(5, generator=torch.Generator().manual_seed(i))
        muon.step()
        adamw.step()
        for schedule in schedules:
            schedule.step()
    assert adamw.param_groups[0]["betas"][0] != 0.9
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    again = Muon(groups, lr=0.01, adamw_betas=(0.9, 0.95))
    make(again)
    again.load_state_dict(copy.deepcopy(muon.state_dict()))
    assert again.param_groups[1]["momentum"] == muon.param_groups[1]["momentum"]


def test_a_momentum_that_is_no_beta_is_refused():
    optimizer = Muon([{"params": [nn.Parameter(torch.ones(5))], "algorithm": "adamw"}])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(5)
    optimizer.param_groups[0]["momentum"] = 1.0
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), got 1.0[\s\S]*Nothing was changed"):
        optimizer.step()


@pytest.mark.parametrize(("text", "words"), [
    ("1e-3", r"got '1e-3'\. That is text: write lr=0\.001\. YAML reads 1e-3 as text, 1\.0e-3 as a number\."),
    ("0.1", r"got '0\.1'\. That is text: write lr=0\.1\.$"),
    ("fast", r"got 'fast'\.$"),
])  # fmt: skip
def test_a_rate_that_came_as_text(text, words):
    with pytest.raises(TypeError, match=words):
        Muon([{"params": [nn.Parameter(torch.ones(2, 2))], "lr": text}])


def test_what_is_frozen_is_folded_and_has_no_state(capsys):
    model = net()
    model[0].requires_grad_(False)
    model[1].weight.requires_grad_(False)
    optimizer = Muon(model)
    assert len(optimizer.explain()) == 7
    printed = capsys.readouterr().out.splitlines()
    assert "frozen, without state: 2 parameters of 136 entries" in printed
    assert len(printed) == 1 + 5 + 1
    assert set(optimizer.state) == {p for p in model.parameters() if p.requires_grad}
    assert route(model).explain() == route(model).rows
    assert "frozen, without state: 2 parameters" in capsys.readouterr().out


def test_clipping_takes_plain_and_distributed_gradients_together(one_rank):
    """Under tensor parallelism a model has both; the norm is that of one process."""
    mesh = init_device_mesh("cpu", (1,))
    model, whole = net(), net()
    for layer in (model[1], model[3]):
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.data, mesh, [Replicate()]))
    optimizers = Muon(model), Muon(whole)
    backward(whole)
    for p, q in zip(model.parameters(), whole.parameters(), strict=True):
        grad = q.grad.clone()
        p.grad = distribute_tensor(grad, mesh, [Replicate()]) if hasattr(p, "placements") else grad
    two, one = (clip_grad_norm_(optimizer, 0.01, scope="adamw") for optimizer in optimizers)
    for a, b in zip(two, one, strict=True):
        torch.testing.assert_close(a, b)
    for p, q in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p.grad.full_tensor() if hasattr(p, "placements") else p.grad, q.grad)


@pytest.mark.filterwarnings("ignore:FSDP|.*FullyShardedDataParallel|The fix")
@pytest.mark.parametrize("kept", [False, True], ids=["flat", "as views"])
def test_fsdp1_is_refused_by_name(one_rank, kept):
    """Its flat vector went to AdamW without a word."""
    model = FullyShardedDataParallel(net(), device_id=torch.device("cpu"), use_orig_params=kept)
    with pytest.raises(ValueError, match=r"FSDP1.*Use fully_shard"):
        Muon(model)
    with pytest.raises(ValueError, match=r"is a parameter of FullyShardedDataParallel \(FSDP1\)"):
        Muon([{"params": list(model.parameters()), "algorithm": "adamw"}])


def test_a_matrix_that_zero_made_flat_is_refused():
    """DeepSpeed puts vectors of its own in the place of the parameters of finished groups."""
    model = net()
    optimizer = Muon(model)
    for group in optimizer.param_groups:
        flat = nn.Parameter(torch.cat([p.detach().flatten() for p in group["params"]]))
        flat.grad = torch.zeros_like(flat)
        group["params"] = [flat]
        group["param_names"], group["reasons"] = group["param_names"][:1], group["reasons"][:1]
    with pytest.raises(ValueError, match=r"a tensor of shape \(64,\), as DeepSpeed's ZeRO does.*fully_shard"):
        optimizer.step()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_zero_redundancy_optimizer_takes_groups(one_rank):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model, alone = net(), net()
    groups = [{**group, "params": [p for _, p in group["params"]]} for group in route(model)]
    two, one = ZeroRedundancyOptimizer(groups, optimizer_class=Muon, lr=0.01), Muon(alone, lr=0.01)
    for i in range(3):
        for each, optimizer in ((model, two), (alone, one)):
            optimizer.zero_grad()
            backward(each, i)
            optimizer.step()
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    with pytest.raises(ValueError, match="a vector has no singular values"):
        ZeroRedundancyOptimizer(net().parameters(), optimizer_class=Muon, lr=0.01)
