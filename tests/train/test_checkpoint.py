"""Checkpoints: whole or not at all; damage is seen and named; a full disk loses nothing."""

import errno
import os
import shutil
import subprocess

import pytest
import torch

from spectrain._files import write as _files
from spectrain.train._run import checkpoint as _checkpoint


def net(seed=0, out=3):
    torch.manual_seed(seed)
    return torch.nn.Linear(4, out)


def saved(folder, step=7, keep=2):
    return _checkpoint.save(folder, net(), {"counters": {"step": step}}, step=step, keep=keep)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    checkpoint, other = saved(tmp_path), net(seed=1)
    state = _checkpoint.load(checkpoint, other)
    assert state["counters"] == {"step": 7}
    assert state["versions"]["torch"] == torch.__version__
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), net().parameters(), strict=True))


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        saved(tmp_path, step=step)
    assert [c.step for c in _checkpoint.every(tmp_path)] == [3, 10]


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {"truncated": truncate, "one bit flipped": flip, "missing": os.remove, "empty": lambda p: p.write_bytes(b"")}


@pytest.mark.parametrize("file", ["model.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_and_the_model_is_left_alone(tmp_path, file, damage):
    checkpoint = saved(tmp_path)
    damage(checkpoint.path / file)
    other = net(seed=1)
    before = other.weight.clone()
    with pytest.raises(ValueError, match=r"step-00000007 is damaged .* Nothing was changed"):
        _checkpoint.load(checkpoint, other)
    assert torch.equal(other.weight, before)


def test_another_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="weights of another model"):
        _checkpoint.load(saved(tmp_path), net(out=5))


def test_a_crash_while_writing_leaves_the_old_checkpoint_and_no_new_one(tmp_path, monkeypatch):
    saved(tmp_path, step=1)
    monkeypatch.setattr(torch, "save", lambda *_a, **_k: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="Older checkpoints are intact") as raised:
        saved(tmp_path, step=2)
    assert raised.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    _checkpoint.verify(_checkpoint.every(tmp_path)[0])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of 1 MB cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_older_checkpoints_survive(small_disk):
    saved(small_disk, step=1)
    big = torch.nn.Linear(1000, 1000)
    with pytest.raises(OSError, match="Older checkpoints are intact: make room and resume"):
        _checkpoint.save(small_disk, big, {}, step=2, keep=1)
    assert [c.step for c in _checkpoint.every(small_disk)] == [1]
    _checkpoint.verify(_checkpoint.every(small_disk)[0])
    assert not list(small_disk.glob(".*"))


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    _files.write_text(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        _files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
