"""Packages that spread a model over processes: the weights are those of one process, or the refusal says what to do."""

import pytest

pytestmark = pytest.mark.full

NET = """
import torch
import torch.distributed as dist
from torch import nn
from spectrain import optim

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.Linear(8, 10))

def train(model, optimizer, backward=lambda loss: loss.backward(), steps=3, most=0.05):
    tokens = torch.arange(10)
    for step in range(steps):
        optimizer.zero_grad()
        backward(nn.functional.cross_entropy(model(tokens), tokens.roll(step)))
        norms = optim.clip_grad_norm_(optimizer, most, scope="adamw")
        optimizer.step()
    return norms

def whole(p):
    return p.full_tensor() if hasattr(p, "full_tensor") else p

def check(model, norms, wrong=0.0):
    alone = net()
    expected = train(alone, optim.Muon(alone, lr=1e-2))
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(whole(p) + wrong, q, rtol=1e-4, atol=1e-5)
    for a, b in zip(norms, expected, strict=True):
        torch.testing.assert_close(whole(a), b, rtol=1e-4, atol=1e-6)
"""

ACCELERATE = """
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

each = {"auto_wrap_policy": "size_based_wrap", "min_num_params": 1}
accelerator = Accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2, **each))
model = net()
model, optimizer = accelerator.prepare(model, optim.Muon(model, lr=1e-2))
assert all(isinstance(p, DTensor) for group in optimizer.param_groups for p in group["params"])
saved = optimizer.state_dict()["state"]
assert len(saved) == 7 and any(isinstance(value, DTensor) for state in saved.values() for value in state.values())
norms = train(model, optimizer, accelerator.backward)
check(model, norms)
assert set(optimizer.optimizer.state) == set(model.parameters())
try:
    check(model, norms, wrong=1e-3)
except AssertionError:
    print("a wrong weight is seen")
accelerator.end_training()
"""

TENSOR_PARALLEL = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

dist.init_process_group("gloo")
model = net()
parallelize_module(model, init_device_mesh("cpu", (2,)), {"1": ColwiseParallel(), "3": RowwiseParallel()})
assert len({type(p) for p in model.parameters()}) == 2  # some are spread and some are not
check(model, train(model, optim.Muon(model, lr=1e-2)))
dist.destroy_process_group()
"""


def test_accelerate_with_fsdp2_gives_the_weights_of_one_process(torchrun, accelerate_on_cpu):
    pytest.importorskip("accelerate", reason="accelerate is an extra: the integrations")
    said = torchrun(NET + ACCELERATE, before=accelerate_on_cpu)
    assert said.count("a wrong weight is seen") == 2


def test_clipping_under_tensor_parallelism_is_that_of_one_process(torchrun):
    torchrun(NET + TENSOR_PARALLEL)


DEEPSPEED = """
import os
os.environ["DS_ACCELERATOR"] = "cpu"
import deepspeed
import deepspeed.ops
for name in deepspeed.ops.__compatible_ops__:  # else it compiles for minutes what torch can do as well
    deepspeed.ops.__compatible_ops__[name] = False

def moved(make, stage):
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    zero = {"zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True}
    engine, *_ = deepspeed.initialize(model=model, optimizer=make(model), config={"train_batch_size": 2, **zero})
    tokens = torch.arange(10)
    engine.backward(nn.functional.cross_entropy(engine(tokens), tokens))
    try:
        engine.step()
        refusal = ""
    except ValueError as error:
        refusal = str(error)
    return refusal, any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))

for stage in (1, 2):
    refusal, changed = moved(lambda model: optim.Muon(model, lr=1e-2), stage)
    assert "as DeepSpeed's ZeRO does" in refusal and "Use fully_shard (FSDP2)" in refusal and not changed, refusal
    assert moved(lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2), stage) == ("", True)
    print("stage", stage)
"""


def test_deepspeeds_zero_is_refused_by_name_before_anything_moves(torchrun):
    """Where it is noticed: DeepSpeed puts its vectors into the finished groups, and asks the optimizer only to step."""
    pytest.importorskip("deepspeed", reason="deepspeed is an extra: the integrations")
    said = torchrun(NET + DEEPSPEED)
    assert said.count("stage 1") == said.count("stage 2") == 2
