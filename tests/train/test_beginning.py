"""``--init-from``: weights, shape and tokens of a finished run; everything else is the new run's own."""

import dataclasses
import json
import shutil

import pytest
import torch

from spectrain import train
from spectrain.train._run.prepare import prepare
from spectrain.train._run.progress import Progress
from spectrain.train.config import TrainConfig

from .test_run import assert_two_stops_change_nothing, interrupted, rows, weights


@pytest.fixture(scope="module")
def first(trained_once):
    """A finished run of another width."""
    return lambda tiny: trained_once(tiny | {"width": 48, "log_n": "learned"})


def following(tiny, first, **changes):
    """A run of defaults for its shape, on other text, from ``first``."""
    free = {name: value for name, value in tiny.items() if name not in ("depth", "width", "heads", "vocabulary")}
    return {**free, "init_from": str(first), **changes}


def test_a_run_begins_with_the_weights_tokens_and_shape_of_another(tiny, first, tmp_path):
    source = first(tiny)
    (tmp_path / "run").mkdir()
    config = TrainConfig(**following(tiny, source, out_dir=str(tmp_path / "run"), block=32))
    with Progress(interval=10) as screen:
        session = prepare(config, screen)
    assert (session.config.width, session.config.depth, session.config.block) == (48, 1, 32)
    theirs = weights(source)
    assert all(torch.equal(p, theirs[name]) for name, p in session.model.state_dict().items())
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_it_goes_on_learning_and_resumes_with_the_same_bits(tiny, first, tmp_path):
    arguments = following(tiny, first(tiny), lr=1e-3)
    whole = train.train(TrainConfig(**arguments, out_dir=str(tmp_path / "whole")))
    evals = [row["loss"] for row in rows(whole) if row["kind"] == "eval"]
    last = json.loads((first(tiny) / "summary.json").read_text(encoding="utf-8"))["validation_loss"]
    assert evals[0] == pytest.approx(last, abs=0.3)  # where the first one ended, on part of the held-out text
    assert evals[-1] < evals[0]
    assert_two_stops_change_nothing(arguments, tmp_path, whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depth": 2}, r"--depth 2 differs from the 1 of --init-from"),
        ({"attention": "mla"}, r"--attention mla differs from the gqa"),
        ({"vocabulary": 300, "tokenizer": "bytes"}, r"--tokenizer bytes differs from the bpe"),
        ({"init_from": "nowhere"}, r"--init-from nowhere is no finished run"),
    ],
)
def test_another_shape_is_refused_before_anything_is_written(changes, said, tiny, first, tmp_path):
    config = TrainConfig(**following(tiny, first(tiny)) | changes | {"out_dir": str(tmp_path / "run")})
    with pytest.raises(ValueError, match=said):
        train.train(config)
    assert not (tmp_path / "run" / "config.json").exists()


def test_weights_that_are_gone_are_missed_only_without_a_checkpoint(tiny, first, tmp_path):
    source = shutil.copytree(first(tiny), tmp_path / "source")
    arguments = following(tiny, source)
    for step, well in ((5, False), (6, True)):
        interrupted(arguments, tmp_path / f"half{step}", step)
        if not well:
            shutil.rmtree(tmp_path / f"half{step}" / "checkpoints")
        (source / "model.safetensors").rename(tmp_path / "away")
        again = TrainConfig(**arguments, out_dir=str(tmp_path / f"half{step}"), resume="auto")
        if well:
            train.train(again)
        else:
            with pytest.raises(ValueError, match=r"--init-from: .* cannot be loaded"):
                train.train(again)
        (tmp_path / "away").rename(source / "model.safetensors")


def test_the_shape_is_all_that_a_model_is_built_from(tiny):
    """Every field of a configuration that changes a parameter's name or shape is inherited."""
    from spectrain.train._jobs import beginning
    from spectrain.train._jobs.model import build_model

    def shapes(config):
        model = build_model(config.derive()[0], vocabulary=260)
        return {name: tuple(p.shape) for name, p in model.named_parameters()}

    base = TrainConfig(**tiny | {"head_dim": 16, "heads": 2, "hidden": 64})
    other = {"depth": 2, "width": 64, "heads": 4, "kv_heads": 2, "hidden": 96, "tied": True, "attention": "mla",
             "head_dim": 24, "rotary_dim": 8, "query_rank": 8, "output_rank": 12, "log_n": "learned",
             "moe_experts": 4}  # fmt: skip
    for name, value in other.items():
        changed = dataclasses.replace(base, **{name: value} | ({"moe_top_k": 2} if name == "moe_experts" else {}))
        assert name in beginning.SHAPE
        assert name in ("rotary_dim",) or shapes(changed) != shapes(base), name
    free = set(vars(base)) - set(beginning.SHAPE)
    for name in ("block", "batch_size", "lr", "optimizer", "window", "seed"):
        assert name in free or name == "window"
