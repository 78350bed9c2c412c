"""``--qk-clip`` in a run: logits grow without it and do not with it, in every kind of attention that it is for."""

import json
import math
import shutil
import statistics
import subprocess
import sys

import pytest
import torch

from spectrain import nn, report, train
from spectrain.report._sections.logits import logits
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run.folder import RunFolder
from spectrain.train.config import TrainConfig

from .test_run import interrupted, rows

LIMIT = 4.0
LOUD = {"lr": 0.3, "max_steps": 16, "heads": 4, "spectrum_interval": 0, "sample_tokens": 0, "save_interval": 50,
        "eval_interval": 50}  # fmt: skip
KINDS = {"mha": {"qk_norm": "off"}, "gqa": {"qk_norm": "off", "kv_heads": 2}, "mla": {}}


def tops(run):
    return [row["max_logit"] for row in rows(run) if row["kind"] == "step"]


@pytest.fixture(scope="module")
def trained(trained_once):
    """A run of each kind and threshold."""
    return lambda tiny, kind, limit: trained_once({**tiny, **LOUD, **KINDS[kind], "attention": kind, "qk_clip": limit})


@pytest.mark.parametrize("kind", KINDS)
def test_logits_grow_beyond_the_threshold_without_and_do_not_with(tiny, trained, kind):
    free, held = tops(trained(tiny, kind, math.inf)), tops(trained(tiny, kind, LIMIT))
    first = next(i for i, top in enumerate(free) if top > LIMIT)
    assert held[: first + 1] == free[: first + 1]  # nothing happens below the threshold
    assert statistics.median(free[-5:]) > 2 * LIMIT
    assert statistics.median(held[-5:]) < 1.5 * LIMIT  # what a step adds, on another batch
    clipped = [row["clipped_heads"] for row in rows(trained(tiny, kind, LIMIT)) if row["kind"] == "step"]
    assert [count > 0 for count in clipped] == [top > LIMIT for top in held]


def test_the_figure_of_a_step_is_the_largest_product_of_its_queries_and_keys(tiny, tmp_path):
    """Written out from the captured queries and keys of all micro-batches; and no smaller part of it."""
    flags = {**tiny, **LOUD, **KINDS["gqa"], "qk_clip": 1.0, "depth": 2, "micro_batch_size": 2}
    config, _ = TrainConfig(**flags, out_dir=str(tmp_path)).derive()
    job = LanguageJob(config, RunFolder(tmp_path), resuming=False)
    job.build(config, device=torch.device("cpu"))
    with nn.capture(job.model, ["blocks.*.queries", "blocks.*.keys"]) as seen:
        job.accumulate(0)
    truth = []
    for i in (0, 1):
        found = [seen[f"blocks.{i}.attention.{name}"] for name in ("queries", "keys")]
        q, k = (torch.cat([part.double() for part in parts]) for parts in found)
        products = torch.einsum("bhid,bhjd->bhij", q, k.repeat_interleave(2, 1)) * job.model.blocks[i].attention.scale
        truth.append(products.masked_fill(~torch.ones(16, 16, dtype=torch.bool).tril(), -torch.inf).amax((0, 2, 3)))
    before = [block.attention.query.weight.clone() for block in job.model.blocks]
    row = job.after_step(1.0)
    assert [row["max_logit.0"], row["max_logit.1"]] == pytest.approx([float(each.max()) for each in truth], rel=1e-5)
    assert row["max_logit"] == max(row["max_logit.0"], row["max_logit.1"])
    assert row["clipped_heads"] == sum(int((each > 1.0).sum()) for each in truth) > 0
    assert any(not torch.equal(b.attention.query.weight, w) for b, w in zip(job.model.blocks, before, strict=True))
    assert max(float(part.max()) for part in truth) > 1.01 * max(float(each[:2].max()) for each in truth[:1])


def test_stopping_and_resuming_changes_nothing(tiny, trained, tmp_path):
    flags = {**tiny, **LOUD, **KINDS["gqa"], "attention": "gqa", "qk_clip": LIMIT}
    interrupted(flags, tmp_path / "run", 10)
    again = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "run"), resume="auto"))
    whole = trained(tiny, "gqa", LIMIT)
    assert rows(again) == rows(whole)
    ours, theirs = (train.load_run(run).model.state_dict() for run in (again, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_without_norms_is_read_back_without_norms(tiny, trained):
    for kind in KINDS:
        run = train.load_run(trained(tiny, kind, math.inf))
        assert not any(block.attention.qk_norm for block in run.model.blocks)
    assert TrainConfig().qk_norm == "auto"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"qk_clip": 0.0}, "--qk-clip must be positive"),
        ({"qk_clip": math.nan}, "--qk-clip must be positive"),
        ({"qk_clip": 100.0}, "--qk-clip must be left out, or inf, unless --qk-norm off"),
        ({"qk_clip": 100.0, "qk_norm": "plain"}, "--qk-clip must be left out, or inf, unless --qk-norm off"),
        ({"qk_clip": 9.0, "qk_norm": "off", "bias": "all"}, "--qk-clip must be left out, or inf, with --bias all"),
        ({"qk_norm": "plain", "attention": "mla"}, "--qk-norm must be left out with --attention mla"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig(**flags)


def test_what_makes_sense_is_not_refused():
    for flags in ({"qk_clip": math.inf}, {"qk_clip": 9.0, "attention": "mla"}, {"qk_clip": 9.0, "qk_norm": "off"}):
        TrainConfig(**flags, max_steps=1).derive()


def test_two_guards_of_one_weight_are_refused(tiny, tmp_path):
    both = {"bound": 4.0, "qk_clip": 9.0, "qk_norm": "off"}
    with pytest.raises(ValueError, match="--bound must be left out with --qk-clip where heads share keys"):
        train.train(TrainConfig(**tiny, **both, out_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
    TrainConfig(**both, attention="mha").derive()


def test_the_report_draws_each_layer_and_the_threshold(tiny, trained):
    runs = [report.read(trained(tiny, "gqa", limit)) for limit in (math.inf, LIMIT)]
    (fig,) = logits(runs).figures
    named = {("threshold" in [trace["name"] for trace in view.traces]): view for view in fig.views.values()}
    held, free = named[True], named[False]
    assert held.traces[0]["y"] == [row["max_logit.0"] for row in runs[1].steps]
    assert held.traces[-1]["y"] == [LIMIT, LIMIT]
    count = sum(row["clipped_heads"] > 0 for row in runs[1].steps)
    assert held.title.endswith(f"heads were clipped in {count} of 16 steps")
    assert free.title.startswith(f"The largest logit was {max(tops(runs[0].path)):.3g}, in step ")


SCRIPT = """
import json, sys, torch
from spectrain import train
from spectrain.train.config import TrainConfig

torch._dynamo.config.recompile_limit = 2  # one graph to learn, one to judge
flags = json.loads(sys.argv[1])
flags["data"] = tuple(flags["data"])
train.train(TrainConfig(**flags, compile=True, out_dir=sys.argv[2]))
"""


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++, which Inductor compiles with")
def test_a_compiled_run_sees_and_clips_the_same(tiny, tmp_path):
    flags = {**tiny, **LOUD, **KINDS["gqa"], "qk_clip": 4.0, "max_steps": 6, "micro_batch_size": 2}
    eager = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "eager")))
    call = [sys.executable, "-c", SCRIPT, json.dumps(flags), str(tmp_path / "compiled")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert tops(tmp_path / "compiled") == pytest.approx(tops(eager), rel=1e-3)
    assert max(tops(eager)) > 4.0
