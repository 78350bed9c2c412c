"""Several ranks are one run: the trajectory of one process, its checkpoints on any mesh, its bits through kills.

All jobs are done once, by :mod:`ranks`, which starts them as torchrun would; the tests look at what they left.
"""

import dataclasses
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import torch.distributed as dist

from spectrain import data, nn, train
from spectrain.train._mesh import join, lost, whole
from spectrain.train._mesh.environment import started
from spectrain.train._mesh.failing import Elsewhere
from spectrain.train._mesh.index import Reader
from spectrain.train._mesh.layout import Layout, layout
from spectrain.train._mesh.ranks import Ranks
from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run.recorded import read_any
from spectrain.train.config import TrainConfig
from spectrain.train.planning import NAMED, plan_run

from . import kills

RANKS = Path(__file__).with_name("ranks.py")
STEPS, LIMIT = 50, 3000
BOUND = 1e-5
"""How far weights of 50 steps in float32 may be from those of one process, on any mesh, all rates being ``--lr``: what
moves by larger steps is further apart in proportion."""
SMALL = [
    *("--depth", 1, "--width", 32, "--heads", 2, "--kv-heads", 2, "--tokenizer", "bytes", "--block", 16),
    *("--batch-size", 4, "--micro-batch-size", 1, "--packing", "documents", "--lr", 3e-3, "--warmup", 2),
    *("--eval-interval", 25, "--eval-tokens", 256, "--save-interval", 10, "--spectrum-interval", 25),
    *("--sample-tokens", 4, "--threads", 1, "--autocast", "off", "--muon-dtype", "float32", "--device", "cpu"),
    *("--resume", "auto", "--embedding-lr", 1, "--head-lr", 1, "--weight-decay", 0.1, "--final-lr", 0),
]
KILLS = [
    {"rank": 1, "rows": 5, "delay": 0.02},
    {"rank": 0, "rows": 11, "delay": 0.1},  # while a checkpoint is written
    {"rank": 1, "after": 0.6},  # while it starts
    {"rank": 0, "rows": 24, "delay": 0.0},
    {"rank": 1, "rows": 31, "delay": 0.1},
]


def job(base, name, world, *flags, steps=STEPS, run=None, **more):
    """What :mod:`ranks` takes: a run of its own name, or a part of ``run``."""
    place = base / "runs" / (run or name)
    argv = ["train", "--data", base / "text", *SMALL, "--max-steps", steps, "--out-dir", place, *flags]
    return {"name": name, "world": world, "argv": [*map(str, argv)], "metrics": str(place / "metrics.jsonl"), **more}


def jobs(base):
    """All of them, in order."""
    stop = signal.SIGTERM.value
    for folder in ("here", "there"):
        (base / folder).mkdir()
    return [
        job(base, "one", 1),
        job(base, "two", 2, patch="counts_bytes"),
        job(base, "four", 4, "--mesh", "2x2"),
        job(base, "shared", 2, "--tensor-parallel", 2, "--recompute"),
        job(base, "chain4", 4, run="chain", kills=[{"rows": 12, "stop": stop}]),
        job(base, "chain2", 2, run="chain", kills=[{"rows": 24, "stop": stop}]),
        job(base, "chain1", 1, run="chain", kills=[{"rows": 36, "stop": stop}]),
        job(base, "chain", 4, "--mesh", "4x1"),
        job(base, "killed", 2, restarts=len(KILLS), kills=KILLS, patch="slow_checkpoints", patience=2),
        *(job(base, wrong, 2, patch=wrong, steps=10) for wrong in WRONG),
        job(base, "right", 1, steps=10),
        *(job(base, name, ranks, *GUARDS, *flags, steps=12, **more) for name, ranks, flags, more in guarded(stop)),
        *(job(base, name, ranks, *EXPERTS, *flags, steps=8, **more) for name, ranks, flags, more in divided(stop)),
        *(job(base, name, 2, *flags, steps=12, **more) for name, (flags, more, *_) in refused(base).items()),
        *(
            job(base, name, ranks, *LARGER, *flags_of(asked), steps=3, patch="counts_memory")
            for name, (ranks, asked, _) in COUNTED.items()
        ),
    ]


LARGER = ("--depth", 3, "--width", 128, "--heads", 4, "--block", 64, "--batch-size", 8, "--micro-batch-size", 8)
COUNTED = {
    "counted": (1, {}, "block 3, back"),
    "counted_again": (2, {"mesh": "1x2", "recompute": True, "optimizer": "adamw"}, "block 2, back"),
    "counted_shards": (2, {"mesh": "1x2"}, "block 3, back"),
    "counted_copies": (2, {"mesh": "2x1", "optimizer": "adamw"}, "block 3, back"),
    "counted_step": (2, {"mesh": "2x1", "block": 8}, "the step"),
}
"""Ranks, what is asked for, and the moment at which a rank holds most."""


def flags_of(asked):
    return [word for key, value in asked.items() for word in (f"--{key}", *([] if value is True else [value]))]


WRONG = ("same_rows", "own_mean", "never_meets")
GUARDS = ("--qk-norm", "off", "--qk-clip", 2.5, "--bound", 1.895, "--seed", 6, "--weight-decay", 0, "--average", 0.2,
          "--decay-estimate", 3, "--schedule", "wsd", "--eval-interval", 4)  # fmt: skip
"""All that watches over weights and logits. Of the first weights of that seed the value's norm is 1.8943."""
UNGUARDED = {"own_peaks": "--qk-clip", "clips_parts": "--bound"}


def guarded(stop):
    """Name, ranks, flags and faults of runs with guards: on several meshes, and from one to another; wrong ones."""
    return [
        ("guarded", 1, (), {}),
        ("guarded4", 4, ("--mesh", "2x2"), {}),
        ("guarded_a", 2, ("--tensor-parallel", 2), {"run": "guarded_chain", "kills": [{"rows": 4, "stop": stop}]}),
        ("guarded_b", 1, (), {"run": "guarded_chain", "kills": [{"rows": 8, "stop": stop}]}),
        ("guarded_chain", 2, (), {}),
        *((wrong, 2, (), {"patch": wrong}) for wrong in UNGUARDED),
    ]


def refused(base):
    """What cannot go on: flags, what is done to it, exit codes, the words of the one rank that speaks."""
    apart = {"folders": [str(base / "here"), str(base / "there")]}
    return {
        "nan_on_last": ((), {"patch": "nan_on_last"}, [1, 1], "step 3: the output of blocks.0.feed_forward.up is not"),
        "fails_on_last": ((), {"patch": "fails_on_last"}, [1, 2], "rank 1: [Errno 5] the disk of this machine"),
        "full_disk_on_last": (("--save-interval", 4), {"patch": "full_disk_on_last"}, [2, 2], "rank 1: [Errno 28] No"),
        "other_code": ((), {"patch": "other_code"}, [2, 2], "different code: "),
        "misfit": (("--mesh", "2x4"), {}, [2, 2], "--mesh 2x4 needs 2 x 4 = 8 ranks, and 2 were started."),
        "uneven": (("--kv-heads", 1, "--tensor-parallel", 2), {}, [2, 2], "2 does not divide --kv-heads 1 evenly"),
        "rows": (("--batch-size", 3), {}, [2, 2], "--batch-size 3 does not divide among 2 ranks"),
        "flags": ((), {"own": {"1": ["--seed", "3"]}}, [2, 2], "different --seed: 0 on rank 0; 3 on rank 1."),
        "apart": (("--out-dir", "run"), apart, [2, 2], "rank 1: run is not the folder of that name that rank 0 has."),
        "text": ((), {"own": {"1": ["--data", str(base / "text" / "0*.txt")]}}, [2, 2], "different --data"),
        "truncated": (("--data", base / "cut"), {}, [2, 2], "train-0.npy is truncated"),
        "tokenizer": (("--data", base / "prepared"), {}, [2, 2], "was prepared with --tokenizer bpe, and bytes is"),
        "again": (("--restart", ), {}, [2, 2], "unrecognized"),
    }  # fmt: skip


EXPERTS = ("--moe-experts", 4, "--moe-top-k", 2, "--hidden", 64)
TORN = ("experts_apart", "own_gradients")


def divided(stop):
    """Name, ranks, flags and faults of runs whose experts are divided: by two ranks, then two shards; wrong ones."""
    by_two = ("--expert-parallel", 2)
    return [
        ("experts", 1, (), {}),
        ("experts_a", 2, by_two, {"run": "experts_chain", "kills": [{"rows": 4, "stop": stop}]}),
        ("experts_chain", 4, (*by_two, "--recompute"), {}),
        *((wrong, 2, by_two, {"patch": wrong}) for wrong in TORN),
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory, text_folder):
    """Where the jobs were done, by the first process of the test session that asked."""
    place = tmp_path_factory.getbasetemp()
    place = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "mesh"
    try:
        place.mkdir()
    except FileExistsError:
        until = time.monotonic() + LIMIT
        while not (place / "done").exists() and time.monotonic() < until:
            time.sleep(0.1)
    else:
        shutil.copytree(text_folder, place / "text")
        data.shards.prepare([[place / "text"]], place / "prepared", vocabulary=300)
        shutil.copytree(place / "prepared", place / "cut")
        (place / "cut" / "train-0.npy").write_bytes(b"\x93NUMPY")
        do(place, jobs(place))
        (place / "done").touch()
    assert (place / "done").exists()
    return place


def do(place, wanted):
    """Start the jobs, which a job that hangs ends with itself."""
    process = subprocess.Popen(
        [sys.executable, str(RANKS), str(place / "said")],
        stdin=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    try:
        process.communicate(json.dumps(wanted), timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0


def said(base, name):
    """Exit codes of every attempt, and what the ranks of it wrote."""
    place = base / "said" / name
    errors = [file.read_text() for file in sorted(place.glob("*.err"))]
    return SimpleNamespace(codes=json.loads((place / "codes").read_text()), errors=errors, place=place)


def weights(base, name, file="model.safetensors"):
    return safetensors.torch.load_file(base / "runs" / name / file)


def rows(base, name):
    lines = (base / "runs" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith(("seconds", "per_second"))} for line in lines]


def apart(base, one, other, file="model.safetensors"):
    ours, theirs = weights(base, one, file), weights(base, other, file)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def same(base, one, other):
    ours, theirs = weights(base, one), weights(base, other)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs) and rows(base, one) == rows(base, other)


@pytest.mark.parametrize("name", ["two", "four", "shared", "chain"])
def test_any_mesh_takes_the_way_of_one_process(base, name):
    assert said(base, name).codes == [[0] * len(said(base, name).codes[0])], said(base, name).errors
    assert apart(base, name, "one") <= BOUND
    for ours, theirs in zip(rows(base, name), rows(base, "one"), strict=True):
        assert ours.keys() == theirs.keys()
        if ours["kind"] != "activation":
            assert all(ours[key] == theirs[key] for key in ours if isinstance(ours[key], (int, str)))
        if ours["kind"] in ("step", "eval"):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=BOUND)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_division_of_the_work_is_seen(base, wrong):
    assert apart(base, wrong, "right") > 10 * BOUND


@pytest.mark.parametrize("name", ["guarded4", "guarded_chain"])
def test_guards_of_whole_matrices_are_those_of_one_process(base, name):
    """Weights, averages, bounds and largest logits; the one-process run is held to its formulas elsewhere."""
    assert all(not any(codes) for each in (name, "guarded_a", "guarded_b") for codes in said(base, each).codes)
    assert apart(base, name, "guarded") <= BOUND
    assert apart(base, name, "guarded", file="average.safetensors") <= BOUND
    figures = ("loss", "average_loss", "decayed_loss", "max_logit")
    assert {key for row in rows(base, name) for key in row} >= {*figures}
    for ours, theirs in zip(rows(base, name), rows(base, "guarded"), strict=True):
        assert ours.keys() == theirs.keys()
        assert ours.get("clipped_heads") == theirs.get("clipped_heads")
        if ours["kind"] in ("step", "eval"):
            assert {key: ours[key] for key in figures if key in ours} == pytest.approx(
                {key: theirs[key] for key in figures if key in theirs}, rel=BOUND
            )
    assert any(row.get("clipped_heads") for row in rows(base, name))
    value = weights(base, name)["blocks.0.attention.value.weight"].double()
    assert float(torch.linalg.matrix_norm(value, 2)) == pytest.approx(1.895, abs=1e-6)  # it has grown up to its bound


@pytest.mark.parametrize("wrong", UNGUARDED)
def test_a_guard_that_sees_parts_alone_is_seen(base, wrong):
    assert said(base, wrong).codes == [[0, 0]], said(base, wrong).errors
    assert apart(base, wrong, "guarded") > 10 * BOUND


def test_experts_that_are_divided_take_the_way_of_one_process(base):
    """Weights, counts of tokens and biases; each rank has kept whole experts of its own."""
    assert not any(any(codes) for each in ("experts_a", "experts_chain") for codes in said(base, each).codes)
    assert apart(base, "experts_chain", "experts") <= BOUND
    for ours, theirs in zip(rows(base, "experts_chain"), rows(base, "experts"), strict=True):
        assert ours.keys() == theirs.keys()
        assert ours.get("moe_loads") == theirs.get("moe_loads")
    bias = "blocks.0.feed_forward.bias"
    assert torch.equal(weights(base, "experts_chain")[bias], weights(base, "experts")[bias])
    assert weights(base, "experts")[bias].any()
    first, last = (kept.path for kept in train.checkpoints(base / "runs" / "experts_chain"))
    for path, count in ((first, 2), (last, 1)):
        said_of = Reader(path / "shards").read_metadata().state_dict_metadata
        for name in ("model/blocks.0.feed_forward.experts.gate", "model/blocks.0.feed_forward.experts.down"):
            whole_size = weights(base, "experts")[name.removeprefix("model/")].shape
            assert [chunk.sizes for chunk in said_of[name].chunks] == [(count, *whole_size[1:])] * (4 // count)


@pytest.mark.parametrize("wrong", TORN)
def test_experts_that_do_not_meet_are_seen(base, wrong):
    assert said(base, wrong).codes == [[0, 0]], said(base, wrong).errors
    assert apart(base, wrong, "experts") > 10 * BOUND


@pytest.mark.parametrize(
    ("flags", "stand", "words"),
    [({"moe_experts": 6, "expert_parallel": 2}, Layout(1, 2, 1, 2), r"does not divide among 2 .* x 2 \(shards\) = 4"),
     ({"moe_experts": 6, "expert_parallel": 4}, Layout(2, 1, 1, 4), "give a multiple of 4, or replicas for shards"),
     ({"moe_experts": 4, "expert_parallel": 2, "optimizer": "adamw"}, Layout(1, 1, 1, 2), "--optimizer must be muon"),
     ({"moe_experts": 4, "expert_parallel": 2, "moe_balance": "quantile"}, Layout(1, 1, 1, 2), "--moe-balance must be"),
     ({"moe_experts": 4, "expert_parallel": 2, "batch_size": 6}, Layout(2, 1, 1, 2), "--batch-size 6 does not divide"),
     ({"moe_experts": 4, "tensor_parallel": 2}, Layout(1, 1, 2, 2), "--moe-experts must be left out")],
)  # fmt: skip
def test_experts_that_cannot_be_divided_are_refused(flags, stand, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**flags).check_ranks(stand)
    TrainConfig(moe_experts=4, expert_parallel=2).check_ranks(Layout(2, 2, 1, 2))


def test_without_experts_there_is_nothing_to_divide():
    for flags, words in (({"expert_parallel": 2}, "left out without --moe-experts"),
                         ({"expert_parallel": 0, "moe_experts": 2}, "must be at least 1")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            TrainConfig(**flags)


def test_runs_go_on_with_other_ranks_than_before(base):
    """4, 2, 1 and 4 again: each was stopped after some steps and left a checkpoint of its own kind."""
    for name, ranks in (("chain4", 4), ("chain2", 2), ("chain1", 1)):
        assert said(base, name).codes == [[0] * ranks], said(base, name).errors
        outs = [file.read_text() for file in sorted(said(base, name).place.glob("*.out"))]
        assert "stopped by SIGTERM after step" in outs[0]
        assert not any(outs[1:])


def test_kills_change_no_bit(base):
    codes = said(base, "killed").codes
    assert len(codes) == len(KILLS) + 1, said(base, "killed").errors
    assert codes[-1] == [0, 0]
    assert all(-signal.SIGKILL in attempt for attempt in codes[:-1])
    assert same(base, "killed", "two")
    assert not same(base, "one", "two")


@pytest.mark.full
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_hundred_kills_change_no_bit(base, tmp_path, ranks):
    """One run that is started again a hundred times: while it starts, learns and writes checkpoints.

    Both take about forty minutes on two cores: pytest --full tests/train/test_mesh.py -k hundred_kills
    """
    shutil.copytree(base / "text", tmp_path / "text")
    arms = kills.drawn(random.Random(ranks), ranks, 100)
    mesh = ("--mesh", "2x2") if ranks == 4 else ()
    flags = (*mesh, "--save-interval", kills.EVERY, "--eval-interval", 200, "--spectrum-interval", 500)
    faults = {"restarts": len(arms), "arms": arms, "patch": "slow_checkpoints", "patience": 0, "mercy": 0.5}
    steps = {"steps": kills.FURTHEST * len(arms)}
    do(
        tmp_path,
        [job(tmp_path, "calm", ranks, *flags, **steps), job(tmp_path, "killed", ranks, *flags, **steps, **faults)],
    )
    codes = said(tmp_path, "killed").codes
    assert codes[-1] == [0] * ranks
    assert [attempt[kill["rank"]] for attempt, kill in zip(codes, arms, strict=False)] == [-signal.SIGKILL] * len(arms)
    assert same(tmp_path, "killed", "calm")


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++, which Inductor compiles with")
def test_compiled_ranks_take_the_way_of_one_process(base, tmp_path):
    """One graph of a block, whatever the depth; from a mesh to another that shares matrices."""
    shutil.copytree(base / "text", tmp_path / "text")
    shape, alone = ("--depth", 2), {"environment": {"TORCHINDUCTOR_COMPILE_THREADS": "1"}, "steps": 12}
    do(tmp_path, [
        job(tmp_path, "eager", 1, *shape, **alone),
        job(tmp_path, "compiled", 4, *shape, "--compile", "--mesh", "2x2", "--recompute", **alone),
        job(tmp_path, "part", 2, *shape, "--compile", **alone, run="on", kills=[{"rows": 5, "stop": signal.SIGTERM}]),
        job(tmp_path, "on", 2, *shape, "--compile", "--tensor-parallel", 2, **alone),
    ])  # fmt: skip
    for name in ("compiled", "on"):
        assert not any(map(any, said(tmp_path, name).codes)), said(tmp_path, name).errors
        assert apart(tmp_path, name, "eager") <= BOUND
        assert json.loads((tmp_path / "said" / name / "1.graphs").read_text())["unique_graphs"] == 1


@pytest.mark.full
def test_guards_and_experts_keep_their_bits_through_a_kill(base, tmp_path):
    """And room made before the update is that of one process."""
    shutil.copytree(base / "text", tmp_path / "text")
    guards, experts = (*GUARDS, "--bound-by", "pre-decay"), (*EXPERTS, "--expert-parallel", 2, "--average", 0.2)
    kill = {"restarts": 1, "kills": [{"rank": 1, "rows": 7, "delay": 0.0}], "patience": 2}
    often = {"steps": 12}
    do(tmp_path, [
        job(tmp_path, "alone", 1, *guards, **often),
        *(job(tmp_path, name, 4, *guards, "--mesh", "2x2", "--save-interval", 4, **often, **more)
          for name, more in (("guards", {}), ("guards_killed", kill))),
        *(job(tmp_path, name, 2, *experts, "--save-interval", 4, **often, **more)
          for name, more in (("experts", {}), ("experts_killed", kill))),
    ])  # fmt: skip
    assert apart(tmp_path, "guards", "alone") <= BOUND
    for name in ("guards", "experts"):
        codes = said(tmp_path, f"{name}_killed").codes
        assert len(codes) == 2
        assert not any(codes[-1])
        assert same(tmp_path, f"{name}_killed", name)
        ours, theirs = (weights(tmp_path, run, "average.safetensors") for run in (f"{name}_killed", name))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.full
def test_a_rank_that_hangs_is_named(base, tmp_path):
    shutil.copytree(base / "text", tmp_path / "text")
    do(tmp_path, [job(tmp_path, "hangs", 2, "--rank-timeout", 30, patch="hangs_on_last", patience=10)])
    found = said(tmp_path, "hangs")
    assert found.codes == [[1, -signal.SIGKILL]]
    assert found.errors[0].strip().endswith("no answer from rank 1 for 30 s: it hangs, or its machine does.")


def test_a_plan_says_what_is_really_sent(base):
    """Weights and gradients of one step of two ranks, whose 257 rows of the embedding divide into 129 and 128."""
    config = dataclasses.replace(read_any(base / "runs" / "two" / "config.json"), mesh="1x2")
    plan = plan_run(config, NAMED["h100"])
    said = {part.name: part.inside for part in plan.links}
    for rank in (0, 1):
        sent = json.loads((base / "runs" / "two" / f"sent{rank}.json").read_text())
        assert sent["gather"] == pytest.approx(said["gathered weights"], rel=0.01)
        assert sent["reduce"] == pytest.approx(said["summed gradients"], rel=0.01)
    # wrong: gathered once only; summed at every micro-batch
    assert plan.config.batch_size // 2 > plan.config.micro_batch
    assert sent["gather"] > 2 * sent["reduce"]


@pytest.mark.parametrize("name", COUNTED)
def test_a_plan_says_how_many_bytes_are_in_use(base, name):
    """At the fullest moment of a step; counted by torch's own allocator, on every rank."""
    ranks, asked, moment = COUNTED[name]
    config = dataclasses.replace(read_any(base / "runs" / name / "config.json"), mesh=asked.get("mesh"))
    plan = plan_run(config, dataclasses.replace(NAMED["h100"], device="cpu"))
    counted = max(int(Path(f"{base / 'runs' / name}.memory{rank}").read_text()) for rank in range(ranks))
    assert plan.fullest == moment
    # A tenth less: what gloo has of a gather on its way may have come already. A fifth: msign needs less than is said.
    assert (0.8 if moment == "the step" else 0.9) <= counted / plan.bytes <= 1.02
    # wrong: every part at its largest at once
    assert sum(max(parts[part] for parts in plan.moments.values()) for part in plan.memory) > 1.05 * plan.bytes


def test_what_ends_one_rank_is_said_once(base):
    for name, (_, _, codes, words) in refused(base).items():
        if name == "again":
            continue
        found = said(base, name)
        assert found.codes == [codes], (name, found.errors)
        lines = [line for text in found.errors for line in text.splitlines() if line.startswith("spectrain: error: ")]
        assert len(lines) == 1, (name, found.errors)
        assert words in lines[0], (name, lines)


def test_a_call_that_is_refused_leaves_nothing(base):
    for name in ("misfit", "uneven", "rows", "flags", "other_code", "text", "truncated", "tokenizer", "again"):
        assert not (base / "runs" / name).exists(), name
    assert not list((base / "here").iterdir())
    assert not list((base / "there").iterdir())


def test_a_wrong_flag_is_explained_by_one_rank(base):
    found = said(base, "again")
    assert found.codes == [[2, 2]]
    assert "restart" in found.errors[0]
    assert not found.errors[1]


def test_a_checkpoint_that_one_rank_could_not_write_is_not_there(base):
    kept = train.checkpoints(base / "runs" / "full_disk_on_last")
    assert [checkpoint.step for checkpoint in kept] == [4]
    assert not list((base / "runs" / "full_disk_on_last" / "checkpoints").glob(".*"))
    _checkpoint.verify(kept[0])


def test_damage_in_a_shard_is_named(base, tmp_path):
    source = train.checkpoints(base / "runs" / "two")[-1].path
    files = sorted(file.relative_to(source) for file in source.rglob("*") if file.is_file())
    assert {"shards/__0_0.distcp", "shards/__1_0.distcp", "shards/.metadata"} <= {str(file) for file in files}
    for i, file in enumerate(files):
        broken = _checkpoint.Checkpoint(tmp_path / str(i) / source.name)
        shutil.copytree(source, broken.path)
        content = bytearray((broken.path / file).read_bytes())
        content[len(content) // 2] ^= 1
        (broken.path / file).write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged .* Nothing was changed"):
            _checkpoint.verify(broken)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Evil()), b"", b"text", pickle.dumps({"a": 1}), b"cos\nsystem\n(S'mkdir evil'\ntR.",
     b"\x80\x04\x8c\x25torch.distributed.checkpoint.metadata\x8c\x09os.system\x93\x8c\x0amkdir evil\x85R."],
)  # fmt: skip
def test_an_index_runs_no_code(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(RuntimeError, match=str(tmp_path)):
        Reader(tmp_path).read_metadata()
    assert not (tmp_path / "evil").exists()


def test_a_run_that_is_not_finished_can_be_asked(base, tmp_path):
    shutil.copytree(base / "runs" / "two", tmp_path / "run")
    finished = train.load_run(tmp_path / "run").model
    (tmp_path / "run" / "model.safetensors").unlink()
    found = train.load_run(tmp_path / "run").model
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), finished.parameters(), strict=True))


def test_a_model_of_ranks_is_the_file_that_safetensors_writes(tmp_path):
    expert = nn.LanguageModel(vocabulary=9, width=8, depth=2, heads=2, tied=True, generator=0,
                              feed_forward=lambda _: nn.MoE(8, experts=4, top_k=2, hidden=8, generator=0))  # fmt: skip
    for i, model in enumerate((expert, nn.LanguageModel(vocabulary=9, width=8, depth=1, heads=2, generator=0))):
        safetensors.torch.save_model(model, str(tmp_path / f"{i}.theirs"))
        whole.write_model(tmp_path / f"{i}.ours", model)
        theirs, ours = (safetensors.torch.load_file(tmp_path / f"{i}.{kind}") for kind in ("theirs", "ours"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert (tmp_path / f"{i}.ours").stat().st_size == (tmp_path / f"{i}.theirs").stat().st_size
        other = nn.LanguageModel(vocabulary=9, width=8, depth=1, heads=2, generator=1)
        if i:
            whole.read_model(tmp_path / f"{i}.ours", other)
            assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))
        else:
            with pytest.raises(RuntimeError, match="is not in both"):
                whole.read_model(tmp_path / f"{i}.ours", other)


@pytest.mark.parametrize("stand", [Layout(1, 4), Layout(2, 2), Layout(2, 1, 2), Layout(1, 2, 1, 2)])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_every_row_and_batch_is_somebodys_and_all_ranks_make_as_many_passes(stand, count):
    batches = [(torch.full((2, 3), i), torch.full((2, 3), i)) for i in range(count)]
    hands = [list(Ranks(rank, stand).deal(batches)) for rank in range(stand.parts * stand.tensor)]
    assert {len(hand) for hand in hands} == {math.ceil(count / stand.parts)}
    one_of_each = hands[:: stand.tensor]
    dealt = sorted(int(y[0, 0]) for hand in one_of_each for _, y in hand if (y >= 0).all())
    assert dealt == list(range(count))
    numbers = torch.arange(12).numpy()
    shares = [Ranks(rank, stand).share(numbers).tolist() for rank in range(stand.parts * stand.tensor)]
    assert [number for share in shares[:: stand.tensor] for number in share] == numbers.tolist()
    assert all(shares[rank] == shares[rank - rank % stand.tensor] for rank in range(len(shares)))


@pytest.mark.parametrize(
    ("mesh", "tensor", "experts", "ranks", "found"),
    [(None, 1, 1, 8, (1, 8, 1, 1)), ("2x4", 1, 1, 8, (2, 4, 1, 1)), ("2x2", 2, 1, 8, (2, 2, 2, 1)),
     (None, 2, 1, 8, (1, 4, 2, 1)), (None, 1, 4, 8, (1, 2, 1, 4)), ("2x1", 1, 4, 8, (2, 1, 1, 4)),
     ("2x4", 1, 1, 6, "8 ranks, and 6"), ("2x4", 2, 1, 8, "2 x 4 x 2 = 16 ranks, and 8"),
     (None, 3, 1, 8, "3 does not divide"), (None, 1, 3, 8, "--expert-parallel 3 does not divide"),
     ("2x4", 1, 2, 8, "with --expert-parallel 2 needs 2 x 4 x 2 = 16 ranks"), ("2x2", 1, 1, 1, "4 ranks, and 1 was")],
)  # fmt: skip
def test_a_mesh_fits_the_ranks_or_is_refused(mesh, tensor, experts, ranks, found):
    if isinstance(found, str):
        with pytest.raises(ValueError, match=found):
            layout(mesh, tensor=tensor, experts=experts, ranks=ranks)
    else:
        assert layout(mesh, tensor=tensor, experts=experts, ranks=ranks) == found


@pytest.mark.parametrize("text", ["2", "2x", "x2", "0x2", "-1x2", "2x2x2", "2*2", " 2x2", "2X2", "1e1x1"])
def test_what_is_no_mesh_is_refused(text):
    with pytest.raises(ValueError, match="--mesh must be replicas x shards"):
        TrainConfig(mesh=text)


HERE = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("change", "words"),
    [({"RANK": ""}, "RANK not"), ({"MASTER_ADDR": ""}, "MASTER_ADDR not"), ({"RANK": "2"}, "none of the 2 ranks"),
     ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a number"), ({"MASTER_PORT": "99999"}, "from 1 to 65535"),
     ({"RANK": "-1"}, "RANK must be"), ({"WORLD_SIZE": "0"}, "at least 1")],
)  # fmt: skip
def test_an_environment_that_makes_no_sense_is_named(change, words):
    assert started(HERE).rank == 1
    with pytest.raises(ValueError, match=words):
        started({**HERE, **change})


@pytest.mark.parametrize(
    ("verb", "environment", "words"),
    [("train", {"WORLD_SIZE": "2"}, "RANK, MASTER_ADDR, MASTER_PORT"), ("draw", HERE | {"RANK": "0"}, "one process"),
     ("train", HERE | {"RANK": "0", "TORCHELASTIC_MAX_RESTARTS": "3"}, "give --out-dir and --resume auto"),
     ("train", HERE | {"MASTER_PORT": "1"}, "waited 1 s at localhost:1 and the ranks did not meet")],
)  # fmt: skip
def test_ranks_that_cannot_begin_say_so_in_one_line(tmp_path, monkeypatch, capsys, verb, environment, words):
    from spectrain.cli import main

    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    timeout = ["--rank-timeout", "1"] if verb == "train" else []
    assert main([verb, *timeout]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())


def test_a_port_of_somebody_else_is_named(tmp_path, monkeypatch, capsys):
    import socket

    from spectrain.cli import main

    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        for name, value in {**HERE, "RANK": "0", "MASTER_PORT": str(port)}.items():
            monkeypatch.setenv(name, value)
        assert main(["train", "--out-dir", str(tmp_path / "run"), "--rank-timeout", "5"]) == 2
    assert f"port {port} is in use by another program" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def in_threads(call, ranks):
    """``call(rank)`` of several ranks at once, each a little later than the one before."""
    found = {}

    def keep(rank):
        found[rank] = call(rank)

    threads = [threading.Thread(target=keep, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_ranks_of_a_restart_do_not_listen_to_those_before(order):
    """torchrun keeps one store: ranks that come before rank 0 find the round, names and addresses of the dead."""
    store = dist.HashStore()
    for attempt in range(3):
        parts = in_threads(lambda rank: join.fresh_round(store, rank, 3, 20.0), order)
        assert not parts[1].check(["address"])
        parts[0].set("address", f"of {attempt}")
        assert {part.get("address").decode() for part in parts.values()} == {f"of {attempt}"}


def test_a_rank_that_never_comes_is_named():
    with pytest.raises(TimeoutError, match="rank 1 did not come"):
        join.fresh_round(dist.HashStore(), 0, 2, 0.2)


@pytest.mark.parametrize("late", [True, False])
def test_those_that_are_left_name_who_is_missing(monkeypatch, late):
    """Ranks 0 and 2 of three notice that something broke; 1 says nothing."""
    monkeypatch.setattr(lost, "_GRACE", 0.5)
    store = dist.HashStore()
    error = RuntimeError("[gloo] Timed out waiting 3 s" if late else "[gloo] Connection closed by peer")
    found = in_threads(lambda rank: lost.Witness(store, rank, 3, 3.0).explain(error), (0, 2))
    (speaker,) = (other for other in found.values() if isinstance(other, lost.RankLost))
    assert sum(isinstance(other, Elsewhere) for other in found.values()) == 1
    assert ("no answer from rank 1 for 3 s" if late else "rank 1 is gone") in str(speaker)
