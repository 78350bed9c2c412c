"""Who computes which matrix and in which bucket, for shapes of real models, and how long it takes."""

import collections
import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch

from spectrain import nn
from spectrain.optim._layout.parts import Part
from spectrain.optim._ranks.buckets import Batch, Course, course, timeline
from spectrain.optim._ranks.cost import Choice, Machine, Work, load
from spectrain.optim.ranks import plan_shards

SHAPES = {
    "12 layers": {"depth": 12, "width": 768, "heads": 12, "hidden": 2048},
    "24 layers": {"depth": 24, "width": 2048, "heads": 16, "hidden": 5504},
    "32 layers": {"depth": 32, "width": 4096, "heads": 32, "kv_heads": 8, "hidden": 14336},
    "64 experts": {"depth": 2, "width": 2048, "heads": 16},
}


@functools.cache
def planned(name, ranks, **changed):
    experts = {"experts": 64, "top_k": 6, "hidden": 1408, "shared": 2}
    more = {"feed_forward": lambda i: nn.MoE(2048, **experts)} if name == "64 experts" else {}
    with torch.device("meta"):
        model = nn.LanguageModel(vocabulary=32000, **(SHAPES[name] | changed), **more)
    return plan_shards(model, mesh=(ranks,))


def best_balance(works, ranks):
    """Mean over the least possible largest load of ranks that each take whole matrices, by integer programming."""
    from scipy.optimize import LinearConstraint, milp

    counts = collections.Counter(work.flops for work in works)
    mean = sum(cost * n for cost, n in counts.items()) / ranks
    loads = list(itertools.product(*(range(min(n, int(2 * mean / cost)) + 1) for cost, n in counts.items())))
    sums = [sum(n * cost for n, cost in zip(load, counts, strict=True)) for load in loads]
    for most in sorted({x for x in sums if x >= mean * (1 - 1e-12)}):
        fitting = np.array([load for load, x in zip(loads, sums, strict=True) if x <= most]).T
        enough = LinearConstraint(np.vstack([fitting, -np.ones(fitting.shape[1])]), [*counts.values(), -ranks])
        if milp(np.zeros(fitting.shape[1]), constraints=enough, integrality=np.ones(fitting.shape[1])).success:
            return mean / most
    raise AssertionError("no load is enough")


@pytest.mark.parametrize("ranks", [2, 4, 8, 64])
@pytest.mark.parametrize("name", SHAPES)
def test_owners_of_real_models_are_balanced(name, ranks):
    """Within 5 % of the mean, or as near as whole matrices can be: 84 to 224 of them on 64 ranks cannot."""
    plan = planned(name, ranks)
    flops = [work.flops for work in plan.works]
    assert plan.load.flops.sum() == pytest.approx(sum(flops))  # nothing twice
    best = 1.0
    if ranks == 64:
        whole = sum(work.flops for work in plan.works if len(work.holders) == 1) / ranks
        # Of each layer's experts one lies on each rank; a rank would have the largest of the few others besides.
        best = sum(flops) / ranks / (whole + max(flops)) if whole else best_balance(plan.works, ranks)
        assert best < 0.95
    assert plan.balance >= (best * (1 - 1e-12) if ranks == 64 else 0.95)


@pytest.mark.full
@pytest.mark.parametrize("ranks", [2, 4, 8, 64])
def test_owners_of_many_layers_of_experts_are_balanced(ranks):
    """5,400 matrices."""
    assert planned("64 experts", ranks, depth=27).balance >= 0.95


def test_by_turns_owners_of_several_shapes_are_not_balanced():
    """The check rejects what is often done: matrix n to rank n modulo ranks."""
    plan = planned("12 layers", 8)
    turns = [Choice("owner", n % 8) for n in range(len(plan.works))]
    loads = sum((load(w, c).flops for w, c in zip(plan.works, turns, strict=True)), np.zeros(8))
    assert loads.mean() / loads.max() < 0.95 <= plan.balance


def test_batches_are_the_same_whatever_the_buckets():
    plan = planned("24 layers", 8)
    kinds = [0] * len(plan.works)
    seen = []
    for size in (1, 10**7, 10**8, 10**12):
        found = course(plan.works, plan.choices, kinds, dataclasses.replace(plan.machine, bucket=size))
        every = [batch for bucket in found.buckets for batch in bucket]
        assert sorted(n for batch in every for n in batch.numbers) == list(range(len(plan.works)))  # each once
        for bucket in found.buckets:
            for rank in range(8):
                own = [sum(plan.works[n].bytes for n in batch.numbers) for batch in bucket if rank in batch.computers]
                assert sum(own) <= size or len(own) == 1
        seen.append((set(every), len(found.buckets)))
    assert len({frozenset(batches) for batches, _ in seen}) == 1
    assert len({count for _, count in seen}) > 1


def in_buckets(count, *, flops, entries, ranks=2):
    """Each rank owns one matrix a bucket, and holds an equal part of every other."""
    works = [
        Work(f"{i}", (ranks, entries), tuple(Part((r, r + 1), (0, entries)) for r in range(ranks)), (0,) * ranks, flops,
             itemsize=1)
        for i in range(count * ranks)
    ]  # fmt: skip
    choices = [Choice("owner", i % ranks) for i in range(len(works))]
    each = [[Batch((k * ranks + r,), (r,)) for r in range(ranks)] for k in range(count)]
    return works, choices, Course([], [], each)


@pytest.mark.parametrize(
    ("flops", "total"),
    [
        (10.0, lambda g, m, n: g + n * m + g),  # msign is longer: the first gather and the last way back are seen
        (0.5, lambda g, m, n: 2 * n * g),  # what travels is longer: msign is hidden
        (0.0, lambda g, m, n: 2 * n * g),
    ],
)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_timeline_is_that_of_a_pipeline(flops, total, count):
    """g seconds for a gather and for the way back, m for msign of a bucket, n buckets."""
    works, choices, plan = in_buckets(count, flops=flops, entries=1)
    found = timeline(works, choices, plan, Machine(flops=1.0, bandwidth=1.0, latency=0.0))
    assert found.total == pytest.approx(total(1.0, flops, count))
    assert found.msign == pytest.approx(count * flops)
    assert found.exchange == pytest.approx(2 * count)
    if flops:  # wrong: one after the other; all hidden
        assert found.total < 2 * count + count * flops
        assert found.total > max(2 * count, count * flops) - 1e-9
    once = plan._replace(buckets=[[batch for bucket in plan.buckets for batch in bucket]])
    assert timeline(works, choices, once, Machine(flops=1.0, bandwidth=1.0, latency=0.0)).total == pytest.approx(
        2 * count + count * flops
    )


@pytest.mark.parametrize(("replicas", "shards"), [(1, 4), (2, 2), (16, 8), (4, 1)])
def test_a_result_leaves_its_owner_once_and_its_copy_once_for_each_other_copy(replicas, shards):
    """By hand: 64 x 64 numbers of 4 bytes, rows in so many shards; docs/plan.md has the sum."""
    ranks, rows, size = replicas * shards, 64 // shards, 4 * 64 * 64
    parts = tuple(Part((r % shards * rows, (r % shards + 1) * rows), (0, 64)) for r in range(ranks))
    work = Work("", (64, 64), parts, tuple(r // shards for r in range(ranks)), 1.0)
    found = load(work, Choice("owner", 0))
    part, others = size / shards, replicas - 1
    there = (shards > 1) * (size - part)
    assert found.sent[0] == there + others * part
    assert list(found.sent[1:shards]) == [part + others * part] * (shards - 1)
    assert not found.sent[shards:].any()
    assert list(found.received[shards:]) == [part] * (ranks - shards)
    assert found.sent.sum() == found.received.sum() == size * ((1 - 1 / shards) + (replicas - 1 / shards))
    if shards > 1 < replicas:  # wrong: the owner sends all others their parts itself
        assert found.sent[0] < size * (replicas - 1 / shards)


def test_what_goes_from_copy_to_copy_lies_beside_the_bucket_after_next():
    """By hand: two copies of two ranks, of which the first owns one matrix in each of three buckets."""
    parts = tuple(Part((r % 2, r % 2 + 1), (0, 1)) for r in range(4))
    works = [Work(f"{k}", (2, 1), parts, (0, 0, 1, 1), 10.0, itemsize=1) for k in range(3)]
    plan = Course([], [], [[Batch((k,), (0,))] for k in range(3)])
    machine, far = (Machine(flops=1.0, bandwidth=rate, latency=0.0) for rate in (1.0, 0.25))
    found = timeline(works, [Choice("owner", 0)] * 3, plan, machine, far)
    # gathers and ways back take 1, from copy to copy 4. msign until 11, 21, 31; from copy to copy bucket 0 from 21 to
    # 25, bucket 1 from 31 to 35, back 2 until 36, and bucket 2 until 40.
    assert found.total == pytest.approx(40.0)
    assert found.exchange == pytest.approx(3 * (1 + 1 + 4))
    near = timeline(works, [Choice("owner", 0)] * 3, plan, machine)
    assert near.total < found.total


def test_who_waits_for_a_slow_rank_is_in_the_timeline():
    """By hand: rank 0 has 5 s of msign in bucket 0, rank 1 in bucket 1; nothing takes time on its way but a message."""
    works, choices, plan = in_buckets(2, flops=5.0, entries=1)
    works = [w._replace(flops=0.0) if i in (1, 2) else w for i, w in enumerate(works)]
    found = timeline(works, choices, plan, Machine(flops=1.0, bandwidth=1e12, latency=1.0))
    # gather 0 until 1, gather 1 until 2; rank 0 until 6, rank 1 from 2 to 7; back 0 from 6 to 7, back 1 from 7 to 8
    assert found.total == pytest.approx(8.0)
    assert found.msign == pytest.approx(5.0)
    assert found.exchange - found.hidden == pytest.approx(3.0)
