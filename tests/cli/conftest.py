"""The command as users run it: a process of its own."""

import os
import subprocess
import sys

import pytest


def call(*words, **options):
    """``python -m spectrain WORDS``; the finished process with its text."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [sys.executable, "-m", "spectrain", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
        **options,
    )


@pytest.fixture
def spectrain():
    return call


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A text of 20 kB with something to learn."""
    path = tmp_path_factory.mktemp("text") / "verse.txt"
    lines = [f"line {i}: the norm of a matrix is its largest singular value, {i % 7} times." for i in range(300)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny(text):
    """Flags of a run that takes a second or two."""
    return [
        *("--data", text, "--depth", 1, "--width", 32, "--heads", 2, "--vocabulary", 300, "--block", 16),
        *("--batch-size", 4, "--lr", 3e-3, "--warmup", 2, "--eval-interval", 5, "--save-interval", 4),
        *("--spectrum-interval", 10, "--sample-tokens", 8, "--threads", 1, "--log-interval", 5),
        *("--autocast", "off", "--muon-dtype", "float32"),  # what is measured may differ between two first runs
    ]


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    """A finished run folder and what the command printed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    done = call("train", *tiny, "--max-steps", 12, "--out-dir", run)
    assert done.returncode == 0, done.stderr
    return run, done.stdout
