"""Functions of the caller's that hear of steps, validations and checkpoints: one more listener beside the loggers."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from spectrain.train._run.session import Session

Callback = Callable[["Moment"], object]
"""What is called with a :class:`Moment`; what it returns is not looked at."""


class CallbackError(RuntimeError):
    """A callback raised; the message says which, after which step, and what. The cause is its own error."""


@dataclass(frozen=True)
class Moment:
    """What a callback is told. It holds no weights, so that nobody changes them in passing.

    ``figures`` is the row of ``metrics.jsonl``: of a step ``loss``, ``lr``, ``grad_norm``, times and what the job
    counts; of a validation ``loss`` and what the job judges. A checkpoint is a folder with ``model.safetensors``.

    >>> Moment(step=3, steps=10, folder=Path("run"), figures={"loss": 2.5}).figures["loss"]
    2.5
    """

    step: int
    """Optimizer steps done."""
    steps: int | None
    """Those of the whole run; None while a clock has still to tell."""
    folder: Path
    """The run folder."""
    figures: Mapping[str, object]
    """By name; read only, and empty for a checkpoint."""
    checkpoint: Path | None = None
    """The folder of the checkpoint, where it is one."""


@contextlib.contextmanager
def called(session: Session, **callbacks: Callback | None) -> Iterator[None]:
    """Call ``on_step``, ``on_eval`` and ``on_checkpoint`` after the rows and checkpoints that they are named for.

    A row is on the disk before it is heard. torch's global generators are put back after each call, so that what a
    callback draws changes no bit of the run. Whatever else it raises becomes a :class:`CallbackError`.
    """
    wanted = {name.removeprefix("on_"): call for name, call in callbacks.items() if call is not None}
    devices = [session.job.device] if session.job.device.type == "cuda" else []

    def hear(kind: str, row: Mapping[str, object]) -> None:
        if kind not in wanted:
            return
        figures = {name: value for name, value in row.items() if name not in ("step", "path")}
        step, path = int(str(row["step"])), row.get("path")
        place = None if path is None else Path(str(path))
        moment = Moment(step, session.steps, session.folder.path, MappingProxyType(figures), place)
        with torch.random.fork_rng(devices=devices):
            try:
                wanted[kind](moment)
            except Exception as error:
                raise CallbackError(f"on_{kind} after step {step}: {type(error).__name__}: {error}") from error

    session.folder.listeners.append(hear)
    try:
        yield
    finally:
        session.folder.listeners.remove(hear)
