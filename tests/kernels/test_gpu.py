"""The part of the program for a GPU that checks the kernels, with the interpreter for a device."""

import pytest
import torch

from benchmarks.optim import gpu

CPU = torch.device("cpu")


@pytest.fixture
def few(interpreted, capable):
    """The kernels as they are, one tiling of them."""
    kernels = interpreted("symmetric"), interpreted("quintics")
    kernels[0].TILINGS = kernels[0].TILINGS[:1]


def test_every_kernel_is_checked_and_timed_beside_torchs_product(few):
    kernels = list(gpu.kernels(CPU, 10))
    rows = [kernel.check().row() for kernel in kernels]
    assert [kernel.case.split(",")[0] for kernel in kernels] == ["X^T X", "(3 G - G^2) / 2"] * 3 + ["five steps"] * 2
    assert all(row["error"] < row["at most"] / 2 for row in rows)
    times = gpu.kernel_times(kernels[:1], CPU, rounds=1)
    assert times[0]["kernel"] == kernels[0].case
    assert {"ours", "theirs", "ratio"} < set(times[0])
    torchs = [gpu.distance(kernel.theirs(), kernel.exact()) for kernel in kernels]
    assert all(error < 0.1 for error in torchs)


WRONG = {
    "symmetric": ("tl.store(OUT + columns * o_row + rows * o_column, found, mask=below)", "pass"),
    "quintics": ("range(count)", "range(count - 1)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_ends_it(few, interpreted, name):
    module = interpreted(name, *WRONG[name])
    if name == "symmetric":
        module.TILINGS = module.TILINGS[:1]
    with pytest.raises(ArithmeticError, match="kernel, "):
        [kernel.check().row() for kernel in gpu.kernels(CPU, 10)]


def test_the_whole_program_shows_what_was_checked_timed_and_chosen(device):
    tiny = {"side": 12, "width": 16, "length": 12, "layers": 1, "step_width": 16, "rounds": 1}
    found = gpu.measure(device="cpu", **tiny)
    for word in ("| kernel, X^T X, float16", "| five steps, 64 of 16x48, bfloat16", "| quintics cpu torch.bfloat16"):
        assert word in found.body
    assert all(row["taken"] for row in found.rows if "taken" in row)
