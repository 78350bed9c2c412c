"""What a run writes down about itself besides its steps: validations, spectra, samples, the summary."""

import copy
import math
from pathlib import Path

import safetensors.torch
from torch import Tensor

from spectrain import optim
from spectrain._files.write import write_file, write_json
from spectrain.train._mesh import whole
from spectrain.train._mesh.failing import shared
from spectrain.train._run import machine, tie
from spectrain.train._run.horizon import CALIBRATION, by_clock
from spectrain.train._run.progress import Progress
from spectrain.train._run.session import Session


def validate(session: Session, screen: Progress) -> None:
    """Judge the model on part of the held-out data and record it."""
    judged = session.job.validate(whole=False)
    counters = session.counters
    row = {"step": counters.step, **counters.seen, "loss": judged.loss, **judged.figures, "seconds": session.seconds}
    session.folder.record("eval", row)
    if not math.isfinite(judged.loss):
        bad = session.job.first_bad_tensor(max(0, counters.step - 1))
        raise shared(FloatingPointError(f"validation after step {counters.step}: {bad}"))
    screen.say(f"  validation at step {counters.step}: {judged.words}")


def record_spectra(session: Session) -> None:
    """Record the singular values of weights, momenta and updates, before the next step clears the gradients.

    And what passes between the weights: the job's statistics of activations.
    """
    job = session.job
    names, rules, heads = job.watch_list(), job.rules(), job.heads()
    try:
        rows = optim.spectra(session.model, session.optimizer, names=names, rules=rules, heads=heads)
    except FloatingPointError as error:
        raise shared(FloatingPointError(f"spectra after step {session.counters.step}: {error}")) from None
    for row in rows:
        session.folder.record("spectrum", {"step": session.counters.step, **row})
    for row in session.job.activations():
        session.folder.record("activation", {"step": session.counters.step, **row})


def ends_a_quarter(session: Session) -> bool:
    """Whether this step ends a quarter of the run."""
    steps = session.steps
    step = session.counters.step
    if steps is None or step == steps or (by_clock(session.config) and step < CALIBRATION):
        return False  # before a clock has fixed the steps nobody knows where the quarters are, on a resume neither
    return any(step == max(1, steps * q // 4) for q in (1, 2, 3))


def finish(session: Session, screen: Progress) -> Path:
    """Judge the model on all held-out data, write samples, weights and summary."""
    folder, counters, job = session.folder, session.counters, session.job
    judged = job.validate(whole=True)
    job.sample(folder, step=counters.step)
    # Weights before the summary: a folder with a summary is a finished run, whenever the kill comes.
    _write_weights(session)
    _write_average(session)
    if not job.ranks.first:
        return folder.path
    job.leave(folder)
    row, lines = job.summary(judged, steps=counters.step)
    summary = {
        **row,
        "optimizer": session.config.optimizer,
        "config_digest": tie.digest(folder.config),
        "parameters": sum(p.numel() for p in session.model.parameters()),
        "steps": counters.step,
        **counters.seen,
        "seconds": session.seconds,
        **{f"{name}_per_second": count / max(1e-9, session.seconds) for name, count in counters.seen.items()},
        "optimizer_share": counters.optimizer_seconds / max(1e-9, session.seconds),
        "data_share": counters.data_seconds / max(1e-9, session.seconds),
        "peak_memory_bytes": machine.peak_memory_bytes(),
        **({} if job.ranks.alone else {"ranks": job.ranks.world, "mesh": str(job.ranks.layout)}),
    }
    write_json(folder.summary, summary)
    for line in (f"validation on all {judged.words}", *lines):
        screen.say(line)
    unit, count = next(iter(counters.seen.items()))
    share = f"{100 * counters.optimizer_seconds / session.seconds:.0f} %"
    waited = f"{100 * counters.data_seconds / session.seconds:.2g} % waiting for batches"
    screen.say(f"{count:,} {unit} in {session.seconds:.0f} s, {share} of it in the optimizer, {waited}")
    return folder.path


def _write_weights(session: Session) -> None:
    """All weights in one file."""
    if session.job.ranks.alone:
        write_file(session.folder.model, lambda file: safetensors.torch.save_model(session.model, str(file)))
    else:
        _write_gathered(session, session.folder.model, None)


def _write_average(session: Session) -> None:
    """The job's averaged weights, where it has any, as a file like that of the weights themselves."""
    averaged = session.job.averaged()
    if averaged is None:
        return
    if not session.job.ranks.alone:
        _write_gathered(session, session.folder.average, averaged)
        return
    model = copy.deepcopy(session.model)
    model.load_state_dict(averaged)
    write_file(session.folder.average, lambda temporary: safetensors.torch.save_model(model, str(temporary)))


def _write_gathered(session: Session, file: Path, weights: dict[str, Tensor] | None) -> None:
    """The first of several ranks writes what every one of them helps to gather."""
    if session.job.ranks.first:
        write_file(file, lambda temporary: whole.write_model(temporary, session.model, weights=weights))
    else:
        whole.write_model(None, session.model, weights=weights)
