"""A text and a configuration small enough to train in a second."""

import random

import pytest

from spectrain import train


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """Forty documents of a made-up language that a model can learn something of."""
    folder, draw = tmp_path_factory.mktemp("text"), random.Random(0)
    words = ["the", "norm", "of", "a", "matrix", "is", "its", "largest", "singular", "value", "and", "so", "on"]
    for i in range(40):
        lines = [" ".join(draw.choices(words, k=12)) + "." for _ in range(12)]
        (folder / f"{i:02d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def tiny(text_folder):
    """Arguments of a TrainConfig whose run takes about a second."""
    return {
        "data": (str(text_folder),),
        "depth": 1,
        "width": 32,
        "heads": 2,
        "vocabulary": 300,
        "block": 16,
        "batch_size": 4,
        "max_steps": 12,
        "lr": 3e-3,
        "warmup": 2,
        "eval_interval": 4,
        "eval_tokens": 256,
        "save_interval": 4,
        "spectrum_interval": 6,
        "sample_tokens": 8,
        "threads": 1,
        "autocast": "off",
        "muon_dtype": "float32",
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """An uninterrupted run of each configuration, made once for the tests of a file."""
    made = {}

    def run(arguments):
        key = repr(sorted(arguments.items()))
        if key not in made:
            out = tmp_path_factory.mktemp("trained")
            made[key] = train.train(train.TrainConfig(**arguments, out_dir=str(out)))
        return made[key]

    return run
