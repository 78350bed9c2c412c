"""What this machine does in a second: products, attention, elementwise work, calls; and what ranks send each other."""

import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from spectrain import matfun, nn, optim
from spectrain.train._mesh.ranks import ALONE, Ranks
from spectrain.train._plan.beside import measure_beside
from spectrain.train._plan.cluster import Cluster, Link, Rates
from spectrain.train._plan.pieces import pieces
from spectrain.train._run.machine import describe, keep_memory
from spectrain.train.config import TrainConfig

SIZES = (32, 64, 128, 256, 512, 1024)
"""Sides of the products that are measured."""
_LENGTHS = (64, 256)
_SIDES = (64, 256, 512)
_POOL, _MOST_POOL = 2**26, 64
_MOVES = (2**14, 2**20, 2**26)
_SMALL, _LARGE = 2**6, 2**22
_ASSUMED = Link(bandwidth=1e9, latency=1e-4)

WINDOW = 0.1
"""Seconds over which a figure is a mean."""
Pairs = Iterator[tuple[torch.Tensor, torch.Tensor]]
Clock = Callable[[], float]
Timed = Callable[[Callable[[], object]], float]


def measure_cluster(
    ranks: Ranks | None, *, device: torch.device, rounds: int = 3, clock: Clock = time.perf_counter
) -> Cluster:
    """Return the figures of this machine, each the median of some rounds; over ranks all measure at once.

    So many ranks as share a machine share its processor and its memory, and what each of them gets is what counts.
    ``memory`` is an equal part of what the machine has. One process knows no link; those of a few cores are assumed.
    """
    ranks = ranks or ALONE
    keep_memory()

    def timed(call: Callable[[], object]) -> float:
        found = [_pace(call, device, clock, ranks=None) for _ in range(rounds)]
        return statistics.fmean(ranks.gather(statistics.median(found)))

    node = int(os.environ.get("LOCAL_WORLD_SIZE") or ranks.world)
    about = describe()
    link = _ASSUMED if ranks.alone else _link(ranks, device, rounds, clock)
    found = Cluster(
        name=f"{about['cpu'] if device.type == 'cpu' else about['cuda']}, {ranks.world} x {device.type}",
        source=f"spectrain calibrate, {about['started_at']}" + (", links assumed" if ranks.alone else ""),
        device=device.type,
        memory=float(_memory(about, device) / (node if device.type == "cpu" else 1)),
        node=node,
        products={name: _products(getattr(torch, name), device, timed) for name in ("bfloat16", "float32")},
        attention={name: _attention(getattr(torch, name), device, timed) for name in ("bfloat16", "float32")},
        moves=_moves(device, timed),
        msign={name: _msign(getattr(torch, name), device, timed) for name in ("bfloat16", "float32")},
        call=_call(device, timed),
        beside={},
        message=0.0,
        inside=link,
        between=link,
        overlaps=device.type == "cuda",
    )
    return dataclasses.replace(found, beside=measure_beside(ranks, found, device=device, clock=clock))


def _pace(call: Callable[[], object], device: torch.device, clock: Clock, *, ranks: Ranks | None) -> float:
    """Seconds of a call, the mean of as many as fill a window: what else the machine does falls on training, too.

    ``ranks`` that call together make as many calls.
    """

    def taken(times: int) -> float:
        start = clock()
        for _ in range(times):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return max(1e-9, clock() - start)

    taken(1)
    one = taken(3) / 3
    times = max(3, min(100_000, round(WINDOW / one)))
    times = times if ranks is None else ranks.tell(times)
    return taken(times) / times


def _products(dtype: torch.dtype, device: torch.device, timed: Timed) -> Rates:
    found = []
    for side in SIZES:
        left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
        found.append((float(side), 2.0 * side**3 / timed(lambda a=left, b=right: a @ b)))  # type: ignore[misc]
    return tuple(found)


def _attention(dtype: torch.dtype, device: torch.device, timed: Timed) -> Rates:
    found = []
    for length in _LENGTHS:
        x = torch.ones(2, 4, length, 64, dtype=dtype, device=device)
        taken = timed(lambda x=x: F.scaled_dot_product_attention(x, x, x, is_causal=True))  # type: ignore[misc]
        found.append((float(length), 2 * 4 * length**2 * 128 / taken))
    return tuple(found)


def _moves(device: torch.device, timed: Timed) -> Rates:
    """Of a multiplication, each time of other tensors: what a step reads it has not just written, as a rule."""
    found = []
    for size in _MOVES:
        pool = [torch.ones(size // 12, device=device) for _ in range(max(2, min(_POOL // size, _MOST_POOL)))]
        pairs = itertools.cycle(itertools.pairwise(pool))
        kept = itertools.cycle([torch.ones(size // 12, device=device) for _ in pool])

        def multiply(pairs: Pairs = pairs, kept: Iterator[torch.Tensor] = kept) -> None:
            torch.mul(*next(pairs), out=next(kept))

        found.append((float(size), size / timed(multiply)))
    return tuple(found)


def _msign(dtype: torch.dtype, device: torch.device, timed: Timed) -> Rates:
    """Operations per second of msign of matrices twice as wide as high, as many as go through one call.

    All that it does besides products is in its time.
    """
    found, name = [], str(dtype).removeprefix("torch.")
    for side in _SIDES:
        count = max(1, optim.ranks.Machine.typical(device.type).batch // (2 * side**2))
        X = torch.eye(side, 2 * side, dtype=dtype, device=device).expand(count, -1, -1).contiguous()
        one = torch.nn.Linear(2 * side, side, bias=False, device="meta")
        (work,) = optim.ranks.plan_shards(one, mesh=(1,), compute_dtype=name, rules={"weight": "muon"}).works
        taken = timed(lambda X=X: matfun.msign(X, steps=5))  # type: ignore[misc]
        found.append((float(side), count * work.flops / taken))
    return tuple(found)


def _call(device: torch.device, timed: Timed) -> float:
    """Seconds of one operation among those of a block of almost no work, modules and autograd included."""
    tiny = TrainConfig(depth=1, width=8, heads=1, hidden=8, block=2, tokenizer="bytes", autocast="off").derive()[0]
    block = pieces(tiny, rows=1, tensor=1, alone=True, device=device.type).block
    model = nn.LanguageModel(vocabulary=8, width=8, depth=1, heads=1, hidden=8, generator=0).to(device)
    x = torch.zeros(1, 2, 8, device=device, requires_grad=True)

    def step() -> None:
        model.blocks[0](x).sum().backward()

    return timed(step) / (len(block.forward) + len(block.backward))


def _link(ranks: Ranks, device: torch.device, rounds: int, clock: Clock) -> Link:
    """Bandwidth and latency under which a gather and a sum scattered over all ranks take what they take."""
    world = ranks.world
    # The names of torch 2.13, and those before, which warn there.
    gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

    def mean(size: int) -> float:
        own = torch.ones(size // 4, device=device)
        every = torch.ones(size // 4 * world, device=device)
        calls = (lambda: gather(every, own), lambda: scatter(own, every))
        found = [_pace(call, device, clock, ranks=ranks) for call in calls for _ in range(rounds)]
        return statistics.fmean(ranks.gather(statistics.fmean(found)))

    small, large = mean(_SMALL), mean(_LARGE)
    return Link(bandwidth=(world - 1) * _LARGE / max(1e-9, large - small), latency=small / (world - 1))


def _memory(about: dict[str, object], device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    found = about["memory_bytes"]
    assert isinstance(found, int)
    return float(found)
