"""The job that classifies: it beats a linear baseline, its interval is Wilson's, it resumes bit for bit."""

import json
import math
import os
import signal

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import stats

from spectrain import data, report, train
from spectrain.cli import main
from spectrain.train._jobs.classify import PictureClassifier, divide, nearest_mean, wilson
from spectrain.train._jobs.classify_config import DEFAULT_STEPS, ClassifyConfig

TINY = {
    "width": 32, "depth": 1, "max_steps": 12, "batch_size": 16, "warmup": 2, "eval_interval": 6, "eval_pictures": 40,
    "save_interval": 4, "spectrum_interval": 6, "threads": 1, "autocast": "off", "muon_dtype": "float32",
    "device": "cpu", "resume": "auto",
}  # fmt: skip


def rows(run):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith(("seconds", "per_second"))} for line in lines]


def summary(run):
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return train.train(ClassifyConfig(**TINY, out_dir=str(tmp_path_factory.mktemp("classify") / "run")))


def test_digits_are_learned_well_above_a_linear_baseline(tmp_path):
    """Nearest class means, computed here from the same division, are a linear classifier."""
    changes = {"max_steps": 60, "batch_size": 64, "lr": 0.01, "warmup": 10, "eval_interval": 60, "save_interval": 60}
    found = summary(train.train(ClassifyConfig(**{**TINY, **changes}, optimizer="adamw", out_dir=str(tmp_path / "r"))))
    known, held_out, _ = divide(data.read_images(), fraction=0.15, generator=data.streams.generator(0, "split"))
    x, y, new = known.pixels.flatten(1).numpy(), known.labels.numpy(), held_out.pixels.flatten(1).numpy()
    means = np.stack([x[y == label].mean(0) for label in range(10)])
    answers = np.square(new[:, None] - means).sum(2).argmin(1)
    baseline = float((answers == held_out.labels.numpy()).mean())
    assert 0.8 < baseline < 0.95
    assert found["nearest_mean_accuracy"] == pytest.approx(baseline, abs=0.004)  # one tie of rounding
    assert found["held_out_pictures"] == len(held_out) > 250
    assert found["accuracy"] > baseline + 0.03
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]


def test_a_run_says_what_it_found(reference):
    found = rows(reference)
    steps = [row for row in found if row["kind"] == "step"]
    assert steps[-1]["pictures"] == 12 * 16
    assert steps[0]["loss"] == pytest.approx(math.log(10), rel=1e-6)  # all classes alike
    judged = [row for row in found if row["kind"] == "eval"]
    assert [row["step"] for row in judged] == [0, 6, 12]
    assert all(0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1 for row in judged)
    assert json.loads((reference / "classes.json").read_text())["classes"] == list("0123456789")
    assert " taken for " in (reference / "samples.txt").read_text(encoding="utf-8")
    page = report.write([reference], out=reference.parent / "report.html").read_text(encoding="utf-8")
    assert "Accuracy: 0." in page
    assert "share of pictures that get their class" in page


def test_it_resumes_bit_for_bit(reference, tmp_path):
    class Bomb(train.runs.Progress):
        def step(self, at, steps, text):
            if at == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    config = ClassifyConfig(**TINY, out_dir=str(tmp_path / "run"))
    with pytest.raises(train.runs.StopRequest):
        train.train(config, progress=Bomb())
    run = train.train(config)
    assert rows(run) == rows(reference)
    assert (run / "samples.txt").read_bytes() == (reference / "samples.txt").read_bytes()
    ours, theirs = (safetensors.torch.load_file(path / "model.safetensors") for path in (run, reference))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows(reference) != rows(train.train(ClassifyConfig(**TINY, seed=1, out_dir=str(tmp_path / "other"))))


def test_classes_that_changed_their_names_are_not_gone_on_with(tmp_path):
    """The digest is of pixels and numbers: the names beside them decide what a logit is called."""
    file = npz(tmp_path, images=LEVELS, labels=np.array(["cat", "dog"] * 4))
    config = ClassifyConfig(**{**TINY, "data": (str(file),), "max_steps": 2, "batch_size": 2}, out_dir=str(tmp_path))
    train.train(config)
    npz(tmp_path, images=LEVELS, labels=np.array(["cat", "fox"] * 4))
    with pytest.raises(ValueError, match=r"the classes are not those of this run: cat, fox; it began with cat, dog"):
        train.train(config)


def test_micro_batches_change_rounding_only(reference, tmp_path):
    pieces = train.train(ClassifyConfig(**TINY, micro_batch_size=4, out_dir=str(tmp_path / "run")))
    for a, b in zip(rows(reference), rows(pieces), strict=True):
        if a["kind"] == "step":
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (1, 1), (258, 269), (9, 10), (5000, 10_000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_interval_is_that_of_wilson(right, count, level):
    wanted = stats.binomtest(right, count).proportion_ci(level, method="wilson")
    assert wilson(right, count, level=level) == pytest.approx((wanted.low, wanted.high), rel=1e-9, abs=1e-12)


WRONG_INTERVALS = {
    "Wald's, a point where all are right": lambda p, n, z: (p - z * (p * (1 - p) / n) ** 0.5, 1.0),
    "of 90 %": lambda p, n, z: wilson(round(p * n), n, level=0.9),
    "of Agresti and Coull": lambda p, n, z: stats.binomtest(round(p * n), n).proportion_ci(0.95, method="exact")[:2],
}


@pytest.mark.parametrize("wrong", WRONG_INTERVALS.values(), ids=WRONG_INTERVALS)
def test_the_comparison_rejects_other_intervals(wrong):
    wanted = stats.binomtest(10, 10).proportion_ci(0.95, method="wilson")
    assert wrong(1.0, 10, 1.96) != pytest.approx((wanted.low, wanted.high), rel=1e-3)


def images(labels, *, classes=3, source="here"):
    pixels = torch.rand(len(labels), 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return data.images.Images(pixels, torch.tensor(labels), tuple("abcdef"[:classes]), source)


def test_each_class_is_divided_alike_and_nothing_is_lost():
    whole = images([0] * 20 + [1] * 60 + [2] * 3)
    known, held_out, copies = divide(whole, fraction=0.2, generator=torch.Generator().manual_seed(1))
    assert held_out.labels.bincount().tolist() == [4, 12, 1]
    assert (len(known) + len(held_out), copies) == (83, 0)
    both = torch.cat([known.pixels, held_out.pixels]).flatten(1)
    assert torch.equal(both[both[:, 0].argsort()], whole.pixels.flatten(1)[whole.pixels[:, 0, 0, 0].argsort()])
    half = known.labels[: len(known) // 2].bincount(minlength=3)
    assert half.min() > 0  # in random order, not class by class


def test_copies_of_training_pictures_are_not_judged():
    whole = images([0, 1] * 30)
    whole.pixels[30:] = whole.pixels[:30]  # every picture twice, with the same label
    known, held_out, copies = divide(whole, fraction=0.2, generator=torch.Generator().manual_seed(1))
    assert copies > 0
    assert len(known) + len(held_out) + copies == 60
    assert not {p.numpy().tobytes() for p in known.pixels} & {p.numpy().tobytes() for p in held_out.pixels}


def test_classes_without_a_picture_are_left_out_and_names_stay_right():
    known, held_out, _ = divide(images([0, 2] * 10), fraction=0.2, generator=torch.Generator().manual_seed(0))
    assert known.classes == held_out.classes == ("a", "c")
    assert set(known.labels.tolist()) == {0, 1}
    assert not nearest_mean(known, held_out.pixels).gt(1).any()


def test_the_untrained_model_is_a_linear_classifier():
    model = PictureClassifier(size=4, channels=1, patch=2, width=16, depth=1, heads=1, classes=3, generator=0)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(model(x), x.flatten(1) @ model.head.weight.mT)


def npz(path, **arrays):
    np.savez(path / "a.npz", **arrays)
    return path / "a.npz"


LEVELS = np.random.default_rng(0).random((8, 4, 4))
TWO = np.array([0, 1] * 4)
MISTAKES = {
    "missing labels": (lambda p: npz(p, images=LEVELS), [], ["a.npz has no 'labels'"]),
    "a single class": (lambda p: npz(p, images=LEVELS, labels=0 * TWO), [], ["pictures of one class ('0')"]),
    "a class of one": (lambda p: npz(p, images=LEVELS, labels=np.arange(8) // 7), [], ["class '1' of", "one picture"]),
    "all the same": (lambda p: npz(p, images=0 * LEVELS, labels=TWO), [], ["all held-out pictures", "that differ"]),
    "not finite": (lambda p: npz(p, images=np.where(LEVELS < 0.1, np.nan, LEVELS), labels=TWO), [], ["has nan"]),
    "other counts": (lambda p: npz(p, images=LEVELS, labels=TWO[:3]), [], ["shape (8, 4, 4)", "shape (3,)"]),
    "no such folder": (lambda p: p / "nowhere", [], ["nowhere is no folder"]),
    "two sources": (lambda p: p, ["--data", "a", "b"], ["one source, got 2"]),
    "a share of 1": (lambda p: "digits", ["--validation-fraction", "1"], ["--validation-fraction must be between 0"]),
    "a patch that does not fit": (lambda p: "digits", ["--patch", "3"], ["size divisible by patch"]),
    "a width that does not fit": (lambda p: "digits", ["--width", "33", "--heads", "2"], ["width divisible by heads"]),
    "an unknown flag": (lambda p: "digits", ["--guidance", "2"], ["--guidance"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_message_and_exit_code_2(name, tmp_path, capsys):
    source, flags, wanted = MISTAKES[name]
    words = [
        "classify",
        "--data",
        str(source(tmp_path)),
        *flags,
        "--out-dir",
        str(tmp_path / "run"),
        "--max-steps",
        "1",
    ]
    code = main(words)
    said = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in said
    assert all(word in " ".join(said.replace("│", " ").split()) for word in wanted), said
    assert not (tmp_path / "run" / "config.json").exists()


def test_without_a_limit_the_number_of_steps_is_known():
    assert ClassifyConfig().derive()[0].max_steps == DEFAULT_STEPS
    assert ClassifyConfig(max_minutes=1.0).derive()[0].max_steps is None
