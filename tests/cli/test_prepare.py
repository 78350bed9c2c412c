"""``spectrain prepare`` from a shell: killed at any moment it goes on to the same files, and says what is wrong."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from spectrain.cli import main

LINES = 12_000


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Two megabytes in a few files."""
    folder, draw = tmp_path_factory.mktemp("text"), random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 9))) for _ in range(3000)]
    for i in range(5):
        lines = (" ".join(draw.choices(words, k=6)) for _ in range(LINES))
        (folder / f"{i}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def command(text, out):
    words = ["prepare", "--data", text, "--out-dir", out, "--vocabulary", 300, "--workers", 2]
    return [sys.executable, "-m", "spectrain", *map(str, words)]


def start(text, out):
    return subprocess.Popen(command(text, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


def nobody_is_left(process):
    with pytest.raises(ProcessLookupError):
        for _ in range(200):
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_kills_change_nothing(text, tmp_path, full):
    process = start(text, tmp_path / "whole")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"spectrain train --data {tmp_path / 'whole'} --vocabulary 300" in out
    for repeat in range(20 if full else 1):
        folder, draw = tmp_path / f"killed{repeat}", random.Random(repeat)
        for _ in range(draw.randint(1, 4) if full else 2):
            process = start(text, folder)
            for line in process.stdout:
                if "tokenizing" in line or ("reading" in line and full and draw.random() < 0.3):
                    break
            time.sleep(draw.uniform(0.0, 0.5))
            process.kill()
            err = process.communicate()[1]
            assert process.returncode in (0, -signal.SIGKILL), err
            nobody_is_left(process)
        process = start(text, folder)
        err = process.communicate()[1]
        assert process.returncode == 0, err
        assert content(folder) == content(tmp_path / "whole")


def test_it_says_what_it_made_and_how_to_train_on_it(text, tmp_path, capsys):
    words = ["--data", str(text / "0.txt"), str(text / "1.txt"), "--tokenizer", "bytes", "--apart", "--workers", "1"]
    assert main(["prepare", *words, "--out-dir", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert f"training text ({text / '0.txt'}): 1 documents" in out
    assert f"--data {tmp_path / 'out'} --tokenizer bytes --data-weights 1 1" in out
    assert not (tmp_path / "out" / ".lock").exists()


REFUSED = {
    "no such text": (["--data", "nowhere"], "nowhere does not exist"),
    "not empty": (["--data", "{text}", "--out-dir", "{text}"], "is there and not empty"),
    "apart alone": (["--data", "{text}", "--apart"], "--apart keeps several --data apart, and 1 is named"),
    "no workers": (["--data", "{text}", "--workers", "0"], "--workers must be from 1 to 1,024, got 0"),
    "no fraction": (["--data", "{text}", "--validation-fraction", "1.5"], "fraction must be between 0 and 1"),
    "too few tokens": (["--data", "{text}", "--vocabulary", "100"], "vocabulary_size must be at least 257"),
    "a pipe": (["--data", "{pipe}"], "is no regular file, and this text is read more than once"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_written(text, tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    words, message = REFUSED[case]
    words = [word.format(text=text, pipe=tmp_path / "pipe") for word in words]
    before = sorted(text.iterdir())
    assert main(["prepare", "--out-dir", "out", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert sorted(text.iterdir()) == before
