"""The program for a GPU, on a processor with tiny sizes: wrong results end it, and without a GPU it says so."""

import runpy
import sys

import pytest
import torch

from benchmarks import _record
from benchmarks.optim import gpu
from spectrain import matfun

TINY = {"side": 12, "width": 16, "length": 12, "layers": 1, "step_width": 16, "rounds": 1}
msign = matfun.msign


def changed(how):
    """msign, and then something else; of one matrix or of a list."""

    def wrong(X, **asked):
        found = msign(X, **asked)
        return [how(Y) for Y in found] if isinstance(found, list) else how(found)

    return wrong


def noisy(Y):
    g = torch.Generator().manual_seed(0)
    return Y + 0.1 * torch.randn(Y.shape, generator=g, dtype=torch.float64).to(Y.dtype) * Y.std()


def test_the_same_code_runs_on_a_processor():
    found = gpu.measure(device="cpu", **TINY)
    assert found.figures["checks"] == len(found.rows) - 2
    assert {row["step"] for row in found.rows if "step" in row} == {"Muon", "torch Muon"}
    assert all(row["error"] <= row["at most"] for row in found.rows if "error" in row)
    for word in ("msign, tol", "msign, steps=5", "Muon, muon", "Muon, adamw", "attention", "bfloat16", "float64"):
        assert any(word in row.get("case", "") for row in found.rows)


@pytest.mark.parametrize(
    "how",
    [lambda Y: Y * 1.1, lambda Y: -Y, lambda Y: Y.flip(-1), lambda Y: Y * torch.nan, noisy, torch.zeros_like],
    ids=["too long", "another sign", "columns turned", "NaN", "noise", "nothing"],
)
@pytest.mark.parametrize("checks", [gpu.signs, gpu.fixed_steps])
def test_a_wrong_msign_ends_it(how, checks, monkeypatch):
    monkeypatch.setattr(matfun, "msign", changed(how))
    with pytest.raises(ArithmeticError, match=r"msign, .*, at most"):
        [check.row() for check in checks(torch.device("cpu"), 12)]


@pytest.mark.parametrize("case", ["Muon", "attention"])
def test_a_wrong_step_or_layer_ends_it(case, monkeypatch):
    if case == "Muon":
        step = gpu.Muon.step
        monkeypatch.setattr(gpu.Muon, "step", lambda self: None if _narrow(self) else step(self))
        checks = gpu.moves(torch.device("cpu"), 12, 16)
    else:
        both = gpu.both
        first = iter([1.0, 1.1])  # the exact one, then that of the device
        monkeypatch.setattr(gpu, "both", lambda *given: tuple(x * next(first, 1.0) for x in both(*given)[:1]) * 2)
        checks = gpu.attends(torch.device("cpu"), 16, 12)
    with pytest.raises(ArithmeticError, match=case):
        [check.row() for check in checks]


def _narrow(optimizer):
    return optimizer.param_groups[0]["params"][0].dtype == torch.float32


def test_without_a_device_for_them_no_kernel_is_checked():
    assert not list(gpu.kernels(torch.device("cpu"), 12))


def test_it_ends_in_time():
    """A clock that is beyond the end after the second check."""
    looks = iter([0.0, 100.0])
    checks = iter([gpu.Check("one", 0.0, 1.0), gpu.Check("two", 0.0, 1.0), gpu.Check("three", 0.0, 1.0)])
    with pytest.raises(TimeoutError, match="after two"):
        list(gpu.checked(checks, 60.0, lambda: next(looks)))


def test_without_a_gpu_it_says_so_and_records_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(_record, "RECORDS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    monkeypatch.delitem(sys.modules, "benchmarks.optim.gpu")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks.optim.gpu", run_name="__main__")
    assert ended.value.code == 77
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "gpu: skipped: torch sees no GPU; nothing was checked and nothing recorded"
    assert not list(tmp_path.iterdir())
