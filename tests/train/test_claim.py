"""A folder is one process's at a time; what killed writers left behind goes; weights belong to one configuration."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from spectrain import train
from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run import claim as _claim
from spectrain.train._run import session as _session

HOLD = """
import sys
from pathlib import Path
from spectrain.train._run import claim as _claim
with _claim.claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
FRESH = """
import sys
from pathlib import Path
from spectrain.train._run import claim as _claim
sys.stdin.readline()
with _claim.fresh(Path(sys.argv[1])) as folder:
    (folder / "mine").write_text(sys.argv[2])
    print(folder, flush=True)
    sys.stdin.readline()
"""


def started(program, *words):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ended(process):
    process.communicate("\n")
    assert process.returncode == 0


def refused(folder):
    try:
        with _claim.claimed(folder):
            return None
    except _claim.FolderInUse as error:
        return str(error)


def test_a_folder_is_one_process_s_and_free_when_it_is_gone(tmp_path):
    holder = started(HOLD, tmp_path / "run")
    holder.stdout.readline()
    assert f"in use by process {holder.pid} on" in refused(tmp_path / "run")
    ended(holder)
    assert refused(tmp_path / "run") is None
    killed = started(HOLD, tmp_path / "run")
    killed.stdout.readline()
    assert refused(tmp_path / "run")
    killed.kill()
    killed.communicate()
    assert refused(tmp_path / "run") is None


def test_processes_that_ask_at_once_for_a_fresh_folder_get_one_each(tmp_path):
    processes = [started(FRESH, tmp_path / "runs" / "now", i) for i in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    folders = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        ended(process)
    assert sorted(folders) == [str(tmp_path / "runs" / name) for name in ("now", "now-2", "now-3")]
    assert all((Path(folder) / "mine").read_text() == str(i) for i, folder in enumerate(folders))


def test_a_claim_within_a_claim_is_the_same_and_another_thread_s_is_not(tmp_path):
    said = []
    with _claim.claimed(tmp_path / "a"):
        with _claim.claimed(tmp_path / "a"):
            pass
        other = threading.Thread(target=lambda: said.append(refused(tmp_path / "a")))
        other.start()
        other.join()
        assert f"process {os.getpid()} " in said[0]
    assert not (tmp_path / "a").exists()  # made here, and nothing came into it


def test_a_folder_that_was_there_stays_and_a_child_does_not_hold_it(tmp_path):
    with _claim.claimed(tmp_path):
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        assert refused(tmp_path) is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / _claim.LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"\.lock"), _claim.claimed(tmp_path / "run"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path):
    debris = [tmp_path / f".spectrain-{'a' * 32}.partial", tmp_path / "checkpoints" / f".spectrain-{'b' * 32}.partial"]
    for place in debris:
        place.mkdir(parents=True)
        (place / "content").write_text("half")
    for name in (".mine", "a.partial", ".spectrain-1.partial"):
        (tmp_path / name).write_text("whole")
    with _claim.claimed(tmp_path):
        pass
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [".mine", ".spectrain-1.partial", "a.partial", "checkpoints"]


def test_a_kill_while_pruning_leaves_only_whole_checkpoints(tmp_path, monkeypatch):
    save = lambda step: _checkpoint.save(tmp_path / "checkpoints", torch.nn.Linear(2, 2), {}, step=step, keep=1)  # noqa: E731
    save(1)

    whole = shutil.rmtree

    def killed(path, **options):
        if not (path / "old").exists():
            return whole(path, **options)
        os.remove(next((path / "old").iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(2)
    monkeypatch.undo()
    assert [kept.step for kept in _checkpoint.every(tmp_path / "checkpoints")] == [2]
    with _claim.claimed(tmp_path):
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_the_checkpoint_just_written_is_never_pruned(tmp_path):
    for step in (5, 9, 2):
        _checkpoint.save(tmp_path, torch.nn.Linear(2, 2), {}, step=step, keep=1)
    assert 2 in [kept.step for kept in _checkpoint.every(tmp_path)]


def test_two_runs_in_one_folder_do_not_mix(tiny, tmp_path):
    holder = started(HOLD, tmp_path / "run")
    holder.stdout.readline()
    with pytest.raises(_claim.FolderInUse, match=f"process {holder.pid} "):
        train.train(train.TrainConfig(**tiny, out_dir=str(tmp_path / "run")))
    ended(holder)


@pytest.fixture
def stopped(tiny, tmp_path):
    """A run of 12 steps that was killed after its checkpoint at step 8."""
    config = train.TrainConfig(**tiny, out_dir=str(tmp_path / "run"), resume="auto")
    save, calls = _session.Session.save, []

    def once(session):
        calls.append(save(session))
        if session.counters.step == 8:
            raise KeyboardInterrupt
        return calls[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_session.Session, "save", once)
        with pytest.raises(KeyboardInterrupt):
            train.train(config)
    return config, tmp_path / "run"


def tree(run):
    return {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def edit(run, **values):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    "change", [{"lr": 1e-4}, {"weight_decay": 0.0}, {"seed": 1}, {"horizon": 24}, {"momentum": 0.5}, {"clip": 0.5}]
)
def test_an_edited_configuration_is_not_resumed(stopped, tiny, change):
    _, run = stopped
    (name, value), *_ = change.items()
    edit(run, **change)
    before = tree(run)
    with pytest.raises(ValueError, match=f"says {name} = {value!r}, but .*step-00000008 was taken with"):
        train.train(train.TrainConfig(out_dir=str(run), resume="auto"))
    assert tree(run) == before
    with pytest.raises(ValueError, match=f"says {name} = "):
        train.load_run(run)


def test_what_decides_nothing_may_be_edited_and_the_copy_restores(stopped):
    config, run = stopped
    edit(run, log_interval=3, out_dir="elsewhere")
    shutil.copy(run / "config.json", run / "kept.json")
    edit(run, lr=1.0)
    shutil.copy(run / "checkpoints" / "step-00000008" / "config.json", run / "config.json")
    assert train.train(config) == run
    assert (run / "summary.json").exists()


def test_a_missing_configuration_is_not_begun_anew_over_checkpoints(stopped):
    config, run = stopped
    (run / "config.json").unlink()
    before = tree(run)
    with pytest.raises(ValueError, match=r"but no config.json. Put it back \(cp .*step-00000008/config.json"):
        train.train(config)
    assert tree(run) == before


def test_a_finished_run_whose_configuration_was_edited_is_not_loaded(tiny, tmp_path):
    run = train.train(train.TrainConfig(**tiny, out_dir=str(tmp_path / "run")))
    shutil.rmtree(run / "checkpoints")
    edit(run, out_dir="moved")
    train.load_run(run)
    edit(run, window=3)
    with pytest.raises(ValueError, match=r"not the configuration that model.safetensors was trained with"):
        train.load_run(run)


def test_other_versions_are_told_on_resume(stopped, monkeypatch, capsys):
    config, _ = stopped
    now = _checkpoint._versions()
    monkeypatch.setattr(_checkpoint, "_versions", lambda: now | {"torch": "9.9"})
    train.train(config)
    assert f"torch {torch.__version__} then, 9.9 now" in capsys.readouterr().out
    assert _checkpoint.other_versions({"versions": now | {"torch": "9.9"}}) is None
