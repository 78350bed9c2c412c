"""The best learning rate at every width: does it stay?"""

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spectrain._files.read import read_object
from spectrain._files.write import write_json
from spectrain.train._run.claim import claimed
from spectrain.train._run.progress import Progress
from spectrain.train._studies.check import Family, advance
from spectrain.train._studies.check_config import TransferConfig

Row = dict[str, Any]
MOST_MOVED = 2.0
BEYOND = 4


def lr_transfer(config: TransferConfig, *, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Train every width at every learning rate; report the best rate of each and by how much it moves.

    Runs of one seed share their batches, and all have the same depth, steps and schedule (linear warm-up, then to
    zero). ``loss`` is the mean over the batches of the last quarter of the steps, each before it is learned from, in
    nats a token. Where the best rate of a width is the lowest or the highest tried, the sweep goes on beyond it by
    factors of two, at most four. ``best`` is the rate of least loss of each width, ``vertex`` that of the parabola
    through it and its neighbours, ``moved`` the largest best rate over the smallest and ``drift`` that of the vertices.
    ``ok``: neither is above 2, a step of the grid. The grid alone cannot tell: a drift of 3.7 can show on it as one
    step. Written to ``check.json`` in ``folder`` after each width; finished runs in
    ``folder/runs`` are kept, so that the same call goes on where it was stopped.

    Raises ValueError where the folder holds a sweep of another configuration.
    """
    screen = progress or Progress()
    with claimed(folder):
        _same(config, folder / "sweep.json")
        family = Family(config)
        rows: list[Row] = []
        for width in config.widths:
            rows += _sweep(config, family, width, folder / "runs", screen)
            _write(folder, config, rows)
        return _write(folder, config, rows)


def _same(config: TransferConfig, file: Path) -> None:
    """Record the configuration, or refuse to go on with another; widths, rates and seeds may grow."""
    free = ("out_dir", "widths", "rates", "seeds", "threads")
    asked = {key: value for key, value in dataclasses.asdict(config).items() if key not in free}
    asked = json.loads(json.dumps(asked))
    if file.exists():
        recorded = read_object(file, what="the sweep.json of this folder")
        other = [key for key in asked if asked[key] != recorded.get(key)]
        if other:
            raise ValueError(
                f"{file.parent} holds a sweep with another {', '.join(other)}. Give another --out-dir, or its flags."
            )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asked)


def _sweep(config: TransferConfig, family: Family, width: int, folder: Path, screen: Progress) -> list[Row]:
    """All runs of one width, first the rates asked for, then beyond them while the best is at an end."""
    losses: dict[float, float] = {}
    rows = []
    for lr in _rates(config, losses):
        found = [_run(family, width, lr, seed, folder) for seed in config.seeds]
        rows += found
        (losses[lr],) = mean_losses(found).values()
        screen.say(f"width {width:5}  lr {lr:.3e}  loss {losses[lr]:.4f}")
    return rows


def _rates(config: TransferConfig, losses: dict[float, float]) -> Iterator[float]:
    middle = config.member(config.widths[0], 0).lr
    assert middle
    yield from config.rates or [middle * 2.0**k for k in range(-2, 3)]
    for _ in range(BEYOND):
        best, order = min(losses, key=lambda rate: losses[rate]), sorted(losses)
        if len(order) < 2 or best not in (order[0], order[-1]):
            return
        yield best / 2 if best == order[0] else best * 2


def _run(family: Family, width: int, lr: float, seed: int, folder: Path) -> Row:
    """One run, or what a finished one left."""
    file = folder / f"width{width}-lr{lr:.4g}-seed{seed}.json"
    if file.exists():
        return read_object(file, what="what a finished run wrote, or remove it to train again")
    session = family.session(width, seed, lr=lr)
    losses: list[float] = []
    try:
        for _ in range(family.config.steps):
            losses.append(advance(session))
    except FloatingPointError:
        losses = []
    last = losses[-max(1, len(losses) // 4) :]
    row = {"width": width, "lr": lr, "seed": seed, "loss": statistics.fmean(last) if last else None}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, row)
    return row


def _write(folder: Path, config: TransferConfig, rows: list[Row]) -> dict[str, Any]:
    result = {"kind": "lr-transfer", "config": dataclasses.asdict(config), **summarise(rows), "rows": rows}
    write_json(folder / "check.json", result)
    return result


def summarise(rows: list[Row]) -> dict[str, Any]:
    """The best rate of each width and how far it moves.

    >>> rows = [{"width": w, "lr": lr, "seed": 0, "loss": abs(math.log(lr * w))} for w in (64, 128) for lr in
    ...         (1 / 256, 1 / 128, 1 / 64, 1 / 32)]
    >>> summarise(rows)["moved"], round(summarise(rows)["drift"], 6), summarise(rows)["ok"]
    (2.0, 2.0, True)
    """
    best, vertex, least = {}, {}, {}
    for width in sorted({row["width"] for row in rows}):
        losses = mean_losses([row for row in rows if row["width"] == width])
        best[width] = min(losses, key=lambda rate: losses[rate])
        vertex[width] = _vertex(losses, best[width])
        least[width] = losses[best[width]]
    moved, drift = (max(rates.values()) / min(rates.values()) for rates in (best, vertex))
    ok = max(moved, drift) <= MOST_MOVED * 1.001 and all(math.isfinite(loss) for loss in least.values())
    return {"best": best, "vertex": vertex, "least": least, "moved": moved, "drift": drift, "ok": ok}


def mean_losses(rows: list[Row]) -> dict[float, float]:
    """Mean loss over the seeds at each rate; infinite where a run diverged."""
    found: dict[float, list[float]] = {}
    for row in rows:
        found.setdefault(row["lr"], []).append(math.inf if row["loss"] is None else row["loss"])
    return {rate: statistics.fmean(losses) for rate, losses in sorted(found.items())}


def _vertex(losses: dict[float, float], best: float) -> float:
    """Where the parabola in log lr through the best rate and its neighbours is lowest; the best rate at an end."""
    rates = sorted(losses)
    at = rates.index(best)
    if not 0 < at < len(rates) - 1:
        return best
    (x0, x1, x2), (y0, y1, y2) = (map(math.log, rates[at - 1 : at + 2]), (losses[r] for r in rates[at - 1 : at + 2]))
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    if not math.isfinite(left) or not math.isfinite(right) or left == right:
        return best
    return math.exp((x0 + x1) / 2 - left * (x2 - x0) / 2 / (right - left))
