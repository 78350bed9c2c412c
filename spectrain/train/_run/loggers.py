"""What else hears a run's metrics, besides ``metrics.jsonl``: one line for each ``--logger``.

A logger is a function of the run folder, the configuration and the first step that is to come, whose result takes each
row as it is recorded and is closed at the end. Its package is loaded when it is made.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any, Protocol

from spectrain.train._run.config import RunConfig
from spectrain.train._run.folder import RunFolder


class Logger(Protocol):
    """Hears rows as they are recorded."""

    def __call__(self, kind: str, row: Mapping[str, object]) -> None:
        """Take a row of ``metrics.jsonl``."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


KINDS = ("step", "eval")
"""Rows that are curves; spectra and activations have a report."""


def check(name: str) -> None:
    """Refuse what is no logger, or lacks its package, with the cure."""
    if name not in LOGGERS:
        raise ValueError(f"--logger must be one of {', '.join(LOGGERS)}, got {name!r}.")
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"--logger {name} needs {name}; pip install 'spectrain[{name}]'.")


@contextlib.contextmanager
def listening(config: RunConfig, folder: RunFolder, *, step: int) -> Iterator[None]:
    """Let the loggers of ``config`` hear what is recorded in ``folder``, from ``step`` on; close them at the end."""
    with contextlib.ExitStack() as stack:
        for name in config.logger:
            logger = LOGGERS[name](config, folder, step)
            stack.callback(logger.close)
            folder.listeners.append(logger)
            stack.callback(folder.listeners.remove, logger)
        yield


def figures(kind: str, row: Mapping[str, object]) -> dict[str, float]:
    """The finite numbers of a row by their names, those that are lists or text left out.

    >>> figures("eval", {"step": 3, "loss": 2.5, "bits_per_byte": None, "words": "x"})
    {'eval/step': 3.0, 'eval/loss': 2.5}
    """
    return {f"{kind}/{name}": float(v) for name, v in row.items() if isinstance(v, Real) and v == v}


class TensorBoard:
    """Scalars in the run's folder ``tensorboard``; what a run that goes on repeats is purged."""

    def __init__(self, config: RunConfig, folder: RunFolder, step: int) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(str(folder.path / "tensorboard"), purge_step=step + 1 if step else None)

    def __call__(self, kind: str, row: Mapping[str, object]) -> None:
        """Write the figures of a row."""
        if kind in KINDS:
            for name, value in figures(kind, row).items():
                self._writer.add_scalar(name, value, int(str(row["step"])))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases in the run's folder, offline unless ``WANDB_MODE`` says otherwise."""

    def __init__(self, config: RunConfig, folder: RunFolder, step: int) -> None:
        wandb = importlib.import_module("wandb")
        self._run: Any = wandb.init(
            project="spectrain",
            name=folder.path.name,
            id=folder.path.name,
            resume="allow",
            dir=str(folder.path),
            config=dataclasses.asdict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def __call__(self, kind: str, row: Mapping[str, object]) -> None:
        """Log the figures of a row at its step."""
        if kind in KINDS:
            self._run.log(figures(kind, row), step=int(str(row["step"])))

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow, where ``MLFLOW_TRACKING_URI`` says, else in a file of the run's folder."""

    def __init__(self, config: RunConfig, folder: RunFolder, step: int) -> None:
        mlflow = importlib.import_module("mlflow")
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.path.resolve() / 'mlflow.db'}")
        self._client: Any = mlflow.MlflowClient(tracking_uri=uri)
        name = str(folder.path.resolve())
        found = self._client.get_experiment_by_name("spectrain")
        experiment = found.experiment_id if found else self._client.create_experiment("spectrain")
        query = f"attributes.run_name = '{folder.path.name}' and tags.folder = '{name}'"
        before = self._client.search_runs([experiment], query)
        run = (
            before[0]
            if before
            else self._client.create_run(experiment, run_name=folder.path.name, tags={"folder": name})
        )
        self._id = run.info.run_id
        if not before:
            for key, value in dataclasses.asdict(config).items():
                self._client.log_param(self._id, key, str(value)[:500])

    def __call__(self, kind: str, row: Mapping[str, object]) -> None:
        """Log the figures of a row at its step."""
        if kind in KINDS:
            for name, value in figures(kind, row).items():
                self._client.log_metric(self._id, name, value, step=int(str(row["step"])))

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)


LOGGERS: dict[str, Callable[[RunConfig, RunFolder, int], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""By the value of ``--logger``, which is the name of the package and of the extra as well."""
