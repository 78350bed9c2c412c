"""The step in one graph beside the eager one; prints the largest difference of each kind. By test_compile.py.

A process of its own: the shape checks that the tests put on every function cannot be compiled.
"""

import json
import sys

import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from spectrain.approx import sign_schedule
from spectrain.optim import Matrix, Muon
from spectrain.optim._step.settings import DECAYS
from spectrain.optim._variants.variants import VARIANTS


def weight(*shape):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))))


def every_variant():
    """Groups that differ: all variants and decays, layouts, both signs, what moves entry by entry and row by row."""
    groups = [
        {
            "params": [weight(12, 8), weight(8, 12)][i % 2 :],
            "variant": variant.name,
            "decay": DECAYS[i % len(DECAYS)],
            "nesterov": i % 2 == 0,
            "maximize": i == 1,
        }
        for i, variant in enumerate(VARIANTS)
    ]
    groups += [
        {"params": [weight(12, 8)], "matrix": Matrix(split=(8, 4)), "schedule": sign_schedule(0.1, steps=2)},
        {"params": [weight(12, 8)], "matrix": Matrix(split=(8, 4)), "variant": "normuon", "scale": "original"},
        {"params": [weight(4, 2, 3, 3)], "matrix": Matrix(flatten=True), "decay": "independent", "initial_lr": 0.5},
        {"params": [weight(7, 8)], "algorithm": "rows", "variant": "adam"},
        {"params": [weight(6)], "algorithm": "sign"},
        {"params": [weight(6), weight(3, 4)], "algorithm": "adamw"},
    ]
    return [p for group in groups for p in group["params"]], groups


def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 12), nn.LayerNorm(4), nn.Linear(12, 7))
    return list(net.parameters()), net


def made(kind, **settings):
    params, given = kind()
    return params, Muon(given, **{"lr": torch.tensor(0.01), "compute_dtype": "float32", "capturable": True, **settings})


def drive(params, optimizer, step, steps=3, huge=0.0):
    for i in range(steps):
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(0.01 / (i + 1))
        for k, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * i + k))
            if huge:
                p.grad.view(-1)[0] = huge
        step()
    return [p.detach().clone() for p in params]


def largest(found, expected):
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def differences(backend, kind):
    """Of usual steps, and of one with entries whose squares overflow, which did not move at all."""
    torch._dynamo.reset()
    (params, optimizer), (others, reference) = made(kind), made(kind)
    compiled = torch.compile(optimizer.step, backend=backend, fullgraph=True)
    usual = largest(drive(params, optimizer, compiled), drive(others, reference, reference.step))
    before = [p.detach().clone() for p in params]
    found = drive(params, optimizer, compiled, steps=1, huge=1e25)
    assert all((a != b).view(-1)[0] for a, b in zip(found, before, strict=True))
    return usual, largest(found, drive(others, reference, reference.step, steps=1, huge=1e25))


def with_its_check():
    """KellerJordan/Muon #40: the default step, with its check of the gradients, inside a compiled function."""
    torch._dynamo.reset()
    (params, optimizer), (others, reference) = (made(model, capturable=False, lr=0.01) for _ in range(2))
    compiled = torch.compile(lambda: optimizer.step(), backend="eager")
    return largest(drive(params, optimizer, compiled), drive(others, reference, reference.step))


def graphs_of_a_schedule():
    """How many graphs a number as the rate makes under a scheduler; the second is for a rate that changes."""
    torch._dynamo.reset()
    counter = CompileCounter()
    params, optimizer = made(model, lr=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    compiled = torch.compile(optimizer.step, backend=counter)
    for _ in range(6):
        drive(params, optimizer, compiled, steps=1)
        scheduler.step()
    return counter.frame_count


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {"every_variant": differences(sys.argv[1], every_variant)}
    print(json.dumps(found | {"checked": (with_its_check(),), "graphs": (graphs_of_a_schedule(),)}))
