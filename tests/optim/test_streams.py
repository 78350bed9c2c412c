"""Several CUDA streams: what waits for what, on pretended streams, and that nothing changes where there are none."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spectrain.optim import Muon
from spectrain.optim._step import portions as room
from spectrain.optim._step.portions import Live, portions
from spectrain.optim._step.settings import Settings

SHAPES = [(8, 8), (8, 16), (16, 8), (32, 8), (8, 8), (64, 64)]


class Clock:
    """Streams as vector clocks: the work that each has been told of and waits for, by name of the portion."""

    def __init__(self):
        self.streams = {}
        self.current = self.stream("main")

    def stream(self, name):
        def wait_stream(other):
            self.streams[name].done |= other.done

        return self.streams.setdefault(name, SimpleNamespace(name=name, done=set(), wait_stream=wait_stream))

    @contextmanager
    def inside(self, stream):
        outer, self.current = self.current, stream
        yield
        self.current = outer


def portion(name):
    there = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    return [Live(Settings(), [name], [there], [], [])]


@pytest.fixture
def clock(monkeypatch):
    pretended = Clock()
    pretended.current.done.add("gradients")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: pretended.current)
    monkeypatch.setattr(torch.cuda, "stream", pretended.inside)
    monkeypatch.setattr(room, "_stream", lambda _, index: pretended.stream(f"side{index}"))
    return pretended


def fork_only(made, act, *, streams):
    for turn, one in enumerate(made):
        side = room._stream(None, turn % streams)
        side.wait_stream(torch.cuda.current_stream(None))
        with torch.cuda.stream(side):
            act(one)


def join_only(made, act, *, streams):
    current = torch.cuda.current_stream(None)
    for turn, one in enumerate(made):
        side = room._stream(None, turn % streams)
        with torch.cuda.stream(side):
            act(one)
        current.wait_stream(side)


def in_a_row(made, act, *, streams):
    for one in made:
        act(one)


def is_right(clock, run):
    """Every portion begins after the gradients, two streams are used, and the current one ends after all of them."""
    seen, places = [], []

    def act(live):
        seen.append("gradients" in clock.current.done)
        places.append(clock.current.name)
        clock.current.done.add(live[0].names[0])

    run([portion(name) for name in "abcde"], act, streams=2)
    return all(seen) and places == ["side0", "side1"] * 2 + ["side0"] and set("abcde") <= clock.streams["main"].done


def test_the_order_is_that_of_one_stream(clock):
    assert is_right(clock, room.side_by_side)


@pytest.mark.parametrize("wrong", [fork_only, join_only, in_a_row])
def test_wrong_orders_are_rejected(clock, wrong):
    assert not is_right(clock, wrong)


def test_portions_for_streams_hold_every_matrix_once(monkeypatch):
    monkeypatch.setattr(room, "_far", lambda part: part.names[0].startswith("True"))
    made = {far: Live(Settings(), [f"{far}{i}" for i in range(len(SHAPES))],
                      [torch.empty(shape) for shape in SHAPES], [None] * len(SHAPES), [None] * len(SHAPES))
            for far in (True, False)}  # fmt: skip
    found = list(portions(list(made.values()), streams=3))
    names = [name for one in found for part in one for name in part.names]
    assert sorted(names) == sorted(made[True].names + made[False].names)
    far = [one for one in found if room._far(one[0])]
    assert 2 <= len(far) <= 3 + 1
    assert len(list(portions([made[True]], streams=1))) == 1
    exact = Live(Settings(tol=1e-3), *made[True][1:])
    assert len(list(portions([exact], streams=3))) == 1


def trained(streams):
    draw = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) / 4)
    optimizer = Muon(model, lr=0.02, streams=streams)
    for _ in range(3):
        model(torch.randn(16, 12, generator=draw)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach() for p in model.parameters()]


def test_without_a_gpu_streams_change_no_bit():
    for one, many in zip(trained(1), trained(4), strict=True):
        assert torch.equal(one, many)


@pytest.mark.parametrize("streams", [0, -1, True])
def test_a_number_that_is_none_is_refused(streams):
    with pytest.raises(ValueError, match="streams must be an integer of at least 1"):
        Muon(nn.Linear(4, 4), rules={"weight": "muon"}, streams=streams)
