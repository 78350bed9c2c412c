"""When a kernel is chosen: where it may be, is right against float64 and faster; else torch's product, bit for bit."""

import subprocess
import sys

import pytest
import torch

from spectrain import matfun
from spectrain._arrays._triton import choice
from spectrain._arrays._triton.judges import symmetric_roundings
from spectrain._arrays.products import symmetric_baddbmm, symmetric_bmm
from spectrain.testing import exact_msign, relative_error


def noise(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ---- where one may be chosen


def in_vmap():
    seen = []
    torch.func.vmap(lambda X: seen.append(choice.possible(X)) or X)(torch.ones(2, 3, 3))
    return seen[0]


def forward():
    with torch.autograd.forward_ad.dual_level():
        return choice.possible(torch.ones(2, 3, 3))


def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        return choice.possible(torch.ones(2, 3, 3))
    finally:
        torch.use_deterministic_algorithms(False)


class Subclass(torch.Tensor):
    pass


REFUSED = {
    "float64": lambda: choice.possible(torch.ones(2, 3, 3, dtype=torch.float64)),
    "with a derivative": lambda: choice.possible(torch.ones(2, 3, 3), torch.ones(2, 3, 3, requires_grad=True)),
    "with a forward derivative": forward,
    "under vmap": in_vmap,
    "of another class": lambda: choice.possible(torch.ones(2, 3, 3).as_subclass(Subclass)),
    "where bits repeat": deterministic,
}


@pytest.mark.parametrize("case", REFUSED)
def test_where_none_may_be_chosen(capable, case):
    assert choice.possible(torch.ones(2, 3, 3))
    assert choice.possible(torch.ones(2, 3, 3), torch.nn.Parameter(torch.ones(2, 3, 3), requires_grad=False))
    assert not REFUSED[case]()


def test_none_is_chosen_in_graphs_or_among_ranks(capable, monkeypatch):
    X = torch.ones(2, 3, 3)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for world, allowed in ((1, True), (2, False)):
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda world=world: world)
        assert choice.possible(X) == allowed
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(choice, "recording", lambda: True)
    assert not choice.possible(X)


def test_which_devices_can(monkeypatch):
    can = choice._capable.__wrapped__
    cuda, version = torch.device("cuda"), (8, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: version)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: object())
    assert can(cuda)
    assert not can(torch.device("cpu"))
    version = (7, 5)
    assert not can(cuda)
    version = (9, 0)
    assert can(cuda)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not can(cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    assert not can(cuda)


def test_neither_import_nor_msign_on_a_processor_loads_triton():
    code = (
        "import sys, torch; from spectrain import matfun, optim; from spectrain._arrays._triton.choice import trials\n"
        "matfun.msign([torch.randn(200, 200), torch.randn(16, 40)], steps=5, dtype=torch.bfloat16)\n"
        "assert 'triton' not in sys.modules and not trials()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- what is compared, and what wins


def clock(times):
    """Milliseconds of a call by the name of its way, as CUDA's events would tell."""
    return lambda run: times[getattr(run, "way", "theirs")]


def run(way, value=0.0):
    def call():
        if isinstance(value, Exception):
            raise value
        return torch.tensor(value)

    call.way = way
    return call


def compared(values, times):
    ours = {way: run(way, value) for way, value in values.items()}
    return choice.compare(ours, run("theirs"), float, milliseconds=clock({"theirs": 1.0} | times))


LOST = {
    "wrong": (5.0, 0.1),
    "no number": (float("nan"), 0.1),
    "slower": (0.5, 1.2),
    "hardly faster": (0.5, 0.99),
    "not compiled": (RuntimeError("no C compiler"), 0.1),
    "too little memory": (torch.OutOfMemoryError("of 40 GiB"), 0.1),
}


@pytest.mark.parametrize("case", LOST)
def test_what_is_not_right_or_not_faster_loses(case):
    value, time = LOST[case]
    (trial,) = compared({"a": value}, {"a": time})
    assert not trial.wins
    assert choice.winner(case, lambda: [trial]) is None
    assert bool(trial.problem) == isinstance(value, Exception)
    (right,) = compared({"a": 1.0}, {"a": 0.5})
    assert right.wins
    assert right.ratio == 0.5


def test_the_fastest_right_one_wins_and_is_compared_once():
    times = {"slow": 0.9, "fast": 0.4, "wrong": 0.1}
    seen = []

    def trials():
        seen.append(1)
        return compared({"slow": 0.1, "fast": 1.0, "wrong": 9.0}, times)

    assert [choice.winner("key", trials) for _ in range(3)] == ["fast"] * 3
    assert len(seen) == 1
    assert [trial.way for trial in choice.trials()["key"]] == ["slow", "fast", "wrong"]


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("of 40 GiB"), ImportError("libcuda.so.1")], ids=repr)
def test_where_nothing_can_be_compared_torch_is_taken(problem):
    def trials():
        raise problem

    assert choice.winner("key", trials) is None
    assert str(problem) in choice.trials()["key"][0].problem


# ---- the judge


def stale(exact):
    exact[..., 0, -1] += 0.02 * exact[..., 0, -1]
    return exact


ANSWERS = {
    "mirror missed": lambda exact, A: exact.tril(),
    "transposed factor": lambda exact, A: (A.mT @ A).new_zeros(exact.shape) + exact.roll(1, -1),
    "beta ignored": lambda exact, A: 1.5 * A.double() @ A.double().mT,
    "one entry": lambda exact, A: stale(exact.clone()),
    "NaN in one entry": lambda exact, A: torch.where(torch.eye(exact.shape[-1]) > 0, torch.nan, exact),
    "second matrix forgotten": lambda exact, A: exact * torch.tensor([1.0, 0.0])[:, None, None],
    "nothing": lambda exact, A: exact * 0,
}


@pytest.mark.parametrize("dtype", choice.DTYPES, ids=str)
@pytest.mark.parametrize("side", [20, 600])
def test_the_judge_counts_one_rounding_and_rejects_wrong_answers(dtype, side):
    A = noise(2, side, 30, dtype=dtype)
    C = A @ A.mT
    exact = 1.5 * A.double() @ A.double().mT - 0.5 * C.double()
    count = lambda found: symmetric_roundings(found.to(dtype), C, A, A.mT, -0.5, 1.5)  # noqa: E731
    assert count(exact) <= 1
    for name, answer in ANSWERS.items():
        assert not count(answer(exact, A)) <= choice.MOST_ROUNDINGS, name


def test_the_judge_rejects_tf32_and_bfloat16_sums():
    A = noise(1, 64, 512)
    short = A.view(torch.int32).bitwise_and(~0x1FFF).view(torch.float32)  # ten bits, as tensor cores read float32
    assert symmetric_roundings(short @ short.mT, None, A, A.mT) > choice.MOST_ROUNDINGS
    H, total = A.bfloat16(), torch.zeros(1, 64, 64, dtype=torch.bfloat16)
    for part in H.split(32, -1):
        total += (part.float() @ part.float().mT).bfloat16()
    assert symmetric_roundings(total, None, H, H.mT) > choice.MOST_ROUNDINGS
    assert symmetric_roundings((H.float() @ H.float().mT).bfloat16(), None, H, H.mT) <= 1.05


# ---- all of it, with the interpreter for a device


def kernels_compared():
    return {key[0] for key in choice.trials()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_symmetric_products_go_by_the_kernel(device, dtype):
    A = noise(2, 130, 40, dtype=dtype)
    G = symmetric_bmm(A, A.mT)
    M = symmetric_baddbmm(G, G, G, beta=-0.5, alpha=1.5)
    assert len(choice.trials()) == 2
    assert all(trial.wins for trials in choice.trials().values() for trial in trials)
    assert symmetric_roundings(G, None, A, A.mT) <= 1.05
    assert symmetric_roundings(M, G, G, G, -0.5, 1.5) <= 1.05
    for X in (G, M):
        assert torch.equal(X, X.mT)


def test_a_wrong_kernel_is_not_taken(device, interpreted):
    interpreted("symmetric", "tl.store(OUT + columns * o_row + rows * o_column, found, mask=below)", "pass")
    A = noise(2, 130, 40)
    assert torch.equal(symmetric_bmm(A, A.mT), torch.bmm(A, A.mT))
    assert not any(trial.wins for trials in choice.trials().values() for trial in trials)


@pytest.mark.parametrize("shape", [(16, 80), (80, 16), (24, 24)])
def test_msign_of_small_matrices_is_one_launch_and_closer_to_the_exact(device, shape, monkeypatch):
    X = noise(*shape, dtype=torch.bfloat16)
    five = lambda: matfun.msign([X], steps=5, dtype=torch.bfloat16)[0]  # noqa: E731
    monkeypatch.setattr(choice, "_capable", lambda device: False)
    before = relative_error(five(), exact_msign(X))
    assert not choice.trials()
    monkeypatch.setattr(choice, "_capable", lambda device: True)
    assert relative_error(five(), exact_msign(X)) <= before
    assert kernels_compared() == {"quintics"}


def test_msign_of_larger_ones_goes_by_symmetric_products(device):
    X = noise(1, 130, 140, dtype=torch.bfloat16)[0]
    (found,) = matfun.msign([X], steps=5, dtype=torch.bfloat16)
    assert kernels_compared() == {"symmetric"}
    assert relative_error(found, exact_msign(X)) <= 0.05
