"""``--logger``: what a package's own reader finds again is what ``metrics.jsonl`` holds; a missing package is named."""

import importlib.util
import json

import pytest

from spectrain import train
from spectrain.train._run import loggers
from spectrain.train._run.folder import RunFolder
from spectrain.train.config import TrainConfig

from .test_run import interrupted


def recorded(run, kind, name):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [(row["step"], row[name]) for row in lines if row["kind"] == kind]


@pytest.mark.filterwarnings("default")
def test_tensorboard_reads_what_was_recorded_also_after_a_resume(tiny, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = {**tiny, "logger": ("tensorboard",)}
    interrupted(flags, tmp_path / "run", 6)
    run = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "run"), resume="auto"))
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    for kind in ("step", "eval"):
        found = [(event.step, event.value) for event in events.Scalars(f"{kind}/loss")]
        wanted = recorded(run, kind, "loss")
        assert [step for step, _ in found] == [step for step, _ in wanted]
        assert [value for _, value in found] == pytest.approx([value for _, value in wanted], rel=1e-6)


@pytest.mark.filterwarnings("default")  # those of the package about itself
def test_mlflow_reads_what_was_recorded_in_one_run_also_after_a_resume(tiny, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    flags = {**tiny, "logger": ("mlflow",)}
    interrupted(flags, tmp_path / "run", 6)
    run = train.train(TrainConfig(**flags, out_dir=str(tmp_path / "run"), resume="auto"))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run.resolve() / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("spectrain").experiment_id])
    history = client.get_metric_history(found.info.run_id, "step/loss")
    assert [(one.step, one.value) for one in history] == recorded(run, "step", "loss")
    assert found.data.params["lr"] == "0.003"


@pytest.mark.filterwarnings("default")
def test_weights_and_biases_keeps_a_run_offline(tiny, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = train.train(TrainConfig(**tiny, logger=("wandb",), out_dir=str(tmp_path / "run")))
    assert list((run / "wandb").glob("offline-run-*/run-run.wandb"))


def test_every_row_reaches_a_listener_after_it_is_written(tmp_path):
    heard, folder = [], RunFolder(tmp_path)

    def listen(kind, row):
        heard.append((kind, dict(row), (tmp_path / "metrics.jsonl").read_text("utf-8").count("\n")))

    folder.listeners.append(listen)
    folder.record("step", {"step": 1, "loss": float("nan")})
    assert heard[0][0] == "step"
    assert heard[0][2] == 1
    assert loggers.figures(*heard[0][:2]) == {"step/step": 1.0}


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_a_missing_package_is_named_with_its_extra_before_anything_is_written(name, tiny, tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == name else there(n))
    with pytest.raises(ValueError, match=rf"--logger {name} needs .*'spectrain\[{name}\]'"):
        train.train(TrainConfig(**tiny, logger=(name,), out_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_unknown_logger_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="--logger must be one of tensorboard, wandb, mlflow, got 'tb'"):
        train.train(TrainConfig(**tiny, logger=("tb",), out_dir=str(tmp_path / "run")))
