"""How many tokens an optimizer needs to the loss of AdamW: of one table of runs, with what is not known said."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy import stats

Row = dict[str, Any]
Curve = list[tuple[int, float]]
YARDSTICK = "adamw"


def summarise(rows: Sequence[Row], *, curves: Mapping[str, Curve]) -> dict[str, Any]:
    """Targets of a table, and each other optimizer against AdamW; ``tokens_to_target`` is put into the rows.

    The target of a seed is the lowest final validation loss that AdamW reached on it; ``ratio_by_seed`` the fewest
    tokens with which a run of the other optimizer came to it, over those of the best AdamW run. Where a seed's target
    is never reached there is no mean: ``ratio`` is None, ``not_reached`` says after how many tokens each such seed was
    given up, and ``ratio_at_least`` is the mean with these tokens in place of those that would have been needed.
    ``ratio_low`` and ``ratio_high`` are Student's 95 % interval of the mean over the seeds, from three on.
    ``step_time_ratio`` is the median time of a step over AdamW's, and each of the four has its product with it as
    ``seconds_ratio...``; runs one after the other are timed on a machine whose speed may drift meanwhile.

    >>> rows = [{"optimizer": o, "seed": 0, "run": o, "final_loss": f, "tokens": 100} for o, f in
    ...         (("adamw", 2.0), ("muon", 1.0))]
    >>> curves = {"adamw": [(0, 4.0), (100, 2.0)], "muon": [(0, 4.0), (50, 2.5), (100, 1.0)]}
    >>> round(summarise(rows, curves=curves)["against"]["muon"]["ratio"], 3)
    0.667
    """
    targets: dict[int, Row] = {}
    for seed in sorted({row["seed"] for row in rows}):
        same = [row for row in rows if row["seed"] == seed]
        best = min((row for row in same if row["optimizer"] == YARDSTICK), key=lambda row: row["final_loss"])
        if not math.isfinite(best["final_loss"]):
            raise ValueError(f"every AdamW run of seed {seed} diverged, so there is no target; add a lower --lr.")
        targets[seed] = best
        for row in same:
            row["tokens_to_target"] = crossing(curves[row["run"]], best["final_loss"])
    others = dict.fromkeys(row["optimizer"] for row in rows if row["optimizer"] != YARDSTICK)
    against = {name: _against([r for r in rows if r["optimizer"] == name], targets) for name in others}
    return {
        "target": statistics.fmean(best["final_loss"] for best in targets.values()),
        "targets_by_seed": {seed: best["final_loss"] for seed, best in targets.items()},
        "against": {name: {**found, **_seconds(found, rows, name)} for name, found in against.items()},
    }


def _seconds(found: Mapping[str, Any], rows: Sequence[Row], name: str) -> dict[str, float | None]:
    """The ratios of tokens as ratios of time, by the median step of each."""
    paces = [
        [row["step_seconds"] for row in rows if row["optimizer"] == one and row.get("step_seconds")]
        for one in (name, YARDSTICK)
    ]
    if not all(paces):
        return {}
    times = statistics.median(paces[0]) / statistics.median(paces[1])
    ratios = {"": "ratio", "_low": "ratio_low", "_high": "ratio_high", "_at_least": "ratio_at_least"}
    known = {f"seconds_ratio{end}": found[key] for end, key in ratios.items()}
    return {"step_time_ratio": times, **{key: None if v is None else v * times for key, v in known.items()}}


def _against(rows: Sequence[Row], targets: Mapping[int, Row]) -> dict[str, Any]:
    """One optimizer against AdamW's best run of each seed."""
    ratios: dict[int, float | None] = {}
    bounds: dict[int, float] = {}
    given_up: dict[int, int] = {}
    for seed, best in targets.items():
        same = [row for row in rows if row["seed"] == seed]
        reached = [row["tokens_to_target"] for row in same if row["tokens_to_target"] is not None]
        if not reached:
            given_up[seed] = max((row["tokens"] for row in same), default=0)
        bounds[seed] = (min(reached) if reached else given_up[seed]) / best["tokens"]
        ratios[seed] = bounds[seed] if reached else None
    mean = statistics.fmean(bounds.values())
    low, high = _interval(list(bounds.values())) if not given_up else (None, None)
    return {
        "ratio": None if given_up else mean,
        "ratio_by_seed": ratios,
        "ratio_spread": None if given_up else max(bounds.values()) - min(bounds.values()),
        "ratio_low": low,
        "ratio_high": high,
        "ratio_at_least": mean,
        "not_reached": given_up,
        "final_losses": {seed: min(r["final_loss"] for r in rows if r["seed"] == seed) for seed in targets},
    }


def _interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    if len(values) < 3:
        return None, None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def in_words(found: Mapping[str, Any]) -> str:
    """The ratio of one optimizer, or what is known where some seed never reached its target.

    >>> in_words({"ratio": None, "ratio_by_seed": {0: 0.5, 1: None}, "ratio_at_least": 0.75, "not_reached": {1: 1000}})
    'at least 0.750: not reached on seed 1 within 1,000 tokens'
    >>> in_words({"ratio": 0.5, "ratio_by_seed": {0: 0.5}, "ratio_spread": 0.0, "ratio_low": None, "not_reached": {}})
    '0.500, one seed'
    """
    if missed := found["not_reached"]:
        seeds = ", ".join(f"on seed {seed} within {tokens:,} tokens" for seed, tokens in missed.items())
        return f"at least {found['ratio_at_least']:.3f}: not reached {seeds}"
    count = len(found["ratio_by_seed"])
    if count == 1:
        return f"{found['ratio']:.3f}, one seed"
    if found["ratio_low"] is not None:
        return f"{found['ratio']:.3f}, 95 %: {found['ratio_low']:.3f} to {found['ratio_high']:.3f}, {count} seeds"
    return f"{found['ratio']:.3f}, spread {found['ratio_spread']:.3f} over {count} seeds"


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
