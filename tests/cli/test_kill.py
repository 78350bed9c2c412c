"""SIGKILL at any moment, resume each time: the same metrics and weights as without."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch

STEPS = 60
MOMENTS = (-1, 3, 1)
"""While it starts, and after so many lines of steps: in the default suite. ``--full`` draws ten, twenty times."""


def command(tiny, run):
    flags = [*tiny, "--max-steps", STEPS, "--log-interval", 1, "--out-dir", run, "--resume", "auto"]
    return [sys.executable, "-m", "spectrain", "train", *map(str, flags)]


def without_times(run):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith(("seconds", "per_second"))} for line in lines]


def assert_same(run, reference):
    assert without_times(run) == without_times(reference)
    assert (run / "samples.txt").read_bytes() == (reference / "samples.txt").read_bytes()
    ours, theirs = (safetensors.torch.load_file(path / "model.safetensors") for path in (run, reference))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def finish(tiny, environment, run):
    """Let the run come to its end."""
    done = subprocess.run(command(tiny, run), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="module")
def reference(tiny, environment, tmp_path_factory):
    """The uninterrupted run."""
    return finish(tiny, environment, tmp_path_factory.mktemp("reference") / "run")


def kill_once(tiny, environment, run, draw, *, wanted):
    """Start, and kill at a random moment: while it starts, or ``wanted`` steps on and some milliseconds later.

    Returns whether the kill came before the end of the run.
    """
    process = subprocess.Popen(
        command(tiny, run), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if wanted < 0:
        time.sleep(draw.uniform(0.2, 4.0))
    else:
        steps = (line for line in process.stdout if line.startswith("step "))
        for _ in range(wanted + 1):
            next(steps, None)
        time.sleep(draw.uniform(0.0, 0.03))
    process.kill()
    message = process.communicate()[1]
    assert process.returncode in (0, -signal.SIGKILL), message
    return process.returncode != 0


def test_kills_change_nothing(tiny, environment, reference, tmp_path, full):
    for repeat in range(20 if full else 1):
        run, draw = tmp_path / f"killed{repeat}", random.Random(repeat)
        moments = [draw.randrange(-4, STEPS // 12) for _ in range(10)] if full else list(MOMENTS)
        for attempt in range(4 * len(moments)):
            if kill_once(tiny, environment, run, draw, wanted=moments[0]):
                moments.pop(0)
            else:  # a busy machine let the run end first: it must be right all the same, and another one begins
                assert_same(run, reference)
                run = tmp_path / f"killed{repeat}-{attempt}"
            if not moments:
                break
        assert not moments
        assert_same(finish(tiny, environment, run), reference)


def test_the_comparison_sees_one_changed_number(reference, tmp_path):
    lines = (reference / "metrics.jsonl").read_text(encoding="utf-8")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("samples.txt", "model.safetensors"):
        (other / name).write_bytes((reference / name).read_bytes())
    (other / "metrics.jsonl").write_text(lines.replace('"step": 7,', '"step": 8,', 1), encoding="utf-8")
    with pytest.raises(AssertionError):
        assert_same(other, reference)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_0_with_the_command_to_go_on(tiny, environment, reference, tmp_path, number):
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(tiny, run), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("step 5/"):
            process.send_signal(number)
            break
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"stopped by {number.name}" in out
    assert f"--out-dir {run} --resume auto" in out
    assert_same(finish(tiny, environment, run), reference)
