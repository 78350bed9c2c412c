"""Before the first step: the run folder, every open choice, the session; or all of it back from a checkpoint."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from spectrain import optim
from spectrain._files.read import read_object
from spectrain._files.write import write_json
from spectrain.train._mesh.join import here
from spectrain.train._mesh.ranks import ALONE
from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run import machine as _machine
from spectrain.train._run import recorded as _recorded
from spectrain.train._run import tie as _tie
from spectrain.train._run.config import RunConfig
from spectrain.train._run.first_weights import check_bound
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.horizon import check_source, keep_norms, known_steps, short_peak
from spectrain.train._run.job import load_job
from spectrain.train._run.jobs import job_class
from spectrain.train._run.machine import choose_device
from spectrain.train._run.optimizer import polynomials
from spectrain.train._run.progress import Progress
from spectrain.train._run.session import Session, build
from spectrain.train._run.updates import muon_schedule


def prepare(wanted: RunConfig, screen: Progress, *, given: Any = None) -> Session:
    """Open the claimed run folder, decide what is open, build everything; restore where there is something to.

    ``given``: what the caller gave to be trained, where the configuration does not say all.
    """
    ranks = here() or ALONE
    full, resuming = ranks.by_first(lambda: open_folder(wanted)[1:])
    folder = RunFolder(Path(wanted.out_dir), follows=not ranks.first)
    ranks.by_all(lambda: None if ranks.alone else full.check_ranks(ranks.layout))
    if full.threads:
        torch.set_num_threads(full.threads)
    screen.say(f"run folder: {folder.path}")
    if not ranks.alone:
        screen.say(f"ranks: {ranks.world}, {ranks.layout}")
    start = time.perf_counter()
    job = load_job(full, folder, resuming=resuming, ranks=ranks, given=given)
    for line in job.about_data():
        screen.say(line)
    screen.say(f"read in {time.perf_counter() - start:.1f} s")
    why: list[str] = []
    if not resuming:
        full, why = ranks.by_first(lambda: decide(full))
        for line in why:
            screen.say(f"  {line}")
    session = ranks.by_all(lambda: build(full, folder, job))
    if not resuming:
        check_bound(session.optimizer, full.bound, ranks)
    ranks.by_first(lambda: _describe(session, screen))
    if resuming:
        _restore(session, screen)
    elif ranks.first:
        job.keep(folder)
        keep_norms(full, folder)
        write_json(folder.environment, {**_machine.describe(), "choices": why, "data": job.fingerprint})
        _recorded.write(full, folder.config)  # last: a folder is a run once everything that could be refused was not
    return session


def open_folder(wanted: RunConfig) -> tuple[RunFolder, RunConfig, bool]:
    """The run folder, the configuration that holds, and whether a run in it goes on.

    The folder is claimed by who calls. Raises ``ValueError`` when it already holds a run that was not to be resumed,
    or one whose ``config.json`` is gone, or is not what its weights were trained with.
    """
    folder = RunFolder(Path(wanted.out_dir))
    if folder.config.exists():
        if wanted.resume != "auto":
            raise ValueError(
                f"{folder.path} already holds a run. Give --resume auto to go on with it, or another --out-dir."
            )
        recorded = _recorded.resumed(_recorded.read_config(folder.config, type(wanted)), wanted)
        _tie.check(folder)
        return folder, recorded, True
    _tie.check_unused(folder)
    check_source(wanted)
    return folder, job_class(wanted.job).begun(wanted), False


def decide(wanted: RunConfig) -> tuple[RunConfig, list[str]]:
    """Fill in what the dial and the machine decide; return the reasons as well."""
    full, why = wanted.derive()
    full = dataclasses.replace(full, horizon=known_steps(full))
    short = short_peak(full)
    full.require(short is None, "decay_estimate", f"at most {short}, the steps of this run at its peak rate")
    full, measured = measure(full)
    return full, why + measured


def measure(full: RunConfig) -> tuple[RunConfig, list[str]]:
    """Fill in what only this machine can tell: threads and precisions; return the reasons as well."""
    model, muon = full.products()
    device = torch.device(choose_device(full.device))
    found: dict[str, object] = {"device": str(device)}
    why: list[str] = []
    if full.threads is None:
        found["threads"] = torch.get_num_threads()
        why.append(f"threads = {found['threads']}: as many as torch takes here")
    if full.autocast == "auto":
        dtype, reason = _machine.choose_dtype(*model, device=device)
        found["autocast"] = "bfloat16" if dtype == "bfloat16" else "off"
        why.append(f"autocast = {found['autocast']}: {reason}")
    if full.muon_dtype == "auto":
        dtype, reason = _machine.choose_dtype(muon[1], muon[1], muon[2], batch=muon[0], device=device)
        found["muon_dtype"] = dtype
        why.append(f"muon_dtype = {dtype}: {reason}")
    return dataclasses.replace(full, **found), why  # type: ignore[arg-type]


def _restore(session: Session, screen: Progress) -> None:
    newest = session.job.ranks.by_first(lambda: _newest(session))
    if newest is None:
        screen.say("no checkpoint yet: starting again with the recorded choices")
        return
    other = session.restore(newest)
    screen.say(f"resumed from {newest.path} at step {session.counters.step}")
    if other is not None:
        screen.say(other)


def _newest(session: Session) -> _checkpoint.Checkpoint | None:
    """The checkpoint to go on from; None where there is none yet, and then nothing of what was recorded stays."""
    recorded = read_object(session.folder.environment, what="the environment.json of this run")
    _check_same_data(session.job.fingerprint, recorded.get("data", recorded.get("text")))
    checkpoints = _checkpoint.every(session.folder.checkpoints)
    if not checkpoints and session.folder.model.exists():
        raise ValueError(
            f"{session.folder.path} holds a finished run without checkpoints: there is nothing to go on with. "
            "Start a new run in another --out-dir."
        )
    if not checkpoints:
        session.folder.cut({})
    return checkpoints[-1] if checkpoints else None


def _check_same_data(found: str, recorded: object) -> None:
    """Refuse to resume on other data: batch t would no longer be what it was."""
    if found != recorded:
        raise ValueError(
            f"the data is not what this run was started on (digest {found}, recorded {recorded}): "
            "a file was added, removed or changed, or the tokenizer was replaced. "
            "Restore it, or start a new run in another --out-dir."
        )


def _describe(session: Session, screen: Progress) -> None:
    if isinstance(session.optimizer, optim.Muon):
        rows = session.optimizer.rows
        write_json(session.folder.polynomials, polynomials(muon_schedule(session.config), name="Muon's matrix sign"))
    else:
        scaled = session.job.parametrisation()
        rows = _routing_rows(session) if scaled is None else scaled.rows("adamw")
    frozen = {name for name, p in session.model.named_parameters() if not p.requires_grad}
    rows = [_frozen(row) if row["name"] in frozen else row for row in rows]
    write_json(session.folder.routing, rows)
    by_algorithm: dict[str, int] = {}
    sizes = {name: p.numel() for name, p in session.model.named_parameters()}
    for row in rows:
        by_algorithm[str(row["algorithm"])] = by_algorithm.get(str(row["algorithm"]), 0) + sizes.get(
            str(row["name"]), 0
        )
    parts = ", ".join(
        f"{count:,} {'' if name == _FROZEN else 'by '}{name}" for name, count in sorted(by_algorithm.items())
    )
    total = sum(sizes.values())
    screen.say(f"model: {total:,} parameters ({parts}); {session.job.cost()}")


_FROZEN = "frozen"
"""In place of an algorithm, of a parameter that none moves."""


def _frozen(row: dict[str, object]) -> dict[str, object]:
    """What there is to say of a parameter that no algorithm moves, whichever its module would send it to."""
    return {"name": row["name"], "shape": row["shape"], "algorithm": _FROZEN, "reason": "asks for no gradient"}


def _routing_rows(session: Session) -> list[dict[str, object]]:
    """Which algorithm moves each parameter under an optimizer that does not say so itself."""
    chosen, matrices, rates = session.config.optimizer, session.job.matrices(), session.job.rates()
    return [
        {
            "name": name,
            "shape": list(p.shape),
            "algorithm": chosen if p in matrices else "adamw",
            "lr_factor": rates.get(p, 1.0),
            "reason": f"--optimizer {chosen}" if p in matrices else "no matrix inside of a block",
        }
        for name, p in session.model.named_parameters()
    ]
