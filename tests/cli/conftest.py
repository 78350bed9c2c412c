"""The command as users run it: in this process, which has torch loaded; where the process is the point, in its own."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from spectrain.cli import main


def call(*words, cwd="."):
    """``spectrain WORDS``: exit code and text. The number of threads, which a command may set, is put back."""
    out, err, threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(Path(cwd)):
        try:
            code = main([*map(str, words)])
        except SystemExit as leaving:  # help, or a flag that tyro has drawn a box around
            code = leaving.code or 0
    torch.set_num_threads(threads)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def run_process(*words, **options):
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


@pytest.fixture
def process():
    return run_process


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
