"""The job that draws: it learns, its judge can be trusted, it resumes bit for bit."""

import base64
import json
import os
import signal

import numpy as np
import pytest
import safetensors.torch
import torch

from spectrain import data, train
from spectrain.train._jobs import image_judge
from spectrain.train._jobs.draw import DrawJob, pack
from spectrain.train._jobs.draw_config import DEFAULT_STEPS, DrawConfig
from spectrain.train._jobs.image_judge import Judge, frechet, nearest
from spectrain.train._jobs.pictures import default_patch
from spectrain.train._run.folder import RunFolder

TINY = {
    "width": 32, "depth": 1, "max_steps": 12, "batch_size": 16, "warmup": 2, "eval_interval": 6, "eval_pictures": 40,
    "many_steps": 2, "save_interval": 4, "spectrum_interval": 6, "threads": 1, "autocast": "off",
    "muon_dtype": "float32", "device": "cpu", "resume": "auto",
}  # fmt: skip


def rows(run):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith(("seconds", "per_second"))} for line in lines]


@pytest.fixture(autouse=True)
def brief_judge(monkeypatch):
    """A judge of runs that hardly learns; the one that is judged here, ``judge``, is made before."""
    monkeypatch.setattr(image_judge, "_STEPS", 8)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_judge, "_STEPS", 8)
        return train.train(DrawConfig(**TINY, out_dir=str(tmp_path_factory.mktemp("draw") / "run")))


def test_a_run_judges_draws_and_sums_up(reference):
    kinds = [row["kind"] for row in rows(reference)]
    assert kinds.count("step") == 12
    steps = [row for row in rows(reference) if row["kind"] == "step"]
    assert steps[-1]["pictures"] == 12 * 16
    assert steps[-1]["loss"] < steps[0]["loss"]
    sheets = [row for row in rows(reference) if row["kind"] == "pictures"]
    assert {row["steps"] for row in sheets} == {1, 2}
    assert len(base64.b64decode(sheets[0]["pixels"])) == np.prod(sheets[0]["shape"]) == 40 * 64
    summary = json.loads((reference / "summary.json").read_text())
    assert {"one_step_accuracy", "one_step_frechet", "many_step_frechet", "judge_accuracy"} <= set(summary)


def test_what_was_judged_is_kept_beside_the_weights_of_the_last_step(reference):
    last, averaged = (safetensors.torch.load_file(reference / f"{name}.safetensors") for name in ("model", "average"))
    assert last.keys() == averaged.keys()
    assert any(not torch.equal(last[name], averaged[name]) for name in last)


def test_the_average_is_where_the_model_is(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: None)  # there is none on that device
    config, _ = DrawConfig(**TINY).derive()
    job = DrawJob(config, RunFolder(tmp_path), resuming=False)
    job.build(config, device=torch.device("meta"))  # any device that is not where a model is made
    job.average.update()
    assert {w.device.type for w in job.averaged().values()} == {"meta"}


def test_it_resumes_bit_for_bit_with_its_averages(reference, tmp_path):
    class Bomb(train.runs.Progress):
        def step(self, at, steps, text):
            if at == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    asked = DrawConfig(**TINY, out_dir=str(tmp_path / "run"))
    with pytest.raises(train.runs.StopRequest):
        train.train(asked, progress=Bomb())
    run = train.train(asked)
    assert rows(run) == rows(reference)
    ours, theirs = (safetensors.torch.load_file(path / "model.safetensors") for path in (run, reference))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows(reference) != rows(train.train(DrawConfig(**TINY, seed=1, out_dir=str(tmp_path / "other"))))


def test_micro_batches_change_rounding_only(reference, tmp_path):
    pieces = train.train(DrawConfig(**TINY, micro_batch_size=4, out_dir=str(tmp_path / "run")))
    for a, b in zip(rows(reference), rows(pieces), strict=True):
        if a["kind"] == "step":
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)


@pytest.fixture(scope="module")
def judge():
    images = data.read_images()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return Judge(images.at(order[300:]), images.at(order[:300]), seed=0)


def blank(images):
    return torch.full_like(images.pixels, -1)


def noise(images):
    return torch.randn(images.pixels.shape, generator=torch.Generator().manual_seed(0))


def mean_of_the_class(images):
    return torch.stack([images.pixels[images.labels == label].mean(0) for label in images.labels])


WRONG = {"blank": blank, "noise": noise, "the mean of each class": mean_of_the_class}


def test_the_judge_knows_real_pictures(judge):
    assert judge.accuracy > 0.95
    real = judge(judge.held_out.pixels, judge.held_out.labels)
    assert real.novelty == pytest.approx(1.0)
    shifted = judge(judge.held_out.pixels, (judge.held_out.labels + 1) % 10)
    assert shifted.accuracy < 0.05


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_judge_rejects_what_is_no_drawing(judge, wrong):
    assert judge(wrong(judge.held_out), judge.held_out.labels).frechet > 4 * judge.frechet


def test_the_judge_sees_copies(judge):
    copies = judge(judge.train.pixels[:300], judge.train.labels[:300])
    assert copies.accuracy > 0.95
    assert copies.novelty == 0


def test_the_frechet_distance_of_normals_is_the_closed_form():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, 2, generator=draw, dtype=torch.float64)
    a, b = x * torch.tensor([1.0, 2.0]), x.flip(0) * torch.tensor([3.0, 2.0]) + torch.tensor([0.0, 1.0])
    assert frechet(a, b) == pytest.approx((1 - 3) ** 2 + 1, rel=0.02)  # commuting covariances
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)


def test_nearest_is_brute_force():
    x, y = torch.randn(4, 1, 2, 2), torch.randn(7, 1, 2, 2)
    brute = [min((a - b).norm().item() for b in y) for a in x]
    assert nearest(x, y).tolist() == pytest.approx(brute, rel=1e-5)


def test_patches_and_packing():
    assert [default_patch(size) for size in (8, 28, 32, 5)] == [2, 7, 8, 1]
    assert list(base64.b64decode(pack(torch.tensor([[[[-1.0, 0.0], [1.0, 3.0]]]]))["pixels"])) == [0, 128, 255, 255]


BAD = [
    ({"instants": 1.5}, "--instants must be between 0 and 1"),
    ({"data": ("nowhere",), "max_steps": 1}, "nowhere is no folder"),
    ({"data": ("a", "b")}, "pictures come from one source, got 2"),
    ({"width": 33, "heads": 2}, "width divisible by heads"),
    ({"patch": 3}, "size divisible by patch"),
]


def test_without_a_limit_the_number_of_steps_is_known():
    assert DrawConfig().derive()[0].max_steps == DEFAULT_STEPS
    assert DrawConfig(max_minutes=1.0).derive()[0].max_steps is None


@pytest.mark.parametrize(("changes", "words"), BAD, ids=[str(c) for c, _ in BAD])
def test_what_cannot_be_run_is_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        train.train(DrawConfig(**{**TINY, **changes}, out_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run" / "config.json").exists()
