"""A generator runs once, in order, whoever takes from it; failures arrive, nothing hangs, nothing stays behind."""

import functools
import hashlib
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time

import numpy as np
import pytest
import torch

from spectrain import data

COUNT = 48


@pytest.fixture(autouse=True)
def no_hang():
    """A test that takes hangs ends with the stacks of all threads."""
    import faulthandler

    faulthandler.dump_traceback_later(240, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    assert not multiprocessing.active_children()


def numbers(first=0, count=COUNT):
    for i in range(first, count):
        yield torch.arange(3) + 10 * i, {"i": i, "x": torch.tensor(i, dtype=torch.bfloat16)}


def index(item):
    return item[1]["i"]


def digest(items):
    found = hashlib.sha256()
    for item in items:
        found.update(item[0].numpy().tobytes())
        found.update(str(item[1]["i"]).encode() + str(item[1]["x"]).encode())
    return found.hexdigest()


TRUTH = digest(numbers())


def taken(world, workers, method="fork", start=0, **options):
    """All items in the order of (step, rank), each rank through its own workers."""
    feed = data.processes.Generated(
        numbers, world=world, workers=max(1, workers), start=start, method=method, **options
    )
    with feed:
        ranks = [
            data.processes.Workers(feed.source(rank=r), workers=workers, start=start, method=method)
            for r in range(world)
        ]
        items = []
        while True:
            step = [next(rank, None) for rank in ranks]
            if step[0] is None:
                assert step == [None] * world, "the end comes to all ranks in the same step"
                break
            items += step
        for rank in ranks:
            rank.close()
    return items


@pytest.mark.parametrize(
    ("world", "workers", "method"),
    [(1, 0, "fork"), (1, 1, "fork"), (1, 2, "fork"), (1, 4, "fork"), (2, 0, "fork"), (2, 2, "fork"), (4, 0, "fork"),
     (4, 1, "fork"), (1, 2, "spawn"), (2, 0, "spawn")],
)  # fmt: skip
def test_the_order_is_the_generators_on_any_ranks_and_workers(world, workers, method):
    assert digest(taken(world, workers, method)) == TRUTH


def test_the_hash_sees_a_generator_that_every_worker_runs():
    copies = [item for item in numbers() for _ in range(2)][:COUNT]
    assert digest(copies) != TRUTH


@pytest.mark.parametrize("world", [1, 2])
def test_resume_by_skipping_at_twenty_points(world):
    whole = list(numbers())
    for start in random.Random(0).sample(range(COUNT // world), 20):
        with data.processes.Generated(numbers, world=world, start=start, method="fork") as feed:
            ranks = [feed.source(rank=r) for r in range(world)]
            assert [index(rank(start)) for rank in ranks] == [index(i) for i in whole[start * world :][:world]]


def test_resume_by_state():
    make = functools.partial(numbers, 20)
    with data.processes.Generated(make, world=2, start=10, skip=False, method="fork") as feed:
        assert [index(feed.source(rank=r)(10)) for r in (0, 1)] == [20, 21]


def dice():
    while True:
        yield torch.rand(2).tolist(), np.random.rand(), random.random()


def test_global_generators_are_functions_of_the_item():
    def items(start, skip=True):
        with data.processes.Generated(dice, start=start, skip=skip, seed=3, method="fork") as feed:
            source = feed.source()
            return [source(t) for t in range(start, 8)]

    state = torch.get_rng_state()
    whole = items(0)
    assert items(5) == whole[5:]
    assert items(5, skip=False) == whole[5:]
    assert len({row[2] for row in whole}) == 8
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_that_is_not_filled_is_left_out():
    with data.processes.Generated(functools.partial(numbers, 0, 5), world=2, method="fork") as feed:
        left, right = feed.source(rank=0), feed.source(rank=1)
        assert [(index(a), index(b)) for a, b in zip(left, right, strict=True)] == [(0, 1), (2, 3)]


def test_an_empty_generator_ends_at_once():
    with data.processes.Generated(list, method="fork") as feed:
        assert list(feed.source()) == []


def counting(path, count=1000):
    for i in range(count):
        (path / str(i)).touch()
        yield i


def test_the_generator_is_no_further_ahead_than_the_queues_hold(tmp_path):
    with data.processes.Generated(functools.partial(counting, tmp_path), ahead=3, method="fork") as feed:
        source = feed.source()
        source(0)
        time.sleep(0.5)
        assert len(list(tmp_path.iterdir())) <= 1 + 3 + 1


def test_a_slow_rank_does_not_lose_or_reorder(tmp_path):
    with data.processes.Generated(functools.partial(counting, tmp_path, 40), world=2, ahead=1, method="fork") as feed:
        found = [[], []]

        def take(rank):
            for item in feed.source(rank=rank):
                found[rank].append(item)
                time.sleep(0.01 * rank)

        threads = [threading.Thread(target=take, args=(r,)) for r in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [list(range(0, 40, 2)), list(range(1, 40, 2))]


def fails():
    yield 0
    yield 1
    raise KeyError("the third is missing")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_generator_that_raises_says_where(workers):
    with (
        data.processes.Generated(fails, workers=max(1, workers), method="fork") as feed,
        data.processes.Workers(feed.source(), workers=workers, method="fork") as batches,
    ):
        assert [next(batches), next(batches)] == [0, 1]
        with pytest.raises(
            data.processes.WorkerError, match=r"the generator failed:\n(.|\n)*in fails(.|\n)*third is missing"
        ):
            next(batches)


def refuses():
    raise OSError("no such corpus")


def test_a_generator_that_cannot_be_made_says_so():
    with data.processes.Generated(refuses, world=2, method="fork") as feed:
        for rank in (0, 1):
            with pytest.raises(data.processes.WorkerError, match="no such corpus"):
                feed.source(rank=rank)(0)


def test_a_start_beyond_the_end_says_so():
    with (
        data.processes.Generated(functools.partial(numbers, 0, 3), start=7, method="fork") as feed,
        pytest.raises(data.processes.WorkerError, match="step 7 is beyond the end of the generator, which has 3 items"),
    ):
        feed.source()(7)


def dies():
    yield 0
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_generator_is_an_error_and_no_hang():
    with data.processes.Generated(dies, method="fork") as feed:
        source = feed.source()
        assert source(0) == 0
        with pytest.raises(data.processes.WorkerError, match="the process of the generator died or was closed"):
            source(1)


def kills_itself(t, source):
    if t == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return source(t)


def test_a_killed_worker_is_an_error_for_it_and_for_the_other_ranks():
    with data.processes.Generated(numbers, world=2, workers=2, method="fork") as feed:
        crews = [
            data.processes.Workers(
                functools.partial(kills_itself, source=feed.source(rank=0)), workers=2, method="fork"
            ),
            data.processes.Workers(feed.source(rank=1), workers=2, method="fork"),
        ]
        for t in range(3):
            assert [index(next(crew)) for crew in crews] == [2 * t, 2 * t + 1]
        with pytest.raises(data.processes.WorkerError, match=r"batch 3 died \(exit code -9"):
            next(crews[0])
        with pytest.raises(data.processes.WorkerError, match=r"rank 0 went away before it had taken step"):
            for _ in range(5):
                next(crews[1])
        for crew in crews:
            crew.close()


def test_a_closed_feed_is_an_error():
    feed = data.processes.Generated(numbers, method="fork")
    used, late = feed.source(), feed.source()
    used(0)
    feed.close()
    feed.close()
    with pytest.raises(data.processes.WorkerError, match="died or was closed"):
        for t in range(1, 10):
            used(t)
    with pytest.raises(data.processes.WorkerError, match="is not there"):
        late(0)


def test_a_second_source_of_one_rank_is_told():
    with data.processes.Generated(numbers, world=2, method="fork") as feed:
        first, other, second = feed.source(rank=0), feed.source(rank=1), feed.source(rank=0)
        assert [index(first(0)), index(other(0))] == [0, 1]
        with pytest.raises(
            data.processes.WorkerError, match="rank 0, worker 0 is taken from by another source already"
        ):
            second(0)
        assert [index(first(1)), index(other(1))] == [2, 3]  # and the first one goes on


def test_more_workers_than_there_are_places_are_told():
    with (
        data.processes.Generated(numbers, workers=1, method="fork") as feed,
        data.processes.Workers(feed.source(), workers=2, method="fork") as batches,
        pytest.raises(data.processes.WorkerError, match="the first step is 0, or one for each of 1 workers"),
    ):
        for _ in range(3):
            next(batches)


def test_a_peer_that_says_nothing_keeps_nobody_out():
    import socket

    with data.processes.Generated(numbers, method="fork") as feed:
        silent = []
        for said in (b"", b"\0\0\0\x05hello", b"\x7f\xff\xff\xff"):
            silent.append(socket.socket(socket.AF_UNIX))
            silent[-1].connect(feed._at[0])
            silent[-1].sendall(said)
        source = feed.source()
        assert [index(source(t)) for t in range(3)] == [0, 1, 2]
        for one in silent:
            one.close()


def test_who_knows_the_key_and_says_nonsense_keeps_nobody_out():
    from multiprocessing.connection import Client

    with data.processes.Generated(numbers, method="fork") as feed:
        quiet, wrong = (Client(feed._at[0], authkey=feed._at[1]) for _ in range(2))
        wrong.send((5, 0))
        assert index(feed.source()(0)) == 0
        assert b"there is no place for (5, 0)" in wrong.recv_bytes()
        quiet.close()
        wrong.close()


def test_a_failure_is_told_to_who_is_here_before_the_others_come():
    with data.processes.Generated(refuses, world=2, method="fork") as feed:
        with pytest.raises(data.processes.WorkerError, match="no such corpus"):
            feed.source(rank=1)(0)  # rank 0 has not come
        with pytest.raises(data.processes.WorkerError, match="no such corpus"):
            feed.source(rank=0)(0)


def test_steps_go_forwards_once():
    with data.processes.Generated(numbers, method="fork") as feed:
        source = pickle.loads(pickle.dumps(feed.source()))
        with pytest.raises(ValueError, match="the first step is 0"):
            source(3)
        source(0)
        with pytest.raises(ValueError, match="a generator goes forwards, and the next step here is 1; got 0"):
            source(0)


@pytest.mark.parametrize("bad", [{"world": 0}, {"workers": 0}, {"start": -1}, {"ahead": 0}])
def test_impossible_numbers(bad):
    with pytest.raises(ValueError, match="must be at least"):
        data.processes.Generated(numbers, **bad)
    with data.processes.Generated(numbers, method="fork") as feed, pytest.raises(ValueError, match="between 0 and 0"):
        feed.source(rank=1)


PROGRAM = """
import os, sys, time
from spectrain import data

def slow():
    for i in range(1000):
        time.sleep(0.02)
        yield i

if __name__ == "__main__":
    feed = data.processes.Generated(slow, workers=2, method="{method}")
    batches = data.processes.Workers(feed.source(), workers=2, method="{method}")
    print(next(batches), flush=True)
    {ending}
"""


@pytest.mark.parametrize(
    ("ending", "method"),
    [
        ("without a word", "fork"),
        ("by an error", "fork"),
        ("by Ctrl-C", "fork"),
        ("by a kill", "fork"),
        ("by Ctrl-C", "spawn"),
    ],
)
def test_a_program_ends_without_a_hang_and_leaves_no_process(ends_cleanly, ending, method):
    ends_cleanly(PROGRAM, ending=ending, method=method)
