"""Muon over ranks is Muon of one process: jobs of 1 to 4 processes on gloo, and the arithmetic without any.

The jobs run once for all tests of this file, also where several processes share the tests: one of 2 ranks, of 3, of 4,
and 1 -> 2 -> 4 -> 1, each going on from the distributed checkpoint of the one before. Jobs that hang are killed and the
tests fail.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from spectrain.matfun._iteration.design import schedule_for_steps
from spectrain.matfun._iteration.largest import start_bound
from spectrain.optim import Matrix
from spectrain.optim._layout.parts import Part, Sharding, local_views, parts
from spectrain.optim._ranks.cost import METHODS, Choice, Machine, Work, assign, gram_fits, load, seconds
from spectrain.optim._ranks.gram import Slab, reduced_signs
from spectrain.optim._variants.variants import VARIANTS

RANKS = Path(__file__).with_name("ranks.py")
ALL = (
    "same_weights,traffic,every_byte,buckets,low_precision,any_size,shared_work,fsdp,refusals,disagreements,mup_sharded"
)
JOBS = {
    "2 ranks": (f"2:{ALL}",),
    "4 ranks": (f"4:{ALL}",),
    "3 ranks": ("3:every_byte,buckets",),
    "checkpoints": ("1:checkpoint", "2:checkpoint", "4:checkpoint", "1:checkpoint"),
}
LIMIT = 400


def started(folder, jobs):
    """Run jobs one after the other; what they said where one failed or hung, else nothing."""
    process = subprocess.Popen(
        [sys.executable, str(RANKS), str(folder), *jobs],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return f"no answer in {LIMIT} s"
    return said if process.returncode else ""


def once(folder, jobs):
    """Run jobs in the first process of the test session that asks; the others wait for it."""
    try:
        folder.mkdir()
    except FileExistsError:
        for _ in range(10 * LIMIT):
            if (folder / "said").exists():
                break
            time.sleep(0.1)
    else:
        said = started(folder, jobs)
        (folder / "saying").write_text(said)
        (folder / "saying").rename(folder / "said")
    said = (folder / "said").read_text()
    assert not said, said


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Return a function that gives what each rank of each job of this name found."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # which the processes of pytest-xdist share

    def found(name):
        folder = base / f"optim {name}"
        once(folder, JOBS[name])
        worlds = [int(job.split(":")[0]) for job in JOBS[name]]
        return [
            [torch.load(folder / f"job{i}" / f"rank{rank}.pt", weights_only=False) for rank in range(world)]
            for i, world in enumerate(worlds)
        ]

    return found


@pytest.fixture(scope="module", params=["2 ranks", "4 ranks"])
def ranks(jobs, request):
    return jobs(request.param)[0]


def test_the_weights_are_those_of_one_process(ranks):
    """Moonlight #27, KellerJordan/Muon #45, Megatron-LM #5961: msign of shards; #6683: a factor of padded shapes."""
    for found in ranks:
        assert max(found["same_weights"]["difference"].values()) < 1e-12
    machines, variants, places = 3, len(VARIANTS) - 1, len(ranks) + 1
    others = {2: 3, 4: 1}[len(ranks)]  # plain over again and decays
    assert len(found["same_weights"]["difference"]) == places * (machines + variants + others)


def test_mup_keeps_its_factors_and_weights_through_fully_shard(ranks):
    """mup #59: shapes stood on tensors and FSDP dropped them. Initial weights are those of one process too."""
    for found in ranks:
        case = found["mup_sharded"]
        assert case["early rates"] == case["late rates"] == case["alone rates"]
        assert len(set(case["alone rates"].values())) > 1
        for kind in ("early", "late"):
            for name, p in case["alone"].items():
                torch.testing.assert_close(case[kind][name], p, rtol=0, atol=1e-8)


def test_every_way_was_taken(ranks):
    taken = set().union(*ranks[0]["same_weights"]["methods"].values())
    assert taken == set(METHODS)
    assert all(found["same_weights"]["methods"] == ranks[0]["same_weights"]["methods"] for found in ranks)


def test_the_plan_says_how_many_bytes_are_sent(ranks):
    for found in ranks:
        assert all(really == said for really, said in found["traffic"].values()), found["traffic"]
    assert any(really > 0 for found in ranks for really, _ in found["traffic"].values())


@pytest.fixture(scope="module", params=["2 ranks", "3 ranks", "4 ranks"])
def some_ranks(jobs, request):
    return jobs(request.param)[0]


def bytes_at_least(numbers, shards, copies=1):
    """What docs/plan.md derives: n numbers of a matrix in S shards, R times over, are worked on whole by one rank. It
    lacks n (1 - 1 / S), and all others lack their parts of the result, n (R - 1 / S)."""
    return 4 * numbers * ((1 - 1 / shards) + (copies - 1 / shards))


def sent_by(ranks, *case):
    return {kind: sum(found["every_byte"][case][kind] for found in ranks) for kind in ("matrices", "words")}


@pytest.mark.parametrize(("place", "copies", "shards"), [("rows", 1, 0), ("hybrid", 2, 2)])
def test_the_exchange_sends_no_more_than_it_must(ranks, place, copies, shards):
    if (place, "slow", "even") not in ranks[0]["every_byte"]:
        pytest.skip("two ranks have no mesh of two dimensions")
    shards = shards or len(ranks)
    numbers = 2 * (32 * 32 + 16 * 32 + 96 * 32 + 32 * 96)
    bound = bytes_at_least(numbers, shards, copies)
    sent = sent_by(ranks, place, "slow", "even")
    assert sent["matrices"] == pytest.approx(bound, rel=1e-12)
    assert sent["words"] <= 0.1 * bound
    # wrong: every rank gathers every matrix, which on more than two ranks sends more
    everywhere = sent_by(ranks, place, "waits", "even")["matrices"]
    assert everywhere == pytest.approx(4 * numbers * copies * (shards - 1), rel=1e-12)
    assert everywhere > 1.1 * bound or shards == 2


def test_rows_that_do_not_divide_and_many_buckets_send_no_more_than_a_tenth_beyond_the_bound(some_ranks):
    """All that travels in a step: parts of matrices, and the words by which ranks agree."""
    numbers = 2 * 33 * (50 + 17 + 101 + 101)
    bound = bytes_at_least(numbers, len(some_ranks))
    sent = [sent_by(some_ranks, "rows", machine, "uneven") for machine in ("slow", "small buckets")]
    assert sent[0] == sent[1]
    assert 0.95 * bound <= sum(sent[0].values()) <= 1.1 * bound
    # wrong: all-to-alls of the longest part for everyone, as if the rows did divide
    shapes, ranks = ((50, 33), (17, 33), (101, 33), (33, 101)), len(some_ranks)
    padded = 4 * 2 * sum(2 * (ranks - 1) * -(-rows // ranks) * columns for rows, columns in shapes)
    assert padded > sent[0]["matrices"]


def test_no_bit_depends_on_the_number_of_buckets(some_ranks):
    for found in some_ranks:
        weights, counts = found["buckets"]["weights"], found["buckets"]["counts"]
        for place in {place for place, _ in weights}:
            assert counts[place, "one"] == 1 < counts[place, "some"] <= counts[place, "each"]
            for name, p in weights[place, "one"].items():
                assert torch.equal(weights[place, "some"][name], p)
                assert torch.equal(weights[place, "each"][name], p)
        assert max(found["buckets"]["apart"].values()) < 1e-12  # from one process


def test_ranks_in_several_teams_do_not_wait_for_each_other_in_a_circle(jobs):
    for found in jobs("4 ranks")[0]:
        assert found["buckets"]["two teams"] < 1e-12


def faults_of(seen, calls):
    """What is wrong with the order in which a rank begins exchanges, calls msign and awaits exchanges."""
    # A bucket's two exchanges in the order in which they are begun: gather 0, 1, back 0, gather 2, back 1, ...
    count = len(calls)
    order = [("gather", 0)] + [step for k in range(1, count) for step in (("gather", k), ("back", k - 1))]
    order = dict(zip([*order, ("back", count - 1)], range(2 * count), strict=True))
    places = {event: i for i, event in enumerate(seen) if event[0] != "msign"}
    computed, at = [], [i for i, (what, _) in enumerate(seen) if what == "msign"]
    for number in calls:
        computed.append(at[:number])
        at = at[number:]
    found = ["calls of msign that no bucket has"] if at else []
    for k, times in enumerate(computed):
        for what, j in (("gather", k + 1), ("back", k - 1)):
            if (what, j) in order and times:
                begun, awaited = places["begin", order[what, j]], places["wait", order[what, j]]
                if not begun < times[0] <= times[-1] < awaited:
                    found.append(f"{what} {j} is not beside msign of bucket {k}")
    flying = 0
    for what, _ in seen:
        flying += {"begin": 1, "wait": -1, "msign": 0}[what]
        if flying > 2:
            found.append("more than two buckets are on their way")
    return found


def test_exchanges_lie_beside_msign_of_the_buckets_before_and_after(some_ranks):
    for found in some_ranks:
        seen, calls = found["buckets"]["events"], found["buckets"]["calls"]
        assert len(calls) > 2
        assert faults_of(seen, calls) == []


def wrong_order(order, count=4):
    """Events of three steps a bucket: its gather, msign, and the way back."""
    numbers = dict(zip([("gather", 0)] + [s for k in range(1, count) for s in (("gather", k), ("back", k - 1))]
                       + [("back", count - 1)], range(2 * count), strict=True))  # fmt: skip
    return [(what, None if which is None else numbers[which, k]) for what, which, k in order]


WRONG_ORDERS = {
    "one after the other": [
        step
        for k in range(4)
        for step in (("begin", "gather", k), ("wait", "gather", k), ("msign", None, k), ("begin", "back", k),
                     ("wait", "back", k))
    ],
    "everything at once": [
        *(("begin", "gather", k) for k in range(4)), *(("wait", "gather", k) for k in range(4)),
        *(("msign", None, k) for k in range(4)),
        *(("begin", "back", k) for k in range(4)), *(("wait", "back", k) for k in range(4)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_ORDERS)
def test_an_order_that_hides_nothing_or_holds_everything_is_seen(name):
    assert faults_of(wrong_order(WRONG_ORDERS[name]), [1] * 4)


def test_the_work_space_is_what_the_plan_says(some_ranks):
    """Counted by torch: bytes of all tensors that are alive."""
    for found in some_ranks:
        (really, said, count), (at_once, _, _) = found["buckets"]["held"]
        assert really <= said + 768  # and one matrix in msign
        assert said <= 6 * 2 * 768
        assert count > 2
        assert at_once > 2 * (said + 768)


def test_low_precision_differs_by_its_own_rounding_only(ranks):
    for found in ranks:
        assert found["low_precision"]["torch.float32"] < 1e-2
        assert found["low_precision"]["torch.bfloat16"] < 2e-2


def test_rows_of_any_size_are_those_of_one_process(ranks):
    """Their squares are zero or infinite in float32; over ranks such rows did not move at all."""
    for found in ranks:
        assert max(found["any_size"].values()) < 1e-6


def test_ranks_with_whole_copies_share_the_work(ranks):
    for found in ranks:
        assert found["shared_work"]["difference"] < 1e-12
        assert found["shared_work"]["ddp"] < 1e-12
    mine = [found["shared_work"]["matrices"][0] for found in ranks]
    assert sum(mine) < len(ranks) * ranks[0]["shared_work"]["matrices"][1]


def test_fully_shard_with_clipping_averages_and_spectra(ranks):
    """Lightning #21414: no averages of sharded models; miles-credit #416: they hung on uneven shards."""
    for found in ranks:
        assert all(found["fsdp"][key] < 1e-12 for key in ("difference", "averaged", "back", "spectra", "polar"))
        assert found["fsdp"]["compiled"] < 1e-12
    assert any(found["fsdp"]["empty"] for found in ranks)


def test_checkpoints_go_on_over_one_two_four_and_one_ranks(jobs):
    """dion #89, #109, Megatron-Bridge #2307: optimizer states that distributed checkpoints lost."""
    chain = jobs("checkpoints")
    assert [job[0]["checkpoint"]["done"] for job in chain] == [3, 6, 9, 12]
    for found in itertools.chain(*chain):
        assert found["checkpoint"]["difference"] < 1e-12
        assert found["checkpoint"]["averaged"] < 1e-6  # kept in float32


def test_what_would_hang_or_pass_silently_is_the_same_error_everywhere(ranks):
    for found in ranks:
        refused = found["refusals"]
        assert "NaN or Inf in the gradient of weight" in refused["nan"]
        assert "on some ranks and none on others" in refused["missing"]
        assert refused["nan unchanged"]
        assert refused["missing unchanged"]
        assert "partial sum" in refused["partial"]
        assert "after fully_shard" in refused["early"]


@pytest.mark.parametrize("case", ["plain", "sharded", "normuon"])
def test_a_tolerance_that_one_rank_cannot_prove_is_refused_on_all(ranks, case):
    """The rank that had the matrix raised, and the others waited for its part."""
    said = {found["refusals"][f"unproven {case}"] for found in ranks}
    assert len(said) == 1
    (said,) = said
    assert "Muon: c: msign: cannot prove a relative error of 1e-11" in said
    assert "(on rank " in said  # one of them had it
    assert all(found["refusals"][f"unproven {case} unchanged"] for found in ranks)


SAID = {
    "lr": "lr of group 0 (a): 0.1 on rank",
    "weight_decay": "weight_decay of group 0 (a): 0.1 on rank",
    "momentum": "momentum of group 0 (a): 0.9 on rank",
    "nesterov": "nesterov of group 0 (a): True on rank",
    "scale": "scale of group 0 (a): none on rank",
    "steps": "steps of group 0 (a): 5.0 on rank",
    "tol": "tol of group 0 (a): 0.01 on rank",
    "schedule": "schedule of group 0 (a): ",
    "variant": "variant of group 0 (a): plain on rank",
    "decay": "decay of group 0 (a): decoupled on rank",
    "compute_dtype": "compute_dtype of group 0 (a): float32 on rank",
    "maximize": "maximize of group 0 (a): False on rank",
    "machine": "machine: Machine(flops=1",
    "beta2": "beta2 of group 0 (a): 0.9 on rank",
    "check_finite": "check_finite of group 0 (a): True on rank",
    "order": "parameter 0: a (6, 4) torch.float32 in group 0 on rank",
    "unnamed": "other weights of group0.0, group0.1",
    "missing": "parameter 1: b (6, 4) torch.float32 in group 0 on rank",
    "weights": "other weights of a, b",
    "gradients": "other gradients of a, b",
    "algorithm": "algorithm of group 1 (b): muon on rank",
    "nothing for muon": "algorithm of group 0 (a): muon on rank",
    "layout": "matrix of group 0 (a): Matrix(batch=0, flatten=False, groups=1, transposed=False, split=(3, 3)",
    "tensor lr later": "lr of group 0 (a): 0.5 on rank",
    "group later": "parameter 2: none on rank 0; c (3, 3) torch.float32 in group 1 on rank",
    "nan of adamw": "NaN or Inf in the gradient of b.",
}


@pytest.mark.parametrize("case", SAID)
def test_ranks_that_do_not_do_the_same_are_told_what_differs_and_where(ranks, case):
    last = f"on rank {len(ranks) - 1}"
    for found in ranks:
        said = found["disagreements"][case]
        assert SAID[case] in said
        assert found["disagreements"].get(f"{case} unchanged", True)
        assert said == ranks[0]["disagreements"][case]
        if case not in ("unnamed", "weights", "gradients", "group later"):
            assert last in said
    assert ranks[0]["disagreements"]["equal numbers"] == "no error"


LAYOUTS = {
    "plain": ((7, 5), {}),
    "fused": ((12, 8), {"split": (8, 2, 2), "heads": (2, 1, 1)}),
    "along": ((6, 8), {"heads": (4,), "along": "in"}),
    "experts": ((3, 4, 6), {"batch": 1}),
    "layered": ((2, 3, 4, 5), {"batch": 2}),
    "conv": ((6, 3, 2, 2), {"flatten": True}),
    "grouped": ((6, 2, 3), {"flatten": True, "groups": 3}),
    "transposed": ((8, 6), {"transposed": True, "split": (4, 2)}),
}
SHARDINGS = {
    "rows": Sharding((0, 1, 2), (3,), (0,)),
    "columns": Sharding((0, 1), (2,), (1,)),
    "many": Sharding(tuple(range(9)), (9,), (0,)),
    "hybrid": Sharding((0, 1, 2, 3), (2, 2), (None, 0)),
    "both": Sharding((3, 2, 1, 0), (2, 2), (0, 1)),
    "nested": Sharding((0, 1, 2, 3), (2, 2), (0, 0), inner=(0,)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", SHARDINGS)
def test_parts_hold_exactly_their_entries(layout, place):
    """Brute force: numbers written into every entry are found where the parts say, each once a copy."""
    (shape, fields), sharding = LAYOUTS[layout], SHARDINGS[place]
    matrix = Matrix(**fields)
    numbers = torch.arange(1, 1 + int(np.prod(shape))).view(shape)
    logical = [view.mT if matrix.transposed else view for view in matrix.views(numbers)]
    seen = {copy: torch.zeros_like(numbers).flatten() for copy in sharding.copies()}
    for box, copy in zip(sharding.boxes(shape), sharding.copies(), strict=True):
        local = numbers[tuple(slice(*interval) for interval in box)].contiguous()
        held = parts(matrix, torch.Size(shape), box)
        views = local_views(matrix, torch.Size(shape), box, local)
        for whole, part, view in zip(logical, held, views, strict=True):
            assert part.numel == view.numel()
            if part.numel:
                assert torch.equal(part.of(whole), view)
                seen[copy][view.flatten() - 1] += 1
    assert all((count == 1).all() for count in seen.values())


def test_a_cut_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel"):
        parts(Matrix(flatten=True), torch.Size((4, 2, 3)), ((0, 4), (0, 2), (0, 1)))


def spread(shape, world, rounds=1):
    """A matrix cut into rows over ``world`` positions."""
    boxes = Sharding(tuple(range(world)), (world,), (0,)).boxes(shape)
    k, long = sorted(shape)
    flops = 2.0 * k * k * (2 * long + k) * 5
    return Work("w", shape, tuple(Part(*box) for box in boxes), (0,) * world, flops, steps=5, rounds=rounds)


def brute_force(works, machine):
    ranks = range(len(works[0].parts))
    options = [
        [Choice("replicated"), *(Choice("owner", i) for i in ranks), *([Choice("gram")] if gram_fits(w) else [])]
        for w in works
    ]
    return min(seconds(works, plan, machine) for plan in itertools.product(*options))


@pytest.mark.parametrize("seed", range(12))
def test_the_plan_is_near_the_best_there_is(seed):
    random = np.random.default_rng(seed)
    works = [spread(tuple(int(x) for x in random.integers(2, 40, size=2)), 2 + seed % 2) for _ in range(4)]
    machine = Machine(flops=10 ** random.uniform(5, 9), bandwidth=10 ** random.uniform(4, 8), latency=1e-4)
    found = seconds(works, assign(works, machine), machine)
    best = brute_force(works, machine)
    assert best * (1 - 1e-12) <= found <= 4 / 3 * best
    for method in ("replicated",):
        assert found <= seconds(works, [Choice(method)] * 4, machine) * (1 + 1e-12)


def test_owners_are_balanced():
    works = [spread((256, 256), 8) for _ in range(64)]
    machine = Machine(flops=1e9, bandwidth=1e12, latency=0.0)
    choices = assign(works, machine)
    counts = np.bincount([choice.owner for choice in choices], minlength=8)
    assert set(counts) == {8}


@pytest.mark.parametrize(
    ("machine", "shape", "method"),
    [
        (Machine(flops=1e15, bandwidth=1e15, latency=1.0), (64, 64), "replicated"),
        (Machine(flops=1e3, bandwidth=1e15, latency=0.0), (64, 64), "owner"),
        (Machine(flops=1e15, bandwidth=1e3, latency=0.0), (4096, 8), "gram"),
    ],
)
def test_the_cheapest_way_depends_on_the_machine(machine, shape, method):
    works = [spread(shape, 4) for _ in range(4)]
    assert {choice.method for choice in assign(works, machine)} == {method}


def test_what_lies_whole_on_a_rank_costs_no_byte():
    """Expert parallelism: each rank orthogonalises its own experts."""
    whole, nothing = Part((0, 8), (0, 4)), Part((0, 0), (0, 0))
    experts = [
        Work(f"e{i}", (8, 4), tuple(whole if j == i else nothing for j in range(4)), (0,) * 4, 5) for i in range(4)
    ]
    total = [load(work, choice) for work, choice in zip(experts, assign(experts, Machine()), strict=True)]
    assert not sum(entry.sent.sum() + entry.received.sum() for entry in total)
    assert len({float(f) for f in sum(entry.flops for entry in total)}) == 1


def test_by_tolerance_no_gram_matrix_travels():
    assert gram_fits(spread((64, 8), 4))
    assert not gram_fits(spread((64, 8), 4, rounds=0))
    assert not gram_fits(spread((8, 64), 4))  # rows cut: no rank spans the short side
    assert not gram_fits(spread((10, 8), 4))


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25])
@pytest.mark.parametrize("tall", [True, False])
def test_the_reduced_gram_matrix_gives_the_polynomials_at_the_singular_values(size, tall):
    X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    schedule = schedule_for_steps(5, torch.float64)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    G2 = (X.mT @ X / X.norm() ** 2).matrix_power(2)
    top = float(start_bound(G2[None])) * float(X.norm())
    expected = (U * torch.as_tensor(schedule((S / top).numpy()))) @ Vh
    given = (X if tall else X.mT) * size
    (found,) = reduced_signs([Slab(given, 6, tall, True, schedule)], lambda tensor, how: tensor)
    torch.testing.assert_close(found if tall else found.mT, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "wrong", [{"flops": 0}, {"bandwidth": -1}, {"latency": -1e-3}, {"batch": 0}, {"bucket": 0}, {"bucket": -1.0}]
)
def test_machine_refuses_impossible_figures(wrong):
    with pytest.raises(ValueError, match="Machine"):
        Machine(**wrong)
