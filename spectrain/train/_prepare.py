"""Before the first step: the run folder, every open choice, the session; or all of it back from a checkpoint."""

import dataclasses
import json
import os
import time
from pathlib import Path

import torch

from spectrain import optim
from spectrain.train import _checkpoint, _machine, _text, config
from spectrain.train._atomic import write_file, write_json
from spectrain.train._folder import RunFolder
from spectrain.train._horizon import known_steps
from spectrain.train._polynomials import polynomials
from spectrain.train._progress import Progress
from spectrain.train._session import Session, build, choose_device, muon_schedule
from spectrain.train.config import TrainConfig


def prepare(wanted: TrainConfig, screen: Progress) -> Session:
    """Open the run folder, decide what is open, build everything; restore where there is something to."""
    folder, full, resuming = open_folder(wanted)
    if full.threads:
        torch.set_num_threads(full.threads)
    screen.say(f"run folder: {folder.path}")
    start = time.perf_counter()
    text = _text.load(full, tokenizer_file=folder.tokenizer if resuming else None)
    _say_text(text, screen, seconds=time.perf_counter() - start)
    why: list[str] = []
    if not resuming:
        full, why = decide(full)
        for line in why:
            screen.say(f"  {line}")
    session = build(full, folder, text)
    _describe(session, screen)
    if resuming:
        _restore(session, screen)
    else:
        write_file(folder.tokenizer, text.tokenizer.save)
        write_json(folder.environment, {**_machine.describe(), "choices": why, "text": text.fingerprint})
        config.write(full, folder.config)  # last: a folder is a run once everything that could be refused was not
    return session


def open_folder(wanted: TrainConfig) -> tuple[RunFolder, TrainConfig, bool]:
    """The run folder, the configuration that holds, and whether a run in it goes on.

    Raises ``ValueError`` when the folder already holds a run that was not to be resumed.
    """
    path = Path(wanted.out_dir) if wanted.out_dir else config.fresh_folder(wanted)
    folder = RunFolder(path)
    if folder.config.exists():
        if wanted.resume != "auto":
            raise ValueError(f"{path} already holds a run. Give --resume auto to go on with it, or another --out-dir.")
        return folder, config.resumed(config.read(folder.config), wanted), True
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise PermissionError(f"the run folder {path} cannot be written; choose another --out-dir")
    return folder, wanted, False


def decide(wanted: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """Fill in what the dial and the machine decide; return the reasons as well."""
    full, why = config.derive(wanted)
    full, measured = measure(full)
    return dataclasses.replace(full, horizon=known_steps(full)), why + measured


def measure(full: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """Fill in what only this machine can tell: threads and precisions; return the reasons as well."""
    assert full.width
    assert full.hidden
    device = torch.device(choose_device(full.device))
    found: dict[str, object] = {"device": str(device)}
    why: list[str] = []
    if full.threads is None:
        found["threads"] = torch.get_num_threads()
        why.append(f"threads = {found['threads']}: as many as torch takes here")
    if full.autocast == "auto":
        dtype, reason = _machine.choose_dtype(full.micro_batch * full.block, full.width, full.hidden, device=device)
        found["autocast"] = "bfloat16" if dtype == "bfloat16" else "off"
        why.append(f"autocast = {found['autocast']}: {reason}")
    if full.muon_dtype == "auto":
        dtype, reason = _machine.choose_dtype(full.width, full.width, full.width, batch=4 * full.depth, device=device)
        found["muon_dtype"] = dtype
        why.append(f"muon_dtype = {dtype}: {reason}")
    return dataclasses.replace(full, **found), why  # type: ignore[arg-type]


def _restore(session: Session, screen: Progress) -> None:
    recorded = json.loads(session.folder.environment.read_text(encoding="utf-8"))["text"]
    _text.check_same(session.text, recorded)
    checkpoints = _checkpoint.every(session.folder.checkpoints)
    if not checkpoints and session.folder.model.exists():
        raise ValueError(
            f"{session.folder.path} holds a finished run without checkpoints: there is nothing to go on with. "
            "Start a new run in another --out-dir."
        )
    _checkpoint.sweep(session.folder.checkpoints)
    if not checkpoints:
        session.folder.cut({})
        screen.say("no checkpoint yet: starting again with the recorded choices")
        return
    session.restore(checkpoints[-1])
    screen.say(f"resumed from {checkpoints[-1].path} at step {session.counters.step}")


def _say_text(text: _text.Text, screen: Progress, *, seconds: float) -> None:
    for part, documents, size, tokens in zip(
        ("training", "validation"), text.documents, text.bytes, (text.train, text.validation), strict=True
    ):
        screen.say(f"{part} text: {documents} documents, {size:,} bytes, {len(tokens):,} tokens")
    screen.say(
        f"tokenizer: {text.tokenizer.vocabulary_size} tokens, "
        f"{text.bytes[1] / max(1, len(text.validation)):.2f} bytes a token on held-out text ({seconds:.1f} s)"
    )


def _describe(session: Session, screen: Progress) -> None:
    if isinstance(session.optimizer, optim.Muon):
        rows = session.optimizer.rows
        write_json(session.folder.polynomials, polynomials(muon_schedule(session.config), name="Muon's matrix sign"))
    else:
        rows = [
            {"name": name, "shape": list(p.shape), "algorithm": "adamw", "reason": "--optimizer adamw"}
            for name, p in session.model.named_parameters()
        ]
    write_json(session.folder.routing, rows)
    by_algorithm: dict[str, int] = {}
    sizes = {name: p.numel() for name, p in session.model.named_parameters()}
    for row in rows:
        by_algorithm[str(row["algorithm"])] = by_algorithm.get(str(row["algorithm"]), 0) + sizes.get(
            str(row["name"]), 0
        )
    parts = ", ".join(f"{count:,} by {name}" for name, count in sorted(by_algorithm.items()))
    total = sum(sizes.values())
    screen.say(f"model: {total:,} parameters ({parts}); {6 * total / 1e6:.3g} MFLOP a token")
