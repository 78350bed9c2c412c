"""A plan of a run: its operations and bytes are those of autograd, of torch.chunk, of rings that are walked through."""

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from spectrain.cli import main
from spectrain.train import TrainConfig
from spectrain.train._jobs.model import build_model
from spectrain.train._mesh.layout import Layout
from spectrain.train._mesh.ranks import ALONE
from spectrain.train._plan import beside, measure
from spectrain.train._plan.choose import layouts
from spectrain.train._plan.cluster import Beside, between
from spectrain.train._plan.memory import PARTS, sizes
from spectrain.train._plan.pieces import pieces, whole_model
from spectrain.train._plan.plan import BUCKETS, before_muon, settled
from spectrain.train._plan.traffic import Circle, circle, ring, tree
from spectrain.train.planning import NAMED, Cluster, Link, choose_mesh, plan_run, read_cluster, write_cluster

SMALL = {"depth": 2, "width": 64, "heads": 4, "kv_heads": 2, "hidden": 96, "block": 32, "batch_size": 8,
         "tokenizer": "bytes"}  # fmt: skip
FULL = TrainConfig(**SMALL, autocast="off", muon_dtype="float32").derive()[0]
WEIGHTS = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96
"""Of the matrices of a block."""


def of_products(rows, *, weights=WEIGHTS, heads=4):
    """Operations of a block, forward and backward, in closed form: 2 and 4 a weight and token, and causal attention."""
    attention = rows * heads * 32**2 * (16 + 16)
    return 2 * weights * rows * 32 + attention, 4 * weights * rows * 32 + 2.5 * attention


WRONG = {
    "no attention": lambda rows: (2 * WEIGHTS * rows * 32, 4 * WEIGHTS * rows * 32),
    "all of a causal mask": lambda rows: tuple(a + rows * 4 * 32**3 for a in of_products(rows)),
    "a multiplication and an addition are one": lambda rows: tuple(a / 2 for a in of_products(rows)),
    "back as there": lambda rows: (of_products(rows)[0],) * 2,
}


def test_the_operations_of_a_block_are_those_of_its_products():
    block = pieces(FULL, rows=4, tensor=1, alone=True, device="cpu").block
    found = sum(o.flops for o in block.forward), sum(o.flops for o in block.backward)
    assert found == of_products(4)
    assert all(found != wrong(4) for wrong in WRONG.values())
    half = pieces(FULL, rows=4, tensor=2, alone=False, device="cpu").block
    assert sum(o.flops for o in half.forward) == of_products(4, weights=WEIGHTS / 2, heads=2)[0]


@pytest.mark.parametrize("autocast", ["off", "bfloat16"])
def test_what_autograd_keeps_of_a_block_is_what_it_keeps_of_a_real_one(autocast):
    config = dataclasses.replace(FULL, autocast=autocast)
    block = build_model(config, vocabulary=257).blocks[0]
    x, kept = torch.randn(4, 32, 64, requires_grad=True), {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    free = {p.untyped_storage().data_ptr() for p in [*block.parameters(), *block.buffers(), x]}
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast == "bfloat16"),
    ):
        out = block(x)
    real = sum(size for place, (size, _) in kept.items() if place not in free)
    assert pieces(config, rows=4, tensor=1, alone=True, device="cpu").block.saved == real
    assert out.requires_grad


def test_activations_grow_with_rows_and_are_less_when_computed_again():
    plain, twice = (pieces(FULL, rows=rows, tensor=1, alone=True, device="cpu").block for rows in (2, 4))
    assert 1.9 < twice.saved / plain.saved <= 2
    assert twice.peak >= twice.saved
    config = TrainConfig(**{**SMALL, "depth": 16})
    kept, again = (
        plan_run(dataclasses.replace(config, recompute=on), NAMED["h100"]).moments["the loss"]["activations"]
        for on in (False, True)
    )
    assert again < kept / 4
    assert again > 16 * 8 * 32 * 64 * 4  # every block keeps its input


@pytest.mark.parametrize("stand", [Layout(1, 1), Layout(1, 3), Layout(2, 4), Layout(1, 2, 2)])
def test_the_numbers_of_a_rank_are_those_that_torch_cuts(stand):
    model = whole_model(FULL)
    found, own = sizes(model, stand), {"matrices": 0, "rest": 0}
    for name, p in model.named_parameters():
        inside = name.startswith("blocks.") and p.ndim == 2
        dim = 1 if name.endswith(("output.weight", "down.weight")) else 0
        part = p.chunk(stand.tensor, dim)[0] if inside else p
        own["matrices" if inside else "rest"] += part.chunk(stand.shards)[0].numel()
    assert (found.matrices, found.rest) == (own["matrices"], own["rest"])
    assert found.block == WEIGHTS // stand.tensor + 2 * 64
    assert found.root == 2 * 257 * 64 + 64


def walked(size, machines, node):
    """Bytes of an all-gather inside of machines and between them, link by link: a ring for each port of a machine."""
    inside = outside = 0.0
    ranks = machines * node
    for port in range(node):
        order = [m * node + (port + 1 + i) % node for m in range(machines) for i in range(node)]
        for here, there in itertools.pairwise([*order, order[0]]):
            sent = (ranks - 1) * size / ranks / node  # all chunks but one pass each link
            inside, outside = (inside + sent, outside) if here // node == there // node else (inside, outside + sent)
    return inside / ranks, outside / ranks


@pytest.mark.parametrize(("machines", "node"), [(2, 1), (2, 4), (3, 8), (16, 2)])
def test_a_ring_sends_what_one_sends_that_is_walked_through(machines, node):
    found = ring("", 1e6, Circle(machines * node, node), NAMED["h100"])
    assert (found.inside, found.between) == pytest.approx(walked(1e6, machines, node))
    if node > 1:  # wrong: everything passes the port; nothing does
        assert found.between < 0.51 * (found.inside + found.between) + 1e-9


def test_the_slower_link_decides_and_messages_count():
    plain = dataclasses.replace(
        NAMED["h100"], inside=Link(bandwidth=8e9, latency=1e-3), between=Link(bandwidth=1e9, latency=1e-2), message=0.5
    )
    assert ring("", 8e9, Circle(4, 4), plain).seconds == pytest.approx(0.5 + 3 * 1e-3 + 0.75)
    assert ring("", 8e9, Circle(4, 1), plain).seconds == pytest.approx(0.5 + 3 * 1e-2 + 6.0)
    assert ring("", 8e9, Circle(8, 4), plain).seconds == pytest.approx(0.5 + 6 * 1e-3 + 1e-2 + 7 / 4)
    assert ring("", 8e9, Circle(4, 4), plain, rounds=2, times=3).seconds == pytest.approx(3 * (0.5 + 6e-3 + 1.5))
    assert ring("", 8e9, Circle(1, 1), plain).seconds == 0
    assert tree("", Circle(32, 4), plain, times=2).seconds == pytest.approx(2 * (0.5 + 2 * (3 * 1e-3 + 3 * 1e-2)))


@pytest.mark.parametrize(
    ("which", "found"), [("tensor", (2, 2)), ("shards", (8, 4)), ("replicas", (4, 1)), ("all", (64, 8))]
)
def test_neighbours_fill_one_machine_after_the_other(which, found):
    assert circle(Layout(4, 8, 2), which, 8) == found


def test_parts_add_up():
    plan = plan_run(TrainConfig(**SMALL, mesh="2x2", tensor_parallel=2), NAMED["h100"])
    said = plan.as_dict()
    assert plan.step_seconds == pytest.approx(sum(plan.seconds.values()) - plan.hidden)
    assert said["memory"]["at the fullest"] == plan.bytes == max(sum(parts.values()) for parts in plan.moments.values())
    assert all(tuple(parts) == PARTS for parts in plan.moments.values())
    assert {part.name for part in plan.links} >= {"gathered weights", "shared matrices", "Muon's exchange"}
    for words in (*plan.memory, *plan.seconds, "fits into 80 GB", "tokens a second"):
        assert words in str(plan)
    alone = plan_run(TrainConfig(**SMALL), NAMED["h100"])
    assert not alone.links
    assert not alone.hidden
    assert alone.memory["gathered"] == 0


def test_muons_exchange_is_hidden_beside_msign_where_the_machine_overlaps():
    config = TrainConfig(depth=12, width=768, heads=12, block=64, batch_size=8, tokenizer="bytes", mesh="1x8")
    plan = plan_run(config, NAMED["h100"])
    apart = plan_run(config, dataclasses.replace(NAMED["h100"], overlaps=False))
    exchange, msign = plan.seconds["Muon's exchange"], plan.seconds["msign"]
    first_and_last = exchange / len(plan.muon.course.buckets)  # nothing is beside half of each
    assert len(plan.muon.course.buckets) > 1
    assert 0 < plan.beside[BUCKETS] <= min(exchange, msign)
    assert plan.beside[BUCKETS] <= exchange - 0.5 * first_and_last  # wrong: all of it
    assert plan.hidden == pytest.approx(sum(plan.beside.values()))
    assert not apart.beside
    assert apart.step_seconds == pytest.approx(plan.step_seconds + plan.hidden)
    assert f"{1e3 * plan.beside[BUCKETS]:.3f}: {BUCKETS}" in str(plan)
    assert plan.as_dict()["beside"] == plan.beside
    parts = plan.links[-1]
    assert parts.name == "Muon's exchange"
    assert parts.meetings == 2 * len(plan.muon.course.buckets)


def test_the_chosen_mesh_is_the_best_of_all_that_fit():
    config = TrainConfig(**{**SMALL, "width": 256})
    every = [plan_run(config, NAMED["h100"], stand=stand) for stand in layouts(4, most=8) if stand.tensor < 4]
    middle = sorted(plan.bytes for plan in every)[len(every) // 2]
    small = dataclasses.replace(NAMED["h100"], memory=middle)
    fitting = [plan for plan in every if plan.bytes <= middle]
    best = choose_mesh(config, small, ranks=4)
    assert 0 < len(fitting) < len(every)
    assert best[0].plan.step_seconds == min(plan.step_seconds for plan in fitting)
    assert {choice.stand for choice in best} == set(layouts(4, most=8))
    assert "--kv-heads 2" in next(choice.why for choice in best if choice.stand.tensor == 4)


def held(**flags):
    """Bytes of the weights that one process would hold."""
    return plan_run(TrainConfig(**flags), NAMED["h100"]).memory["weights"]


def test_shape_and_vocabulary_are_those_of_what_a_run_begins_with(tiny, trained_once, tmp_path):
    """Counted on the weights of a finished run; the dial and the vocabulary of the flags would be another model."""
    run = trained_once(tiny)
    weights = safetensors.torch.load_file(run / "model.safetensors")
    wanted = 4 * sum(value.numel() for value in weights.values())
    assert held(init_from=str(run)) == wanted
    shape = {name: tiny[name] for name in ("depth", "width", "heads")}
    assert held(**shape, tokenizer=str(run / "tokenizer.json")) == wanted
    assert held(**shape) != wanted
    with pytest.raises(ValueError, match=r"--vocabulary 301 differs from the \d+ tokens of"):
        held(**shape, tokenizer=str(run / "tokenizer.json"), vocabulary=301)
    with pytest.raises(ValueError, match="is no finished run"):
        held(init_from=str(tmp_path))


def test_rows_of_the_embedding_that_no_token_has_are_there():
    full = dataclasses.replace(FULL, tokenizer="bpe", vocabulary=300, embedding_rows=320, feed_forward_bias=True)
    model = whole_model(full)
    assert len(model.embedding.weight) == len(model.head.weight) == 320
    assert all(block.feed_forward.up.bias is not None for block in model.blocks)


def test_averages_are_as_large_as_the_weights():
    """One for ``--average``, and four half-lives for ``--decay-estimate``."""
    config = TrainConfig(**SMALL, mesh="1x2", schedule="wsd")
    plain = plan_run(config, NAMED["h100"])
    for flags, count in (({"average": 0.1}, 1), ({"decay_estimate": 9}, 4), ({"average": 0.1, "decay_estimate": 9}, 5)):
        plan = plan_run(dataclasses.replace(config, **flags), NAMED["h100"])
        assert plan.bytes - plain.bytes == count * plain.memory["weights"]
        assert plan.step_seconds > plain.step_seconds


def test_what_a_run_would_refuse_is_refused(capsys):
    for flags, words in {
        ("--mesh", "1x3"): "--batch-size 8 does not divide",
        ("--mesh", "1x2", "--ranks", "4"): "--ranks 4 and a mesh of 2",
        ("--ranks", "0"): "--ranks must be from 1",
        ("--ranks", "99999999"): "--ranks must be from 1",
        ("--ranks", "7"): "none of the meshes of 7 ranks is possible: --batch-size 8",
        ("--moe-experts", "4"): "--moe-experts must be left out of a plan",
        ("--moe-experts", "4", "--expert-parallel", "2"): "--moe-experts must be left out of a plan",
        ("--expert-parallel", "2"): "--expert-parallel must be left out without --moe-experts",
        ("--bound", "3"): "--bound must be left out of a plan",
        ("--qk-clip", "inf"): "--qk-clip must be left out of a plan",
        ("--machine", "abacus"): "one of h100, h200 or a file written by spectrain calibrate, got 'abacus'",
        ("--mesh", "1x2", "--optimizer", "torch-muon"): "--optimizer must be one of",
    }.items():
        words_of = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
        assert main(["plan", *words_of, *flags]) == 2, flags
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def test_no_mesh_that_fits_is_said(capsys, tmp_path):
    write_cluster(dataclasses.replace(NAMED["h100"], memory=1e5), tmp_path / "m.json")
    words = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
    assert main(["plan", *words, "--ranks", "2", "--machine", str(tmp_path / "m.json")]) == 2
    assert "no mesh of 2 ranks of h100 holds this run" in capsys.readouterr().err


BROKEN = {
    "nothing": lambda d: d.clear(),
    "one too many": lambda d: d.update(more=1),
    "a name": lambda d: d.update(name=3),
    "a number": lambda d: d.update(memory="many"),
    "not finite": lambda d: d.update(call=-1),
    "no ranks": lambda d: d.update(node=0),
    "no rates": lambda d: d.update(products={}),
    "rates that are none": lambda d: d.update(moves=[[1]]),
    "sizes that fall": lambda d: d.update(moves=[[2, 1], [1, 1]]),
    "a link": lambda d: d.update(inside={"bandwidth": 0, "latency": 0}),
    "a word": lambda d: d.update(overlaps="yes"),
    "no msign": lambda d: d.update(msign={}),
    "no way to divide": lambda d: d.update(beside={"sideways": {}}),
    "less than nothing": lambda d: d.update(beside={"alone": {"block": -1, "rest": 0, "matrix": 0, "update": 0}}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_is_no_machine_is_named(what, tmp_path):
    said = json.loads(json.dumps(NAMED["h100"].as_dict()))
    assert Cluster.from_dict(said) == NAMED["h100"]
    BROKEN[what](said)
    (tmp_path / "m.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"m\.json"):
        read_cluster(str(tmp_path / "m.json"))


def test_rates_between_two_sizes_are_between():
    rates = ((10, 100.0), (1000, 300.0))
    assert [between(rates, size) for size in (1, 10, 100, 1000, 5000)] == pytest.approx([100, 100, 200, 300, 300])


def test_calibration_divides_work_by_time(monkeypatch, tmp_path):
    """A clock that ticks 1 ms at each look: a window of n calls takes 1 ms, whatever they do."""
    ticks = itertools.count()
    monkeypatch.setattr(measure, "SIZES", (8, 16))
    monkeypatch.setattr(measure, "WINDOW", 0.01)
    monkeypatch.setattr(measure, "_MOVES", (1200, 2400))
    monkeypatch.setattr(measure, "_SIDES", (8,))
    monkeypatch.setattr(measure, "measure_beside", lambda *given, **more: {"alone": Beside(block=1.0)})
    found = measure.measure_cluster(None, device=torch.device("cpu"), rounds=1, clock=lambda: next(ticks) * 1e-3)
    calls = round(measure.WINDOW / (1e-3 / 3))
    assert dict(found.products["float32"]) == pytest.approx({n: 2 * n**3 * calls / 1e-3 for n in (8, 16)})
    assert dict(found.moves) == pytest.approx({size: size * calls / 1e-3 for size in (1200, 2400)})
    assert found.msign["float32"][0][1] > found.products["float32"][0][1]  # as many as go through one call
    assert found.beside == {"alone": Beside(block=1.0)}
    assert "assumed" in found.source
    write_cluster(found, tmp_path / "machine.json")
    assert read_cluster(str(tmp_path / "machine.json")) == found
    plan = plan_run(TrainConfig(**SMALL), found)
    assert plan.config.autocast == "off"
    assert math.isfinite(plan.step_seconds)


TRUTH = Beside(block=3.0, rest=2.0, matrix=0.5, update=1.0)


def test_what_a_deeper_model_has_more_is_the_price_of_a_block_and_of_a_matrix(monkeypatch):
    """Beyond what operations and bytes cost, which the timed steps here take exactly."""

    def timed(ranks, config, stand, device, clock):
        said = plan_run(config, NAMED["h100"]).seconds
        besides = TRUTH.rest + config.depth * TRUTH.block, TRUTH.update + 7 * config.depth * TRUTH.matrix
        there, update = said["forward"] + said["backward"], said["msign"] + said["other updates"]
        return beside._Pace(there + besides[0], update + besides[1])

    monkeypatch.setattr(beside, "_timed", timed)
    found = beside.measure_beside(ALONE, NAMED["h100"], device=torch.device("cpu"), clock=lambda: 0.0)
    assert dataclasses.astuple(found["alone"]) == pytest.approx(dataclasses.astuple(TRUTH))


@pytest.mark.parametrize(
    ("mesh", "tensor", "way"),
    [(None, 1, "alone"), ("1x2", 1, "shards"), ("2x1", 1, "replicas"), ("2x2", 1, "shards"), ("1x2", 2, "tensor")],
)
def test_what_a_step_costs_besides_is_that_of_a_model_divided_alike(mesh, tensor, way):
    machine = dataclasses.replace(NAMED["h100"], beside={way: TRUTH})
    config = TrainConfig(**SMALL, mesh=mesh, tensor_parallel=tensor, micro_batch_size=1)
    plan, without = plan_run(config, machine), plan_run(config, NAMED["h100"])
    passes = 8 // plan.stand.parts
    assert plan.seconds["hooks"] == pytest.approx(passes * (2 * TRUTH.block + TRUTH.rest))
    assert plan.seconds["bookkeeping"] == pytest.approx(2 * 7 * TRUTH.matrix + TRUTH.update)
    assert plan.step_seconds - without.step_seconds == pytest.approx(
        plan.seconds["hooks"] + plan.seconds["bookkeeping"]
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--rounds", "0"], "--rounds must be"), (["--threads", "0"], "--threads must be"),
     (["--device", "abacus"], "--device"), (["--out", "nowhere/m.json"], "no folder nowhere"),
     (["--rank-timeout", "0"], "--rank-timeout must be")],
)  # fmt: skip
def test_calibrate_refuses_nonsense_before_it_measures(flags, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", *flags]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


PAGE = Path(__file__).parents[2] / "docs" / "plan.md"
BIG = {"depth": 32, "width": 4096, "heads": 32, "kv_heads": 8, "hidden": 14336, "vocabulary": 128256, "block": 4096,
       "batch_size": 1024}  # fmt: skip
COLUMNS = ("forward", "backward", "gather", "reduce", "shared matrices", "Muon's exchange", "msign", "hidden")


def table():
    """Rows of the page's table of 1,024 ranks: mesh, then numbers as they stand there."""
    lines = re.findall(r"^\| `(h\d+)` \| `--mesh (\S+?)( --tensor-parallel (\d+))?`(.*)\|$", PAGE.read_text(), re.M)
    return [
        (name, mesh, int(t or 1), [cell.strip() for cell in rest.split("|")[1:]]) for name, mesh, _, t, rest in lines
    ]


def row_of(plan):
    times = {**plan.seconds, "hidden": plan.hidden}
    outside = sum(part.between for part in plan.links)
    return [f"{plan.bytes / 1e9:.1f}", f"{outside / 1e9:.2f}", *(f"{1e3 * times.get(name, 0):.0f}" for name in COLUMNS),
            f"{1e3 * plan.step_seconds:.0f}"]  # fmt: skip


def big(mesh, tensor):
    return TrainConfig(**BIG, mesh=mesh, tensor_parallel=tensor, recompute=True)


def test_the_table_of_1024_ranks_is_what_the_plan_says_but_for_muon():
    """Its exchange among a thousand ranks takes seconds to plan."""
    machine, mesh, tensor, said = table()[0]
    config = settled(big(mesh, tensor), NAMED[machine])
    found = row_of(before_muon(config, NAMED[machine], Layout(*map(int, mesh.split("x")), tensor)))
    names = ("memory", "between", *COLUMNS, "step")
    for name, ours, theirs in zip(names, found, said, strict=True):
        assert ours == theirs or name in ("between", "Muon's exchange", "msign", "hidden", "step"), name


@pytest.mark.full
def test_the_table_of_1024_ranks_is_what_the_plan_says():
    assert len(table()) >= 4
    for machine, mesh, tensor, said in table():
        assert said == row_of(plan_run(big(mesh, tensor), NAMED[machine])), mesh
