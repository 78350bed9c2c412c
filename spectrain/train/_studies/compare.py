"""The same model, text and batches under several optimizers, tuned or on a grid: how many tokens does each need?"""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from spectrain._files.read import NOT_FINITE, read_object, read_rows
from spectrain._files.write import write_json
from spectrain.train._run import claim as _claim
from spectrain.train._run import recorded as _recorded
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.loop import train
from spectrain.train._run.prepare import measure
from spectrain.train._run.progress import Progress
from spectrain.train.config import TrainConfig

Point = dict[str, float]
Row = dict[str, Any]
DEFAULT_STEPS = 400
_TUNED = {
    "weight_decay": (0.0, 0.01, 0.03, 0.1, 0.3, 1.0),
    "beta1": (0.8, 0.9, 0.95),
    "beta2": (0.9, 0.95, 0.98, 0.99, 0.999),
}
"""What is tuned for AdamW besides the learning rate, which moves by factors of 2."""
_MEASURED = ("device", "threads", "autocast", "muon_dtype")


def coordinate_descent(
    measure: Callable[[Point], float], *, ladders: Mapping[str, Sequence[float]], start: Point, budget: int
) -> Point:
    """Walk one setting at a time to a point that no single step on any ladder improves.

    In turn each setting climbs its ladder, then descends it, as long as ``measure`` falls; rounds go on until one
    changes nothing or ``budget`` different points have been measured. The best point measured is returned. A point is
    measured once; infinities and NaN count as worst. What the result means: no neighbour that was measured is better.
    It is a local optimum, and no more (settings that interact can hide a better one).

    Raises ``ValueError`` for a budget below 1 or a start that is not on the ladders.

    >>> bowl = lambda p: (p["x"] - 3) ** 2 + (p["y"] - p["x"]) ** 2
    >>> ladder = [0.0, 1.0, 2.0, 3.0, 4.0]
    >>> coordinate_descent(bowl, ladders={"x": ladder, "y": ladder}, start={"x": 0.0, "y": 0.0}, budget=25)
    {'x': 2.0, 'y': 2.0}
    """
    if budget < 1:
        raise ValueError(f"tuning needs a budget of at least one run, got {budget}.")
    for name, ladder in ladders.items():
        if start[name] not in ladder:
            raise ValueError(
                f"the start of {name}, {start[name]:g}, is not one of {', '.join(f'{v:g}' for v in ladder)}."
            )
    seen: dict[tuple[float, ...], float] = {}
    point, moved = dict(start), True

    def value(at: Point) -> float:
        key = tuple(at.values())
        if key not in seen and len(seen) < budget:
            found = measure(at)
            seen[key] = found if found == found else float("inf")
        return seen.get(key, float("inf"))

    value(point)
    while moved and len(seen) < budget:
        moved = False
        for name, ladder in ladders.items():
            for direction in (1, -1):
                while (after := _step(point, name, ladder, direction)) and value(after) < value(point):
                    point, moved = after, True
    return point


def _step(point: Point, name: str, ladder: Sequence[float], direction: int) -> Point | None:
    at = list(ladder).index(point[name]) + direction
    return {**point, name: ladder[at]} if 0 <= at < len(ladder) else None


def compare(
    base: TrainConfig,
    *,
    grid: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    folder: Path,
    tune: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train every optimizer at each of its learning rates and seeds; report tokens to the best AdamW loss.

    With ``tune``, AdamW is tuned on the first seed instead: coordinate descent over learning rate, weight decay and
    both betas in at most so many runs, from its first rate in ``grid``; Muon's learning rate likewise, from its own,
    and nothing else of Muon. The winner of each then runs on the other seeds.

    Runs of one seed share text, initial weights and batches, and differ in the optimizer only. The target of a seed is
    the lowest final validation loss that AdamW reached at any learning rate; each run's ``tokens_to_target`` is where
    its validation curve first falls to it (linear between validations), or null. ``ratio`` is the mean over seeds of
    the fewest tokens of the other optimizer over the tokens of the best AdamW run. Where a seed's target is never
    reached there is no mean: ``ratio`` is null, ``not_reached`` says after how many tokens each such seed was given up,
    and ``ratio_at_least`` is the mean with these tokens in place of those that would have been needed, a lower bound.
    Written to ``compare.json`` in ``folder``, one run folder each beside it; finished runs found there are kept,
    unfinished ones resumed.

    Raises ``ValueError`` when AdamW, the yardstick, is not among the optimizers, or when a setting to be tuned does
    not start on its ladder.
    """
    if "adamw" not in grid:
        raise ValueError(f"compare measures against AdamW; add adamw to --optimizers {' '.join(grid)}.")
    if base.max_minutes is not None:
        raise ValueError("compare needs runs of one length: give --max-steps or --max-tokens, not --max-minutes.")
    if base.max_steps is None and base.max_tokens is None:
        base = dataclasses.replace(base, max_steps=DEFAULT_STEPS)
    for rate in (rate for rates in grid.values() for rate in rates):
        dataclasses.replace(base, lr=rate)  # what is wrong is said now, not when its turn comes
    for seed in seeds:
        dataclasses.replace(base, seed=seed)
    with _claim.claimed(folder):
        return _compare(base, grid, seeds, folder, tune, progress)


def _compare(
    base: TrainConfig,
    grid: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    folder: Path,
    tune: int,
    progress: Progress | None,
) -> dict[str, Any]:
    base = with_fixed_choices(base, folder / "base.json")
    rows: dict[str, Row] = {}

    def run(optimizer: str, point: Point, seed: int) -> float:
        name = _name(optimizer, point, base, seed)
        one = dataclasses.replace(
            base, optimizer=_known(optimizer), seed=seed, out_dir=str(folder / name), resume="auto",
            **point,  # type: ignore[arg-type]
        )  # fmt: skip
        rows[name] = {"optimizer": optimizer, **point, "seed": seed, **run_or_read(one, folder / name, progress)}
        return float(rows[name]["final_loss"])

    chosen = {optimizer: [{"lr": rate} for rate in rates] for optimizer, rates in grid.items()}
    if tune:
        for optimizer, points in chosen.items():
            ladders = _ladders(optimizer, points[0]["lr"])
            start = {name: points[0].get(name, getattr(base, name)) for name in ladders}
            best = coordinate_descent(
                lambda at, optimizer=optimizer: run(optimizer, at, seeds[0]),  # type: ignore[misc]
                ladders=ladders, start=start, budget=tune,
            )  # fmt: skip
            chosen[optimizer] = [best]
    for seed in seeds:
        for optimizer, points in chosen.items():
            for point in points:
                run(optimizer, point, seed)
    result = summarise(list(rows.values()), curves={name: curve(folder / name) for name in rows})
    write_json(folder / "compare.json", json.loads(json.dumps(result), parse_constant=lambda _: None))
    return result


def _ladders(optimizer: str, rate: float) -> dict[str, Sequence[float]]:
    """The settings that are tuned, each with its steps."""
    rates = [rate * 2.0**k for k in range(-6, 7)]
    return {"lr": rates, **(_TUNED if optimizer == "adamw" else {})}


def _name(optimizer: str, point: Point, base: TrainConfig, seed: int) -> str:
    """The folder of a run: what it was given, where that is not what all runs share."""
    short = {"lr": "lr", "weight_decay": "wd", "beta1": "beta1_", "beta2": "beta2_"}
    said = [f"{short[k]}{v:g}" for k, v in point.items() if k == "lr" or v != getattr(base, k)]
    return "-".join([optimizer, *said, f"seed{seed}"])


def summarise(rows: list[Row], *, curves: dict[str, list[tuple[int, float]]]) -> dict[str, Any]:
    """Targets, tokens to them, and ratios, from final losses and validation curves.

    >>> rows = [{"optimizer": o, "seed": 0, "run": o, "final_loss": f, "tokens": 100} for o, f in
    ...         (("adamw", 2.0), ("muon", 1.0))]
    >>> curves = {"adamw": [(0, 4.0), (100, 2.0)], "muon": [(0, 4.0), (50, 2.5), (100, 1.0)]}
    >>> round(summarise(rows, curves=curves)["ratio"], 3)
    0.667
    """
    ratios: dict[int, float | None] = {}
    bounds: dict[int, float] = {}
    given_up: dict[int, int] = {}
    targets: dict[int, float] = {}
    for seed in sorted({row["seed"] for row in rows}):
        same = [row for row in rows if row["seed"] == seed]
        best = min((row for row in same if row["optimizer"] == "adamw"), key=lambda row: row["final_loss"])
        if not math.isfinite(best["final_loss"]):
            raise ValueError(f"every AdamW run of seed {seed} diverged, so there is no target; add a lower --lr.")
        targets[seed] = best["final_loss"]
        for row in same:
            row["tokens_to_target"] = crossing(curves[row["run"]], best["final_loss"])
        others = [row for row in same if row["optimizer"] != "adamw"]
        if not others:
            continue
        reached = [row["tokens_to_target"] for row in others if row["tokens_to_target"] is not None]
        if not reached:
            given_up[seed] = max(row["tokens"] for row in others)
        bounds[seed] = (min(reached) if reached else given_up[seed]) / best["tokens"]
        ratios[seed] = bounds[seed] if reached else None
    whole = bool(ratios) and not given_up
    return {
        "rows": rows,
        "target": statistics.fmean(targets.values()),
        "targets_by_seed": targets,
        "ratio": statistics.fmean(bounds.values()) if whole else None,
        "ratio_by_seed": ratios,
        "ratio_spread": max(bounds.values()) - min(bounds.values()) if whole else None,
        "ratio_at_least": statistics.fmean(bounds.values()) if bounds else None,
        "not_reached": given_up,
    }


def ratio_in_words(result: Mapping[str, Any]) -> str:
    """The ratio of a comparison, or what is known where some seed never reached its target.

    >>> ratio_in_words({"ratio": None, "ratio_by_seed": {0: 0.5, 1: None}, "ratio_at_least": 0.75,
    ...     "not_reached": {1: 1000}})
    'at least 0.750: not reached on seed 1 within 1,000 tokens'
    >>> ratio_in_words({"ratio": 0.5, "ratio_by_seed": {0: 0.5}, "ratio_spread": 0.0, "not_reached": {}})
    '0.500, one seed'
    """
    if missed := result["not_reached"]:
        seeds = ", ".join(f"on seed {seed} within {tokens:,} tokens" for seed, tokens in missed.items())
        return f"at least {result['ratio_at_least']:.3f}: not reached {seeds}"
    count = len(result["ratio_by_seed"])
    spread = f"spread {result['ratio_spread']:.3f} over {count} seeds" if count > 1 else "one seed"
    return f"{result['ratio']:.3f}, {spread}"


def crossing(curve: Iterable[tuple[int, float]], target: float) -> float | None:
    """The tokens at which a curve of ``(tokens, loss)`` first falls to ``target``, linear in between.

    >>> crossing([(0, 4.0), (10, 2.0), (20, 1.0)], 3.0)
    5.0
    """
    before: tuple[int, float] | None = None
    for tokens, loss in curve:
        if loss <= target:
            if before is None or before[1] == loss:
                return float(tokens)
            share = (before[1] - target) / (before[1] - loss)
            return before[0] + share * (tokens - before[0])
        before = (tokens, loss)
    return None


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
        "final_loss": curve(run)[-1][1],
        "final_bits_per_byte": summary["bits_per_byte"],
        "tokens": summary["tokens"],
        "seconds": summary["seconds"],
        "optimizer_share": summary["optimizer_share"],
    }


def _known(optimizer: str) -> Literal["muon", "adamw"]:
    known: dict[str, Literal["muon", "adamw"]] = {"muon": "muon", "adamw": "adamw"}
    if optimizer not in known:
        raise ValueError(f"compare knows the optimizers muon and adamw, got {optimizer!r}.")
    return known[optimizer]


def curve(run: Path) -> list[tuple[int, float]]:
    """``(tokens, validation loss)`` along a run, as far as it came."""
    rows = read_rows(RunFolder(run).metrics, what="the metrics.jsonl of this run", constants=NOT_FINITE)
    return [(row["tokens"], row["loss"]) for row in rows if row["kind"] == "eval" and row["loss"] is not None]
