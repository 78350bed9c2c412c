"""Files are there whole or not at all: no planted link is followed, modes are those of open, and debris goes."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spectrain import approx, data, nn, report
from spectrain._files import cache as _cache
from spectrain._files import write as _files
from spectrain.approx._schedules.cache import recall

ROOT = Path(_files.__file__).parents[2]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o002, 0o027])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def run_folder(folder):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text('{"kind": "step", "step": 1, "loss": 8.3}\n')
    return folder


def written_everywhere(folder):
    """One file by each writer."""
    folder.mkdir()
    tokenizer = data.train_tokenizer("bytes", [])
    _files.write_json(folder / "a.json", {"a": 1})
    _files.write_folder(folder / "step", lambda to: save_file({"w": torch.ones(2)}, str(to / "w.safetensors")))
    _files.write_file(folder / "model.safetensors", lambda to: save_file({"w": torch.ones(2)}, str(to)))
    report.write([run_folder(folder / "run")], out=folder / "report.html")
    tokenizer.save(folder / "tokenizer.json")
    tokenizer.encode_documents([data.text.Document(name="a", text="b")], file=folder / "tokens.npy")
    model = nn.LanguageModel(vocabulary=7, width=8, depth=1, heads=2, embedding_norm=False)
    nn.to_hugging_face(model, folder / "theirs")
    recall("key", lambda: approx.sign_schedule(0.5, steps=1), folder=folder / "cache")
    return [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "run"]


def test_every_writer_gives_the_mode_that_open_gives(tmp_path, umask):
    written = written_everywhere(tmp_path / "out")
    assert len(written) == 9
    (tmp_path / "plain").write_text("by open")
    assert {path.name: mode(path) for path in written} == dict.fromkeys((p.name for p in written), 0o666 & ~umask)
    assert mode(tmp_path / "out" / "step") == 0o777 & ~umask
    assert mode(tmp_path / "plain") == 0o666 & ~umask
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o640)
    _files.write_text(tmp_path / "a", "new")
    assert ((tmp_path / "a").read_text(), mode(tmp_path / "a")) == ("new", 0o640)


def test_planted_links_are_not_followed(tmp_path):
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    out.mkdir()
    for name in (".a.partial", "a.partial", ".a.tmp", "a"):
        (out / name).symlink_to(victim)
    _files.write_text(out / "a", "new")
    _files.write_folder(out / "b", lambda to: (to / "c").write_text("new"))
    data.train_tokenizer("bytes", []).encode_documents([data.text.Document(name="a", text="b")], file=out / "a")
    assert victim.read_text() == "precious"
    assert not (out / "a").is_symlink()


def test_names_of_temporaries_cannot_be_guessed(tmp_path):
    seen = []
    for _ in range(3):
        _files.write_file(tmp_path / "a", lambda to: (seen.append(to), to.write_text("x")))
        assert mode(tmp_path) & 0o700 == 0o700
    assert len({to.parent.name for to in seen}) == 3
    assert all(len(to.parent.name) > 32 for to in seen)


def test_the_place_of_a_temporary_is_closed_to_others(tmp_path):
    found = []
    _files.write_file(tmp_path / "a", lambda to: (found.append(mode(to.parent)), to.write_text("x")))
    assert found == [0o700]


@pytest.mark.parametrize("kind", ["folder", "fifo", "link to a device"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, kind):
    path = tmp_path / "a"
    if kind == "link to a device":
        path.symlink_to("/dev/null")
    else:
        (path.mkdir if kind == "folder" else lambda: os.mkfifo(path))()
    before = os.lstat(path).st_mode
    with pytest.raises(OSError, match="cannot be replaced by a file; name another"):
        _files.write_text(path, "x")
    assert os.lstat(path).st_mode == before


def test_errors_name_the_file_and_not_the_temporary(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json") as caught:
        _files.write_text(tmp_path / "missing" / "a.json", "x")
    assert ".partial" not in str(caught.value)

    def full(to):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device.*a\.json"):
        _files.write_file(tmp_path / "a.json", full)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    _files.write_text(tmp_path / "a", "old")

    def fails(to):
        to.write_text("half")
        raise KeyboardInterrupt

    for writer in (_files.write_file, _files.write_folder):
        with pytest.raises((KeyboardInterrupt, OSError)):
            writer(tmp_path / "a", fails)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


WRITER = """
import sys, time
from pathlib import Path
from spectrain._files import write as _files

def slow(to):
    to.write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
    to.write_text("whole")

_files.write_file(Path(sys.argv[1]) / "a", slow)
"""


def writer(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(tmp_path):
    dead, alive = writer(tmp_path), writer(tmp_path)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    assert len(list(tmp_path.glob(".*"))) == 2
    _files.write_text(tmp_path / "b", "by another")
    _files.sweep(tmp_path)
    assert len(list(tmp_path.glob(".*"))) == 1
    alive.communicate("go on\n", timeout=60)
    assert alive.returncode == 0
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "whole", "b": "by another"}


def test_sweeping_touches_nothing_of_others(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    for name in (".a.partial", ".spectrain-1.partial", f".spectrain-{'0' * 32}.partial.txt"):
        (tmp_path / name).mkdir()
    (tmp_path / f".spectrain-{'a' * 32}.partial").symlink_to(other)
    (tmp_path / f".spectrain-{'b' * 32}.partial").write_text("a file of that name")
    before = sorted(p.name for p in tmp_path.iterdir())
    _files.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (other / "precious").exists()
    _files.sweep(tmp_path / "not there")


def test_a_writer_whose_place_is_swept_before_it_is_locked_makes_another(tmp_path, monkeypatch):
    made, mkdir = [], Path.mkdir

    def swept_at_once(path, *args, **options):
        mkdir(path, *args, **options)
        made.append(path)
        if len(made) == 1:
            _files.sweep(path.parent)

    monkeypatch.setattr(Path, "mkdir", swept_at_once)
    _files.write_text(tmp_path / "a", "x")
    assert len(made) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_sweepers_and_writers_at_once_lose_nothing(tmp_path):
    """Four processes write one file and sweep as they go: every write ends, the file is always one of them."""
    code = (
        "import sys; from pathlib import Path; from spectrain._files import write as _files; p = Path(sys.argv[1])\n"
        "for i in range(60): _files.write_text(p / 'a', str(i) * 1000); _files.sweep(p)"
    )
    crew = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(4)]
    while any(process.poll() is None for process in crew):
        if (tmp_path / "a").exists():
            text = (tmp_path / "a").read_text()
            assert text == text[: len(text) // 1000] * 1000
        time.sleep(0.005)
    assert [process.returncode for process in crew] == [0] * 4
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_replaced_and_removed_whole(tmp_path):
    for text in ("old", "new"):
        _files.write_folder(tmp_path / "deep" / "a", lambda to, text=text: (to / "b").write_text(text))
    assert (tmp_path / "deep" / "a" / "b").read_text() == "new"
    _files.remove_folder(tmp_path / "deep" / "a")
    _files.remove_folder(tmp_path / "deep" / "a")
    assert list((tmp_path / "deep").iterdir()) == []


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert _cache.cache_folder() == tmp_path / "spectrain"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert _cache.cache_folder() == tmp_path / "home" / ".cache" / "spectrain"


def test_a_user_without_a_home_does_without_a_cache(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OSError, match="set HOME or XDG_CACHE_HOME"):
        _cache.cache_folder()
    one = approx.sign_schedule(0.5, steps=1)
    assert recall("key", lambda: one) is one
