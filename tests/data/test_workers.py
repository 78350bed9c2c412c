"""Worker processes change nothing but the time: the same batches, errors that arrive, no hang."""

import hashlib
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from spectrain import data

STREAM = data.TokenStream(np.arange(500, dtype=np.int32), block=7, batch=8, seed=3)


def digest(batches, count):
    found = hashlib.sha256()
    for _ in range(count):
        for part in next(batches):
            found.update(part.numpy().tobytes())
    return found.hexdigest()


TRUTH = digest(iter([STREAM.batch(t) for t in range(24)]), 24)


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_the_hash_is_the_same_whatever_the_workers(workers, method):
    with data.processes.Workers(STREAM.batch, workers=workers, method=method) as batches:
        assert digest(batches, 24) == TRUTH


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_together_have_the_global_batch(world):
    ranks = [
        data.TokenStream(np.arange(500, dtype=np.int32), block=7, batch=8, seed=3, rank=r, world=world)
        for r in range(world)
    ]
    crews = [data.processes.Workers(rank.batch, workers=1, method="fork") for rank in ranks]
    parts = [[next(crew) for crew in crews] for _ in range(24)]
    for crew in crews:
        crew.close()
    whole = iter([tuple(torch.cat(side) for side in zip(*part, strict=True)) for part in parts])
    assert digest(whole, 24) == TRUTH


def test_resume_anywhere():
    draw = random.Random(0)
    for start in [draw.randrange(1000) for _ in range(20)]:
        with data.processes.Workers(STREAM.batch, start=start, workers=2, method="fork") as batches:
            for t in range(start, start + 3):
                assert all(torch.equal(a, b) for a, b in zip(next(batches), STREAM.batch(t), strict=True))


def test_the_hash_sees_a_wrong_order():
    swapped = [STREAM.batch(t) for t in [1, 0, *range(2, 24)]]
    assert digest(iter(swapped), 24) != TRUTH


def dice(t):
    return torch.rand(3), np.random.rand(2), random.random(), t


def test_global_generators_are_functions_of_the_step():
    state = torch.get_rng_state(), random.getstate()
    found = []
    for workers in (0, 1, 3):
        with data.processes.Workers(dice, workers=workers, method="fork", seed=5) as batches:
            found.append([next(batches) for _ in range(6)])
    for crew in found[1:]:
        for a, b in zip(found[0], crew, strict=True):
            assert torch.equal(a[0], b[0])
            assert np.array_equal(a[1], b[1])
            assert a[2:] == b[2:]
    assert len({row[2] for row in found[0]}) == 6
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


def fails_at_three(t):
    if t == 3:
        raise KeyError("the third is missing")
    return t


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_worker_says_where(workers):
    with data.processes.Workers(fails_at_three, workers=workers, method="fork") as batches:
        assert [next(batches) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(
            data.processes.WorkerError, match=r"batch 3 failed in a worker:\n(.|\n)*the third is missing"
        ):
            next(batches)
        with pytest.raises(ValueError, match="was closed"):
            next(batches)
    assert not multiprocessing.active_children()


def dies_at_three(t):
    if t == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return t


def test_a_killed_worker_is_an_error_and_no_hang():
    with data.processes.Workers(dies_at_three, workers=2, method="fork") as batches:
        assert [next(batches) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(data.processes.WorkerError, match=r"batch 3 died \(exit code -9"):
            next(batches)


def counted(t):
    (pathlib_folder() / str(t)).touch()
    return t


def pathlib_folder():
    from pathlib import Path

    return Path(os.environ["COUNTED"])


def test_workers_are_no_further_ahead_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTED", str(tmp_path))
    with data.processes.Workers(counted, workers=2, ahead=3, method="fork") as batches:
        next(batches)
        deadline = time.monotonic() + 30
        while len(list(tmp_path.iterdir())) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert {int(path.name) for path in tmp_path.iterdir()} == set(range(6))


PROGRAM = """
import os, signal, sys, time
from spectrain import data

def slow(t):
    time.sleep(0.05)
    return t

if __name__ == "__main__":
    batches = data.processes.Workers(slow, workers=2, method="{method}")
    print(next(batches), flush=True)
    {ending}
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("ending", ["without a word", "by an error", "by Ctrl-C"])
def test_a_program_ends_without_a_hang_and_leaves_no_process(ends_cleanly, ending, method):
    ends_cleanly(PROGRAM, ending=ending, method=method)


@pytest.mark.parametrize("bad", [{"workers": -1}, {"ahead": 0}, {"start": -1}])
def test_impossible_numbers(bad):
    with pytest.raises(ValueError, match=r"must be at least"):
        data.processes.Workers(STREAM.batch, **bad)
