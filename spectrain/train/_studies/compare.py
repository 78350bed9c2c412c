"""The same model, text and batches under several optimizers: how many tokens does each need?"""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectrain._files.read import NOT_FINITE, read_object, read_rows
from spectrain._files.write import write_json
from spectrain.train._run import recorded as _recorded
from spectrain.train._run.claim import claimed
from spectrain.train._run.config import under
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.loop import train
from spectrain.train._run.prepare import measure
from spectrain.train._run.progress import Progress
from spectrain.train._studies.descent import Found, Ladder, Point, coordinate_descent
from spectrain.train._studies.ratio import YARDSTICK, Curve, Row, summarise
from spectrain.train._studies.settings import (
    SHORT,
    check_once,
    check_tunable,
    check_used,
    free_rates,
    hold_the_rest,
    ladders,
    start,
)
from spectrain.train.config import EVERY_TOKEN, TrainConfig

DEFAULT_STEPS = 400
BASE = "base.json"
"""In the folder of a comparison: what all of its runs share."""
_MEASURED = ("device", "threads", "autocast", "muon_dtype")


def compare(
    base: TrainConfig,
    *,
    grid: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    folder: Path,
    tune: int = 0,
    points: Mapping[str, Point] | None = None,
    settings: Sequence[str] | None = None,
    controlled: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train every optimizer on the same text, weights and batches; report tokens to the best AdamW loss.

    ``grid``: learning rates of the matrices for each optimizer, at the settings of ``base``. With ``tune`` they are
    not used: each optimizer is tuned on the first seed by coordinate descent, in at most so many runs, the same for
    each, over the rates of matrices, embedding and head, warm-up, decay, last rate, and betas or momentum; it begins
    at the defaults, or at its one of ``points``, whose other settings stay where only ``settings`` are tuned. Two
    tables follow on all seeds. ``best``: each as it was tuned.
    ``controlled``: what moves the matrices is the only difference. All else has AdamW's tuned settings, down to the
    rates of embedding, head and gains; each optimizer's own rate of the matrices is tuned for that, in at most
    ``controlled`` runs (None: ``tune``); of one run it is the rate of ``best``.

    Every validation reads what the last one does, so that one measure tunes, sets the target and is followed to it.
    Each table is that of :func:`~spectrain.train._studies.ratio.summarise`. ``tuned`` says where each descent ended,
    after how many runs, and which settings stand at the edge of what was tried. ``horizon`` is the length of every
    run, without which no ratio means anything. Written to ``compare.json`` in ``folder``, one run folder each beside
    it; finished runs found there are kept, unfinished ones resumed.

    Raises ``ValueError`` when AdamW, the yardstick, is not among the optimizers, for runs of no fixed length, for a
    budget too small to try each setting once, for settings that are not tuned or that ``base`` fixes, for a seed
    or a rate that stands twice, and for a setting of ``base`` that every one of the optimizers would drop; what only
    some have not is left at its default for those.
    """
    if YARDSTICK not in grid:
        raise ValueError(f"compare measures against AdamW; add adamw to --optimizers {' '.join(grid)}.")
    if base.max_minutes is not None:
        raise ValueError("compare needs runs of one length: give --max-steps or --max-tokens, not --max-minutes.")
    if base.max_steps is None and base.max_tokens is None:
        base = dataclasses.replace(base, max_steps=DEFAULT_STEPS)
    base = dataclasses.replace(base, eval_tokens=EVERY_TOKEN)
    if tune:
        if base.parametrisation == "mup":
            raise ValueError(
                "--tune must be left out with --parametrisation mup: with the rate of the matrices all others move, so "
                "that nothing is controlled. Give --lr RATE... for a grid."
            )
        check_tunable(grid, base, settings)
    check_once("--seeds", seeds)
    check_used(grid, base)
    for optimizer, rates in grid.items():  # what is wrong is said now, not when its turn comes
        check_once("--lr", rates)
        for rate in rates:
            under(optimizer, base, lr=rate)
        if tune and tune <= len(tuned := ladders(optimizer, base, settings)):
            least = 1 + len(tuned)
            raise ValueError(f"--tune {tune} does not try each setting of {optimizer} once; give at least {least}.")
    for seed in seeds:
        dataclasses.replace(base, seed=seed)
    with claimed(folder), begun(folder):
        runs = Runs(with_fixed_choices(base, folder / BASE), folder, progress)
        budgets = (tune, tune if controlled is None else controlled)
        found = _tune(runs, grid, seeds, budgets, points or {}, settings) if tune else _sweep(runs, grid, seeds)
        result = {"horizon": min(base.limits()), "rows": list(runs.rows.values()), **found}
        write_json(folder / "compare.json", json.loads(json.dumps(result), parse_constant=lambda _: None))
        return result


class Runs:
    """The runs of a comparison in its folder, each trained once."""

    def __init__(self, base: TrainConfig, folder: Path, progress: Progress | None, *, prefix: str = "") -> None:
        self.base, self.folder, self.progress, self.prefix = base, folder, progress, prefix
        self.rows: dict[str, Row] = {}

    def row(self, optimizer: str, point: Point, seed: int) -> Row:
        """What a run came to; trained, resumed or read."""
        name = self.prefix + _name(optimizer, point, self.base, seed)
        if name not in self.rows:
            where = self.folder / name
            one = under(optimizer, self.base, seed=seed, out_dir=str(where), resume="auto", **point)
            self.rows[name] = {"optimizer": optimizer, **point, "seed": seed, **run_or_read(one, where, self.progress)}
        return self.rows[name]

    def tune(
        self,
        optimizer: str,
        ladders: Mapping[str, Ladder],
        start: Point,
        *,
        seed: int,
        budget: int,
        place: Callable[[Point], Point] = dict,
    ) -> Found:
        """Descend on ladders to the least final loss; ``place`` makes the settings of a run of a point on them."""
        return coordinate_descent(
            lambda at: float(self.row(optimizer, place(at), seed)["final_loss"]),
            ladders=ladders, start=start, budget=budget,
        )  # fmt: skip

    def table(self, points: Mapping[str, Sequence[Point]], seeds: Sequence[int]) -> dict[str, Any]:
        """Every optimizer at its points on all seeds."""
        rows = [self.row(name, point, seed) for seed in seeds for name, those in points.items() for point in those]
        found = summarise(rows, curves={row["run"]: curve(self.folder / row["run"]) for row in rows})
        return {"runs": [row["run"] for row in rows], **found}


def _sweep(runs: Runs, grid: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> dict[str, Any]:
    points = {name: [{"lr": rate} for rate in rates] for name, rates in grid.items()}
    return {"tables": {"swept": runs.table(points, seeds)}}


def _tune(
    runs: Runs,
    optimizers: Mapping[str, Any],
    seeds: Sequence[int],
    budgets: tuple[int, int],
    points: Mapping[str, Point],
    settings: Sequence[str] | None,
) -> dict[str, Any]:
    (budget, for_one_rate) = budgets
    found: dict[str, Found] = {}
    for name in optimizers:
        begin = {**start(name, runs.base), **points.get(name, {})}
        found[name] = runs.tune(name, ladders(name, runs.base, settings), begin, seed=seeds[0], budget=budget)
    yardstick = found[YARDSTICK].point

    def place(at: Point) -> Point:
        return hold_the_rest(yardstick, at["lr"], free_rates(runs.base))

    alone = {YARDSTICK: yardstick}
    for name in optimizers:
        if name != YARDSTICK:
            rates, at = {"lr": Ladder((1.0,), factor=2.0)}, {"lr": found[name].point["lr"]}
            if for_one_rate > 1:
                at = runs.tune(name, rates, at, seed=seeds[0], budget=for_one_rate, place=place).point
            alone[name] = place(at)
    return {
        "tuned": {name: dataclasses.asdict(ended) for name, ended in found.items()},
        "tables": {
            "controlled": runs.table({name: [point] for name, point in alone.items()}, seeds),
            "best": runs.table({name: [ended.point] for name, ended in found.items()}, seeds),
        },
    }


def _name(optimizer: str, point: Point, base: TrainConfig, seed: int) -> str:
    """The folder of a run: what it was given, where that is not what all runs share."""
    said = [f"{SHORT[k]}{v:g}" for k, v in point.items() if k == "lr" or v != getattr(base, k)]
    return "-".join([optimizer, *said, f"seed{seed}"])


@contextmanager
def begun(folder: Path) -> Iterator[None]:
    """Inside, a comparison begins or goes on: where it ends before any of its runs has begun, nothing stays fixed."""
    there = (folder / BASE).exists()
    try:
        yield
    except BaseException:
        if not there and not any(folder.glob("*/config.json")):
            (folder / BASE).unlink(missing_ok=True)
        raise


def with_fixed_choices(base: TrainConfig, file: Path) -> TrainConfig:
    """Measure once for all runs, and keep the choices for when the comparison goes on.

    Raises ``ValueError`` when the folder holds a comparison of another configuration.
    """
    full, _ = base.derive()
    if file.exists():
        recorded = _recorded.read_config(file, TrainConfig)
        fixed = {name: getattr(recorded, name) for name in _MEASURED}
        _recorded.check_same(recorded, dataclasses.replace(full, **fixed))
    else:
        measured, _ = measure(full)
        fixed = {name: getattr(measured, name) for name in _MEASURED}
        file.parent.mkdir(parents=True, exist_ok=True)
        _recorded.write(measured, file)
    return dataclasses.replace(base, **fixed)


def run_or_read(one: TrainConfig, run: Path, progress: Progress | None) -> Row:
    """Train, or take what a finished run wrote; a run whose numbers went bad counts as infinite loss."""
    try:
        if not RunFolder(run).summary.exists():
            train(one, progress=progress)
    except FloatingPointError as error:
        return {"run": run.name, "final_loss": math.inf, "final_bits_per_byte": math.inf, "tokens": 0,
                "seconds": 0.0, "optimizer_share": 0.0, "diverged": str(error)}  # fmt: skip
    summary = read_object(RunFolder(run).summary, what="the summary.json of this run", constants=NOT_FINITE)
    return {
        "run": run.name,
        "final_loss": summary["validation_loss"],
        "final_bits_per_byte": summary["bits_per_byte"],
        "tokens": summary["tokens"],
        "seconds": summary["seconds"],
        "step_seconds": _pace(run),
        "optimizer_share": summary["optimizer_share"],
    }


def _pace(run: Path) -> float | None:
    """The median time of a step, which validations, compilation and short loads of the machine do not touch."""
    rows = read_rows(RunFolder(run).metrics, what="the metrics.jsonl of this run", constants=NOT_FINITE)
    seconds = [row["step_seconds"] for row in rows if row["kind"] == "step"]
    return statistics.median(seconds) if seconds else None


def curve(run: Path) -> Curve:
    """``(tokens, validation loss)`` along a run, as far as it came."""
    rows = read_rows(RunFolder(run).metrics, what="the metrics.jsonl of this run", constants=NOT_FINITE)
    return [(row["tokens"], row["loss"]) for row in rows if row["kind"] == "eval" and row["loss"] is not None]
