"""muP as a test: a family of models that differ in width, real steps, and a verdict that names what to blame."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from spectrain import optim
from spectrain._files.write import write_json
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run.claim import claimed
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.loop import step
from spectrain.train._run.machine import choose_device
from spectrain.train._run.progress import Progress
from spectrain.train._run.session import Session, build
from spectrain.train._studies.check_config import CheckConfig
from spectrain.train._studies.measure import Member, Row, measure
from spectrain.train._studies.verdict import KINDS, judge, suspect

What: TypeAlias = Literal["coordinates", "spectrum"]


class Family:
    """Sessions of every width and seed of a :class:`CheckConfig`; nothing is written."""

    def __init__(self, config: CheckConfig) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = dataclasses.replace(config, device=choose_device(config.device))
        self._jobs: dict[int, LanguageJob] = {}

    def session(self, width: int, seed: int, *, lr: float | None = None) -> Session:
        """A model at its initial weights with its optimizer and batches."""
        member, folder = self.config.member(width, seed, lr=lr), RunFolder(Path())
        if seed not in self._jobs:
            self._jobs[seed] = LanguageJob(member, folder, resuming=False)
        return build(member, folder, self._jobs[seed])


def advance(session: Session) -> float:
    """One optimizer step; return the mean loss of its batch, before it.

    Raises FloatingPointError where numbers are no longer finite.
    """
    session.set_learning_rate()
    result = step(session.job, session.optimizer, session.counters.step, clip=session.clip_gradients)
    session.job.after_step(session.lr_factor)
    session.counters.step += 1
    return result.measured.loss


def check(
    make: Callable[[int, int], Member],
    *,
    widths: Sequence[int],
    what: What | tuple[What, ...] = ("coordinates", "spectrum"),
    seeds: Sequence[int] = (0,),
    steps: int = 10,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train ``make(width, seed)`` for some steps at every width; judge what must not change with it.

    ``make`` returns a :class:`Member`: model, optimizer, ``backward(i)`` and ``optim.mup(model)``, whose roles say what
    is hidden, input and output (its rates need not be those of the optimizer: they are what is checked). Every width
    gets the same batches. ``"coordinates"``: mean absolute outputs at the start and after the steps, their change, and
    what attention's logits can reach. ``"spectrum"``: spectral norms of weights and updates over sqrt(out / in). Both:
    weight decay as it acts, which outputs do not show (mup #73).

    Returns ``ok``, ``judged`` (see ``_verdict.judge``), ``suspect`` (None, or the row to begin with) and ``rows``.
    Article 10795, kexue.fm/archives/10795. Cost: the steps, and an SVD of each hidden matrix and step.
    """
    rows: list[Row] = []
    order: list[str] = []
    for width in widths:
        for seed in seeds:
            member = make(width, seed)
            found = measure(member, steps=steps)
            order = order or _order(member)
            heads = _heads(member)
            rows += [
                {"role": "output" if row["name"] in heads else "", **row, "width": width, "seed": seed} for row in found
            ]
        if progress is not None:
            progress.say(f"width {width}: {steps} steps, {len(seeds)} seeds")
    asked = (what,) if isinstance(what, str) else what
    kinds = tuple(dict.fromkeys(kind for name in asked for kind in KINDS[name]))
    judged = judge(rows, kinds)
    return {
        "ok": all(row["ok"] for row in judged),
        "judged": judged,
        "suspect": suspect(judged, order),
        "rows": [row for row in rows if row["kind"] in kinds],
    }


def _heads(member: Member) -> set[str]:
    """Names of the modules that write the answer, also with the weights of an embedding."""
    ends = {part.param for part in member.parts.parts if part.role in ("output", "tied")}
    held = ((name, module) for name, module in member.model.named_modules() if not isinstance(module, nn.Embedding))
    return {name for name, module in held if ends & set(module.parameters(recurse=False))}


def _order(member: Member) -> list[str]:
    """Names of modules and parameters in the order of the model."""
    return [name for module, m in member.model.named_modules() for name in (module, *_own(module, m))]


def _own(prefix: str, module: Any) -> list[str]:
    return [f"{prefix}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)]


def check_config(config: CheckConfig, what: What, *, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Check the language model of ``spectrain train`` as a configuration says; write ``check.json`` into ``folder``.

    All matrices are drawn, also those that ``spectrain train`` begins with at zero, so that every output is seen.
    """
    with claimed(folder):
        return _check_and_write(config, what, folder, progress)


def _check_and_write(config: CheckConfig, what: What, folder: Path, progress: Progress | None) -> dict[str, Any]:
    family = Family(config)
    found = check(
        lambda width, seed: member_of(family, width, seed),
        widths=config.widths,
        what=what,
        seeds=config.seeds,
        steps=config.steps,
        progress=progress,
    )
    result = {"kind": what, "config": dataclasses.asdict(config), **found}
    write_json(folder / "check.json", json.loads(json.dumps(result), parse_constant=lambda _: None))
    return result


def member_of(family: Family, width: int, seed: int) -> Member:
    """The member of one width and seed, with every matrix drawn by the parametrisation that is checked."""
    session = family.session(width, seed)
    parts = optim.mup(session.model, base_width=family.config.base_width)
    drawn = parts if family.config.parametrisation == "mup" else parts.standard()
    drawn.initialise(generator=seed, keep_zeros=False)

    def backward(i: int) -> object:
        session.job.accumulate(i)
        return session.clip_gradients()

    return Member(session.model, session.optimizer, backward, parts)
