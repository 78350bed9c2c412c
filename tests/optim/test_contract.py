"""What torch's optimizers promise, and some do not keep: state, schedulers, closures, gradients left alone."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from spectrain.optim import Muon


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch_state = torch.random.fork_rng()
        with torch_state:
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(11, 8)
            self.norm = nn.LayerNorm(8)
            self.inner = nn.Linear(8, 12)
            self.outer = nn.Linear(12, 8)
            self.unused = nn.Linear(8, 8)
            self.head = nn.Linear(8, 11, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(x + self.outer(self.inner(self.norm(x)).relu()))


def batch(step):
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randint(0, 11, (4, 6), generator=generator)


def train(model, optimizer, steps, scheduler=None):
    for step in steps:
        tokens = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(1, 1).flatten()).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_equal(a, b):
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_training_lowers_the_loss():
    model = Net()
    tokens = batch(0)
    optimizer = Muon(model, lr=2e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gradients_are_never_written_to(nesterov, dtype):
    model = Net().to(dtype)
    optimizer = Muon(model, nesterov=nesterov, maximize=True)
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, dtype=dtype)
        before = [p.grad.clone() for p in model.parameters()]
        versions = [p.grad._version for p in model.parameters()]
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
        assert versions == [p.grad._version for p in model.parameters()]


def test_parameters_without_gradient_are_neither_moved_nor_decayed():
    model = Net()
    before = weights(model)
    optimizer = Muon(model, weight_decay=0.5, lr=0.1)
    train(model, optimizer, range(3))
    after = weights(model)
    assert torch.equal(before["unused.weight"], after["unused.weight"])
    assert torch.equal(before["unused.bias"], after["unused.bias"])
    assert not optimizer.state[model.unused.weight]["momentum_buffer"].any()
    assert not torch.equal(before["inner.weight"], after["inner.weight"])


def saved_and_loaded(state):
    """Through a file, with torch's safe loader."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_resume_is_bit_exact(dtype, stop):
    whole, first = Net().to(dtype), Net().to(dtype)
    train(whole, Muon(whole, lr=1e-2), range(6))
    optimizer = Muon(first, lr=1e-2)
    train(first, optimizer, range(stop))
    second = Net(seed=1).to(dtype)
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    resumed = Muon(second, lr=0.5, momentum=0.1, scale="none")
    resumed.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    train(second, resumed, range(stop, 6))
    assert_equal(weights(whole), weights(second))


def test_a_schedule_of_ones_own_is_used_and_saved():
    from spectrain import approx

    schedule = approx.sign_schedule(0.002, steps=5)
    model = nn.Linear(24, 24, bias=False)
    values = []
    for settings in ({"schedule": schedule}, {"schedule": approx.sign_schedule(0.2, steps=1)}):
        model.weight.data.zero_()
        model.weight.grad = torch.randn(24, 24, generator=torch.Generator().manual_seed(0))
        optimizer = Muon(model, lr=1.0, weight_decay=0.0, scale="none", compute_dtype="float32", **settings)
        optimizer.step()
        values.append(torch.linalg.svdvals(model.weight.detach()))
        resumed = Muon(model)
        resumed.load_state_dict(saved_and_loaded(optimizer.state_dict()))
        assert resumed.param_groups[0]["schedule"] == settings["schedule"].to_json()
    assert values[0][-3] > 0.9  # the longer reach lifts small singular values
    assert values[1][-3] < 0.5


def test_loading_does_not_share_memory_with_the_saved_state():
    model = Net()
    optimizer = Muon(model)
    train(model, optimizer, range(1))
    state = copy.deepcopy(optimizer.state_dict())
    kept = copy.deepcopy(state)
    other = Net()
    resumed = Muon(other)
    resumed.load_state_dict(state)
    train(other, resumed, range(1))
    buffers = [entry["momentum_buffer"] for entry in state["state"].values() if "momentum_buffer" in entry]
    before = [entry["momentum_buffer"] for entry in kept["state"].values() if "momentum_buffer" in entry]
    assert buffers
    assert all(torch.equal(a, b) for a, b in zip(buffers, before, strict=True))


def test_momentum_is_float32_for_bf16_weights_also_after_loading():
    model = Net().to(torch.bfloat16)
    optimizer = Muon(model)
    train(model, optimizer, range(2))
    fresh = Muon(Net().to(torch.bfloat16))
    fresh.load_state_dict(optimizer.state_dict())
    loaded = [s["momentum_buffer"] for s in fresh.state.values() if "momentum_buffer" in s]
    mine = [s["momentum_buffer"] for s in optimizer.state.values() if "momentum_buffer" in s]
    assert len(loaded) == 3
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(loaded, mine, strict=True))
    assert any(not torch.equal(a, a.to(torch.bfloat16).float()) for a in mine)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_deepcopy_and_pickle_go_on_alike(clone):
    model = Net()
    optimizer = Muon(model, lr=1e-2)
    train(model, optimizer, range(2))
    other_model, other = clone((model, optimizer))
    train(model, optimizer, range(2, 4))
    train(other_model, other, range(2, 4))
    assert_equal(weights(model), weights(other_model))
    assert other.rows == optimizer.rows


SCHEDULERS = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda t: 1 / (t + 1)),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda t: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 2),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o),
    "LinearLR": lambda o: schedulers.LinearLR(o),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 10),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 1e-3, 1e-1, step_size_up=3),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 1e-1, total_steps=20),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o), schedulers.CosineAnnealingLR(o, 9)], milestones=[2]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler([schedulers.LinearLR(o), schedulers.StepLR(o, 1)]),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_every_torch_scheduler_moves_all_groups_alike(make):
    model = Net()
    optimizer = Muon(model, lr=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # SequentialLR steps before the optimizer, in torch itself
        scheduler = make(optimizer)
    seen = []
    for step in range(5):
        train(model, optimizer, [step])
        scheduler.step()
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        seen.append(rates.pop())
    assert len(set(seen)) > 1


def test_plateau_scheduler():
    optimizer = Muon(Net(), lr=1e-2)
    scheduler = schedulers.ReduceLROnPlateau(optimizer, patience=0)
    for loss in (1.0, 1.0, 1.0):
        scheduler.step(loss)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-4}


def test_one_cycle_moves_muons_momentum():
    optimizer = Muon(Net(), lr=1e-2)
    scheduler = schedulers.OneCycleLR(optimizer, 1e-1, total_steps=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scheduler.step()
    assert optimizer.param_groups[0]["momentum"] < 0.95


def test_a_learning_rate_that_changes_is_the_one_used():
    a, b = Net(), Net()
    one, two = Muon(a, lr=1e-2), Muon(b, lr=5e-2)
    for group in two.param_groups:
        group["lr"] = 1e-2
    train(a, one, range(2))
    train(b, two, range(2))
    assert_equal(weights(a), weights(b))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_tensor_lr_is_the_number(shape):
    a, b = Net(), Net()
    train(a, Muon(a, lr=0.03125), range(3))
    train(b, Muon(b, lr=torch.full(shape, 0.03125)), range(3))
    for name, p in weights(a).items():
        torch.testing.assert_close(p, weights(b)[name], rtol=1e-6, atol=1e-7)


def test_closure_is_called_once_with_gradients_on_and_its_loss_returned():
    model, calls = Net(), []
    optimizer = Muon(model)

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = model(batch(0)).square().mean()
        loss.backward()
        return loss

    before = weights(model)
    loss = optimizer.step(closure)
    assert calls == [True]
    assert loss.item() > 0
    assert not torch.equal(before["inner.weight"], model.inner.weight)
    assert optimizer.step() is None


def test_add_param_group_of_every_kind():
    optimizer = Muon([{"params": [nn.Parameter(torch.ones(3, 4))]}], adamw_lr=0.5)
    matrix, vector = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    optimizer.add_param_group({"params": matrix, "lr": 0.1, "momentum": 0.5})
    optimizer.add_param_group({"params": [("bias", vector)], "use_muon": False})
    matrix.grad, vector.grad = torch.randn(4, 4), torch.ones(4)
    optimizer.step()
    assert [row["name"] for row in optimizer.rows] == ["group0.0", "group1.0", "bias"]
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 0.1, 0.5]
    assert not torch.equal(matrix, torch.ones(4, 4))
    assert not torch.equal(vector, torch.ones(4))


def test_groups_as_other_libraries_write_them():
    matrix, vector = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    idioms = [
        [{"params": [matrix], "use_muon": True}, {"params": [vector], "use_muon": False}],
        [{"params": [matrix], "algorithm": "muon"}, {"params": [vector], "algorithm": "adamw"}],
        [{"params": [matrix]}, {"params": [vector], "algorithm": "adamw", "betas": (0.9, 0.95)}],
    ]
    for groups in idioms:
        assert [row["algorithm"] for row in Muon(groups).rows] == ["muon", "adamw"]
    assert [row["name"] for row in Muon([("named", matrix)]).rows] == ["named"]
    assert groups[0].keys() == {"params"}, "the caller's groups are not written to"


def test_grad_scaler_and_zero_grad():
    model = Net()
    optimizer = Muon(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = weights(model)
    scaler.scale(model(batch(0)).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(before["inner.weight"], model.inner.weight)
    model.inner.weight.grad[0, 0] = float("inf")
    scaler.scale(model(batch(0)).square().mean()).backward()
    now = weights(model)
    scaler.step(optimizer)
    scaler.update()
    assert_equal(now, weights(model))
    assert scaler.get_scale() < 2.0**10


def test_channels_last_and_transposed_storage_do_not_matter():
    a = nn.Conv2d(4, 8, 3)
    b = copy.deepcopy(a).to(memory_format=torch.channels_last)
    layout = {"flatten": True}
    one = Muon([{"params": [a.weight], "matrix": layout}])
    two = Muon([{"params": [b.weight], "matrix": layout}])
    for _ in range(2):
        a.weight.grad = torch.randn_like(a.weight)
        b.weight.grad = a.weight.grad.clone().to(memory_format=torch.channels_last)
        one.step()
        two.step()
    assert torch.equal(a.weight, b.weight)


def test_distributed_checkpoint_functions_find_a_complete_state():
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    model, other = Net(), Net()
    optimizer, resumed = Muon(model, lr=1e-2), Muon(other, lr=1e-2)
    train(model, optimizer, range(2))
    state = get_optimizer_state_dict(model, optimizer)
    other.load_state_dict(model.state_dict())
    set_optimizer_state_dict(other, resumed, state)
    train(model, optimizer, range(2, 4))
    train(other, resumed, range(2, 4))
    assert_equal(weights(model), weights(other))


def test_state_is_complete_before_the_first_step():
    """Lazy state breaks distributed checkpoints: https://github.com/microsoft/dion/pull/89 ."""
    model = Net()
    optimizer = Muon(model)
    assert len(optimizer.state_dict()["state"]) == len(list(model.parameters()))


def test_a_model_may_change_dtype_after_the_optimizer_is_made():
    model = Net()
    optimizer = Muon(model, lr=1e-2)
    train(model, optimizer, range(1))
    model.double()
    train(model, optimizer, range(1, 3))
    moved = [optimizer.state[p] for name, p in model.named_parameters() if "unused" not in name]
    assert all(v.dtype == torch.float64 for state in moved for k, v in state.items() if k != "step")


def test_meta_parameters_are_refused_for_they_are_replaced_when_materialised():
    with torch.device("meta"):
        model = Net()
    with pytest.raises(ValueError, match="to_empty"):
        Muon(model)


def test_accumulated_gradients_are_those_of_the_full_batch():
    """Four micro-batches or one batch: the same steps, to rounding in float64."""
    whole, parts = Net().double(), Net().double()
    one, two = Muon(whole, lr=1e-2), Muon(parts, lr=1e-2)
    for step in range(3):
        tokens = torch.randint(0, 11, (32, 6), generator=torch.Generator().manual_seed(step))
        for model, optimizer, chunks in ((whole, one, 1), (parts, two, 4)):
            optimizer.zero_grad()
            for chunk in tokens.chunk(chunks):
                loss = nn.functional.cross_entropy(model(chunk).flatten(0, 1), chunk.roll(1, 1).flatten())
                (loss / chunks).backward()
            optimizer.step()
    for name, p in weights(whole).items():
        torch.testing.assert_close(p, weights(parts)[name], rtol=0, atol=1e-11)
