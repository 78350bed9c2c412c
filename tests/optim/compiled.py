"""The step in one graph beside the eager one; prints the largest difference of each setting. By test_compile.py.

A process of its own: the shape checks that the tests put on every function cannot be compiled.
"""

import json
import sys

import torch
from torch import nn

from spectrain.optim import Muon

RULES = {"3.weight": "sign", "0.weight": "rows", "1.weight": {"split": (8, 4)}}
SETTINGS = {
    "plain": {},
    "normuon": {"variant": "normuon", "decay": "cautious", "maximize": True},
    "adam": {"variant": "adam", "decay": "spectral", "rules": RULES, "nesterov": False},
}


def made(**settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 12), nn.Conv2d(2, 4, 3), nn.LayerNorm(4), nn.Linear(12, 7))
    chosen = {"lr": torch.tensor(0.01), "compute_dtype": "float32", "capturable": True, **settings}
    return model, Muon(model, **chosen)


def drive(model, optimizer, step, steps=3, huge=0.0):
    for i in range(steps):
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(0.01 / (i + 1))
        for k, p in enumerate(model.parameters()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * i + k))
            if huge:
                p.grad.view(-1)[0] = huge
        step()
    return [p.detach().clone() for p in model.parameters()]


def with_its_check():
    """KellerJordan/Muon #40: the default step, with its check of the gradients, inside a compiled function."""
    (model, optimizer), (other, reference) = (made(capturable=False, lr=0.01) for _ in range(2))
    compiled = torch.compile(lambda: optimizer.step(), backend="eager")
    found, expected = drive(model, optimizer, compiled), drive(other, reference, reference.step)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def with_huge_entries(backend):
    """Entries whose squares overflow, in AdamW and in msign of an Adam update: they did not move at all."""
    torch._dynamo.reset()
    (model, optimizer), (other, reference) = (made(variant="adam") for _ in range(2))
    before = [p.detach().clone() for p in model.parameters()]
    compiled = torch.compile(optimizer.step, backend=backend, fullgraph=True)
    found = drive(model, optimizer, compiled, huge=1e25)
    expected = drive(other, reference, reference.step, huge=1e25)
    assert all((a != b).view(-1)[0] for a, b in zip(found, before, strict=True))
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def difference(backend, settings):
    torch._dynamo.reset()
    (model, optimizer), (other, reference) = made(**settings), made(**settings)
    compiled = torch.compile(optimizer.step, backend=backend, fullgraph=True)
    found, expected = drive(model, optimizer, compiled), drive(other, reference, reference.step)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {name: difference(sys.argv[1], settings) for name, settings in SETTINGS.items()}
    print(json.dumps(found | {"checked": with_its_check(), "huge": with_huge_entries(sys.argv[1])}))
