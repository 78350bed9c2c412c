"""The training run, top to bottom: one step, all steps with what is written in between, and what stops a run."""

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spectrain.train._mesh.failing import shared
from spectrain.train._mesh.join import here
from spectrain.train._mesh.ranks import ALONE
from spectrain.train._run import callbacks, loggers, observe, recorded
from spectrain.train._run.callbacks import Callback
from spectrain.train._run.config import RunConfig
from spectrain.train._run.horizon import CALIBRATION, short_peak, steps_by_clock
from spectrain.train._run.job import AbstractJob, Measured
from spectrain.train._run.machine import keep_memory
from spectrain.train._run.prepare import prepare
from spectrain.train._run.progress import Progress
from spectrain.train._run.repeating import repeating
from spectrain.train._run.session import Session
from spectrain.train._run.signals import StopRequest, stop_on_signals


@dataclass(frozen=True)
class StepResult:
    """What one step reports."""

    measured: Measured
    grad_norm: float
    optimizer_seconds: float


def step(job: AbstractJob[Any], optimizer: torch.optim.Optimizer, at: int, *, clip: Callable[[], float]) -> StepResult:
    """Gradients of batch ``at``, clip, update. ``clip`` clips what is to be clipped, returns the norm before.

    Raises ``FloatingPointError`` naming the first tensor that is not finite, before any weight is touched.
    """
    optimizer.zero_grad(set_to_none=True)
    measured = job.accumulate(at)
    grad_norm = clip()
    if not (math.isfinite(measured.loss) and math.isfinite(grad_norm)):
        optimizer.zero_grad(set_to_none=True)  # clipping by a norm of NaN has spoilt every gradient
        job.accumulate(at)
        raise FloatingPointError(job.first_bad_tensor(at))
    start = time.perf_counter()
    optimizer.step()
    return StepResult(measured, grad_norm, time.perf_counter() - start)


def train(
    wanted: RunConfig,
    *,
    job: Any = None,
    on_step: Callback | None = None,
    on_eval: Callback | None = None,
    on_checkpoint: Callback | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train as ``wanted`` says, whatever its job; return the run folder.

    ``job``: with a ``train.JobConfig``, the ``train.Job`` to be trained.
    ``on_step``, ``on_eval`` and ``on_checkpoint`` are called with a ``train.runs.Moment`` after each step, validation
    and checkpoint; of several ranks on the first. They change no bit of the run.

    The folder holds ``config.json``, ``environment.json``, ``metrics.jsonl``, ``routing.json``,
    ``polynomials.json``, ``checkpoints/``, what the job keeps (a language model's ``tokenizer.json``
    and ``samples.txt``), and at the end ``model.safetensors`` and ``summary.json``. With
    ``resume="auto"`` a run that was stopped or killed goes on from its newest checkpoint and ends with
    the same weights and metrics, bit for bit, as if it had not been, on the same machine and thread
    count; the times alone differ.

    Memory that a step frees is kept for the next one, to the end of the process (glibc only; see ``keep_memory``).
    The folder is held against every other process meanwhile. Raises ``FolderInUse``, an ``OSError``, where another one
    has it, ``ValueError`` for a configuration or data that cannot be used, ``OSError`` for a folder that
    cannot be written (a full disk among the reasons), ``FloatingPointError`` naming the first tensor
    that is not finite, ``CallbackError`` naming the callback that raised and the step, :class:`StopRequest` after the
    checkpoint that SIGINT or SIGTERM asked for.
    """
    keep_memory()
    with (
        recorded.in_folder(wanted) as config,
        _screen(config, progress) as screen,
        repeating(),
    ):
        for name in config.logger:
            loggers.check(name)
        session = prepare(config, screen, given=job)
        with ExitStack() as heard, stop_on_signals() as asked_to_stop:
            if session.job.ranks.first:
                heard.enter_context(loggers.listening(session.config, session.folder, step=session.counters.step))
                calls = {"on_step": on_step, "on_eval": on_eval, "on_checkpoint": on_checkpoint}
                heard.enter_context(callbacks.called(session, **calls))
            _run(session, screen, asked_to_stop)
        return observe.finish(session, screen)


@contextmanager
def _screen(config: RunConfig, progress: Progress | None) -> Iterator[Progress]:
    """What a person sees; of several ranks the first shows it."""
    ranks = here() or ALONE
    if ranks.first:
        with progress or Progress(interval=config.log_interval) as screen:
            yield screen
    else:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, Progress(stream=nowhere) as screen:
            yield screen


def _run(session: Session, screen: Progress, asked_to_stop: StopRequest) -> None:
    counters, cfg, ranks = session.counters, session.config, session.job.ranks
    if counters.step == 0:
        observe.validate(session, screen)
    while session.steps is None or counters.step < session.steps:
        _one_step(session, screen)
        if session.steps is None and counters.step == CALIBRATION:
            _fix_horizon(session, screen)
        last = counters.step == session.steps
        if counters.step % cfg.eval_interval == 0 or last:
            observe.validate(session, screen)
        if cfg.spectrum_interval and (counters.step % cfg.spectrum_interval == 0 or counters.step == 1 or last):
            observe.record_spectra(session)
        if observe.ends_a_quarter(session):
            session.job.sample(session.folder, step=counters.step)
        stop = ranks.any(bool(asked_to_stop))  # a signal reaches ranks at different moments
        # The checkpoint comes after all that this step writes: a resume cuts files back to the sizes it remembers, and
        # begins with the next step.
        if counters.step % cfg.save_interval == 0 or last or stop:
            session.save()
        if stop and not last:
            session.settle()
            raise shared(asked_to_stop.at(counters.step, session.folder.path))
    session.settle()


def _one_step(session: Session, screen: Progress) -> None:
    counters = session.counters
    began = time.perf_counter()
    lr = session.set_learning_rate()
    try:
        result = step(session.job, session.optimizer, counters.step, clip=session.clip_gradients)
    except FloatingPointError as error:
        words = f"step {counters.step + 1}: {error}. The weights were not changed."
        raise shared(FloatingPointError(words)) from None
    figures = {**result.measured.figures, **session.job.after_step(session.lr_factor)}
    seconds = time.perf_counter() - began
    counters.step += 1
    counters.add(result.measured.seen)
    counters.optimizer_seconds += result.optimizer_seconds
    counters.data_seconds += result.measured.data_seconds
    if session.steps is None:
        counters.step_seconds.append(seconds)
    unit, count = next(iter(result.measured.seen.items()))
    session.folder.record(
        "step",
        {
            "step": counters.step,
            **counters.seen,
            "loss": result.measured.loss,
            **figures,
            "lr": lr,
            "grad_norm": result.grad_norm,
            "seconds": session.seconds,
            "step_seconds": seconds,
            "optimizer_seconds": result.optimizer_seconds,
            "data_seconds": result.measured.data_seconds,
            **{f"{name}_per_second": number / seconds for name, number in result.measured.seen.items()},
        },
    )
    screen.step(
        counters.step,
        session.steps,
        f"{result.measured.words}  lr {lr:.2e}  |g| {result.grad_norm:.2f}  {count / seconds:,.0f} {unit}/s",
    )


def _fix_horizon(session: Session, screen: Progress) -> None:
    pace = statistics.median(session.counters.step_seconds[2:])
    steps = session.job.ranks.tell(steps_by_clock(session.config, step_seconds=pace, elapsed=session.seconds))
    # Written before the next checkpoint: steps that were taken are never taken again at the pace of another hour. One
    # from before goes on with this horizon, too, which is why ``tie`` lets it differ.
    session.config = dataclasses.replace(session.config, horizon=steps)
    if session.job.ranks.first:
        recorded.write(session.config, session.folder.config)
    screen.say(
        f"  horizon = {steps} steps: --max-minutes {session.config.max_minutes:g} at {pace:.2f} s a step, "
        f"measured over {CALIBRATION} steps"
    )
    if (short := short_peak(session.config)) is not None:
        screen.say(f"  no --decay-estimate is judged: it needs more than the {short} steps at the peak rate")
