"""``--muon-per-head``: each head's update is its own orthogonal factor, by LAPACK; what heads share stays whole."""

import json

import pytest
import torch

from spectrain import train
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.optimizer import build_optimizer
from spectrain.train.config import TrainConfig

from .test_run import assert_same_run, interrupted

SHAPE = {"heads": 4, "head_dim": 8, "weight_decay": 0.0, "muon_per_head": True}


def built(tiny, folder, **flags):
    config, _ = TrainConfig(**{**tiny, **SHAPE, **flags}, out_dir=str(folder)).derive()
    job = LanguageJob(config, RunFolder(folder), resuming=False)
    job.build(config, device=torch.device("cpu"))
    return job, build_optimizer(config, job)


def cut(W, count):
    """U V^T of each of ``count`` blocks of rows, by LAPACK in float64."""
    found = []
    for part in W.double().chunk(count):
        U, _, Vh = torch.linalg.svd(part, full_matrices=False)
        found.append(U @ Vh)
    return torch.cat(found)


def test_each_head_moves_by_its_own_orthogonal_factor(tiny, tmp_path):
    job, optimizer = built(tiny, tmp_path, kv_heads=2)
    block, draw = job.model.blocks[0].attention, torch.Generator().manual_seed(0)
    for p in job.model.parameters():
        p.grad = torch.randn(p.shape, generator=draw)
    before = {name: p.detach().clone() for name, p in block.named_parameters()}
    optimizer.step()
    for name, count in (("query", 4), ("key", 2), ("value", 2), ("output", 1)):
        p = block.get_parameter(f"{name}.weight")
        moved = before[f"{name}.weight"].double() - p.detach().double()
        moved /= job.config.lr * 0.2 * 32**0.5
        assert float((moved - cut(p.grad, count)).norm() / moved.norm()) < 0.03
        for wrong in {1, 2, 4} - {count}:
            assert float((moved - cut(p.grad, wrong)).norm() / moved.norm()) > 0.1


KINDS = {
    "mha": {"query": 4, "key": 4, "value": 4},
    "gqa": {"query": 4, "key": 2, "value": 2},
    "mqa": {"query": 4},
    "mla": {"query": 4, "key": 4, "value": 4},
    "s1": {"query": 4, "key": 2, "value": 2},
    "s2": {"query": 4, "key": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_queries_keys_and_values_of_every_kind_are_cut_and_nothing_else(tiny, tmp_path, kind):
    more = {"rotary_dim": 4} if kind == "mla" else {}
    _, optimizer = built(tiny, tmp_path, attention=kind, query_rank=12, **more)
    rows = {row["name"].removeprefix("blocks.0.attention."): str(row["matrix"]) for row in optimizer.rows}
    cut = {name.removesuffix(".weight"): int(words.split(" * ")[0]) for name, words in rows.items() if " * " in words}
    assert cut == KINDS[kind]


def test_it_trains_resumes_and_stands_in_the_folder(tiny, tmp_path):
    flags = {**tiny, **SHAPE, "kv_heads": 2}
    whole = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "whole")))
    interrupted(flags, tmp_path / "half", 6)
    assert_same_run(train.train(TrainConfig(**flags, out_dir=str(tmp_path / "half"), resume="auto")), whole)
    routed = {row["name"]: row["matrix"] for row in json.loads((whole / "routing.json").read_text())}
    assert routed["blocks.0.attention.query.weight"] == "4 * 8x32"
    assert routed["blocks.0.attention.output.weight"] == "32x32"


@pytest.mark.parametrize("flags", [{"optimizer": "adamw"}, {"optimizer": "torch-muon"}, {"parametrisation": "mup"}])
def test_where_nobody_would_cut_it_is_refused(flags):
    with pytest.raises(ValueError, match="--muon-per-head must be left out with"):
        TrainConfig(muon_per_head=True, **flags)
