"""torch.optim.Muon before the checks of test_complaints.py: those that it does not pass. Ours passes all of them.

When a new torch passes one, that check has done its work here.
"""

import pytest
import torch
from torch import nn

from spectrain.optim import Muon


def gaussian(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def moved(make, grad, **settings):
    p = nn.Parameter(torch.zeros(grad.shape, dtype=grad.dtype))
    p.grad = grad.clone()
    optimizer = make([p], lr=1.0, weight_decay=0.0, **settings)
    optimizer.step()
    return p.detach(), optimizer.state[p]["momentum_buffer"]


def size_at(scale):
    return lambda make: moved(make, scale * gaussian(16, 24))[0].square().mean().sqrt().item() > 0.05


def momentum_is_the_average(make):
    grad = gaussian(8, 8, dtype=torch.bfloat16)
    buffer = moved(make, grad, nesterov=False, momentum=0.5)[1]
    return torch.allclose(buffer.float(), grad.float() / 2, rtol=0.01)


def takes(*shape):
    def check(make):
        settings = (
            {} if make is torch.optim.Muon else {"matrix": {"batch": 1} if len(shape) == 3 else {"flatten": True}}
        )
        p = nn.Parameter(torch.zeros(shape))
        try:
            make([{"params": [p], **settings}])
        except ValueError:
            return False
        return True

    return check


CHECKS = {
    "pytorch #194664: momentum of 16 bits is left alone": momentum_is_the_average,
    "Megatron-LM #5394: a gradient of 1e-30 moves the weights": size_at(1e-30),
    "Megatron-LM #5394: one of 1e25 does": size_at(1e25),
    "pytorch #190597: stacked matrices": takes(4, 8, 8),
    "pytorch #180561: convolutions": takes(8, 4, 3, 3),
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_ours_passes_and_torchs_does_not(check):
    assert check(Muon)
    assert not check(torch.optim.Muon)
