"""A single row through a linear map: a matrix times a vector, and torch's own product for all else."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spectrain.nn._linear import Linear


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def off(found, true):
    return float((found.double() - true).norm() / true.norm())


class Called(TorchDispatchMode):
    """The names of the products that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        if name in ("mv", "mm", "addmm", "bmm"):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_one_row_is_a_matrix_times_a_vector(dtype, bias):
    layer = Linear(200, 30, bias=bias).to(dtype)
    for i, shape in enumerate(((200,), (1, 200), (1, 1, 200), (3, 200), (0, 200))):
        x = normal(*shape, seed=i, dtype=dtype)
        with Called() as called:
            found = layer(x)
        alone = len(x.view(-1)) == 200 and dtype in (torch.float32, torch.bfloat16)
        assert called.names == ["mv"] if alone else "mv" not in called.names
        w, b = layer.weight.double(), layer.bias.double() if bias else 0.0
        true = x.double() @ w.mT + b
        assert found.shape == true.shape
        assert found.dtype == dtype
        if not len(x):
            continue
        u = 2 * torch.finfo(dtype).eps
        assert off(found, true) < u
        steps = torch.zeros_like(true)
        for j in range(200):
            steps = (steps + x.double()[..., j, None] * w[:, j]).to(torch.bfloat16).double()
        wrong = {
            "summed in bfloat16": steps + b,
            "rows in another order": true.flip(-1),
            "one input left out": true - x.double()[..., :1] * w[:, 0],
        }
        assert min(off(each, true) for each in wrong.values()) > 1.5 * off(found, true)


def test_rows_with_a_gradient_or_of_two_kinds_are_left_to_torch():
    layer, x = Linear(8, 5), normal(1, 8, dtype=torch.float32)
    with Called() as called:
        layer(x)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), Called() as narrowed:
        assert layer(x).dtype == torch.bfloat16
    assert "mv" not in called.names + narrowed.names
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(normal(1, 7, dtype=torch.float32))
