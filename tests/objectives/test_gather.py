"""On several ranks: the reduced gradient is that of the global batch, whichever way gradients are reduced."""

import json

import pytest
import torch

PROGRAM = """
import json, os, sys
import torch, torch.distributed as dist
from torch import nn
from spectrain.objectives import Contrastive, info_nce

rank, world, store, how, parallel = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5] == "ddp"
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)

class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))
    def forward(self, u, v, weight):
        return info_nce(u, v, temperature=self.log_temperature.exp()) * weight.mean()

torch.manual_seed(0)
model, loss = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8)).double(), Learned()
x, y = torch.randn(2, 14, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
weight = torch.arange(14, dtype=torch.float64)
bounds = [0, 5, 14] if world == 2 else [0, 14]                       # ranks with different numbers of examples
mine = slice(bounds[rank], bounds[rank + 1])
encoder = nn.parallel.DistributedDataParallel(model) if parallel else model
contrastive = Contrastive(encoder, loss, chunk=4, gather=world > 1, gradients=how)
value = contrastive.backward(x[mine], y[mine], weight=weight[mine])
for module in (model, loss):
    for p in module.parameters():
        if not (parallel and module is model):                       # DDP has reduced its own
            dist.all_reduce(p.grad)
            p.grad /= world if how == "averaged" else 1
gradient = [p.grad.flatten().tolist() for module in (model, loss) for p in module.parameters()]
if rank == 0:
    print(json.dumps([value.item(), sum(gradient, [])]))
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
# As multiprocessing ends its children. One rank in five ended in std::terminate otherwise, after all was done and while
# the interpreter went down: probably a gloo thread that asked for the GIL.
os._exit(0)
"""


def answer(printed):
    value, gradient = json.loads(printed[0].splitlines()[-1])
    return value, torch.tensor(gradient, dtype=torch.float64)


@pytest.fixture(scope="module")
def one(printed_by_ranks):
    return answer(printed_by_ranks(PROGRAM, 1, "averaged", "plain"))


@pytest.mark.parametrize(("how", "parallel"), [("averaged", "plain"), ("summed", "plain"), ("averaged", "ddp")])
def test_two_ranks_give_the_gradient_of_one(printed_by_ranks, one, how, parallel):
    value, gradient = answer(printed_by_ranks(PROGRAM, 2, how, parallel))
    assert value == pytest.approx(one[0], rel=1e-13)
    assert ((gradient - one[1]).norm() / one[1].norm()).item() < 1e-13


def test_the_comparison_sees_a_forgotten_world_size(one):
    assert ((one[1] / 2 - one[1]).norm() / one[1].norm()).item() > 0.1
