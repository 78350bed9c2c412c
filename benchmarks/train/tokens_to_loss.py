"""How many tokens and seconds does each optimizer need to the loss of AdamW, both tuned with one budget of runs?

    python -m benchmarks.train.tokens_to_loss                       # the standard library's source, depth 2
    python -m benchmarks.train.tokens_to_loss --depth 4 --horizons 160 640
    python -m benchmarks.train.tokens_to_loss --data FILE --text x  # other text

At the first horizon every optimizer is tuned on the first seed by coordinate descent (see `train.compare`) from START.
At each longer one the settings of the one before are tuned again, in fewer runs: those of AGAIN. Then both tables,
controlled and each at its best, on all seeds; and runs of all other optimizers that end at --shares of the longest,
schedule and all, which say what the curve of a longer run cannot: whether fewer tokens do. Finished runs in --runs are
kept, so that an interrupted benchmark goes on. Steps are timed at the end, the optimizers in turns.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import FIXED, TINY, finish_run, new_session, summary
from spectrain import train
from spectrain.train import TrainConfig
from spectrain.train._run.loop import step
from spectrain.train._studies.ratio import YARDSTICK
from spectrain.train.config import default_lr
from spectrain.train.internal import SHORT, in_words

MODEL = {"validation_fraction": 0.02, "save_interval": 1000, "log_interval": 1000, "threads": 1, "compile": True,
         "weight_decay": 0.1, "final_lr": 0.0}  # fmt: skip
START: dict[str, float] = {"lr": 0.016, "embedding_lr": 16.0, "head_lr": 4.0}
"""With decay and last rate of MODEL, where tuning begins for all of them alike, the rest at the defaults: in the region
that a first descent of AdamW's at depth 2 had found, so that nobody spends a budget on the way there."""
AGAIN = (None, ("lr", "weight_decay", "momentum", "beta1", "beta2"), ("lr",))
"""Which settings are tuned at each horizon; None: all. The last is for all others."""
_HEAD = ["table", "optimizer", "seed", "final loss", "bits/byte", "tokens to AdamW's loss", "settings"]


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    text: str = "stdlib",
    depth: int = 2,
    horizons: tuple[int, ...] = (160, 640),
    optimizers: tuple[str, ...] = ("adamw", "muon", "torch-muon"),
    tune: tuple[int, ...] = (15, 9, 3),
    controlled: tuple[int, ...] = (15, 3, 1),
    begin: tuple[float, ...] = (1.0, 1.0, 0.5),
    until: tuple[str, ...] = (),
    shares: tuple[float, ...] = (0.5, 0.65, 0.8),
    seeds: tuple[int, ...] = (0, 1, 2),
    rounds: int = 15,
    model: Mapping[str, Any] = MODEL,
) -> Iterator[Found]:
    """``tune``: runs of each optimizer on the first seed, at most, at each horizon; ``controlled``: of those over the
    rate of matrices alone, 1 for that of its best. ``begin``: each horizon's descent begins at so much of the rate of
    the one before. ``until``: as soap:160, who runs no horizon beyond that one.
    ``text`` names the data.
    """
    ends = {name: int(horizon) for name, _, horizon in (word.partition(":") for word in until)}
    base = {**FIXED, "data": data, "depth": depth, **model}
    results: dict[int, dict[str, Any]] = {}
    points: Mapping[str, Mapping[str, float]] = dict.fromkeys(optimizers, START)
    for at, horizon in enumerate(horizons):
        shared = {"eval_interval": max(40, horizon // 10), **base, "max_steps": horizon}
        config = TrainConfig(**shared)
        there = [name for name in optimizers if horizon <= ends.get(name, horizon)]
        grid = {name: [default_lr(name, config.depth)] for name in there}
        folder = runs / f"{text}-d{config.depth}-{horizon}"
        budget, alone, again, slower = (of[min(at, len(of) - 1)] for of in (tune, controlled, AGAIN, begin))
        points = {name: {**points[name], "lr": slower * points[name]["lr"]} for name in points}
        result = train.compare(
            config, grid=grid, seeds=seeds, folder=folder, tune=budget, points=points, settings=again, controlled=alone
        )
        points = {**points, **{name: found["point"] for name, found in result["tuned"].items()}}
        found = {name: points[name] for name in there}
        ended = _ended(shared, found, result, folder, shares, seeds) if horizon == max(horizons) else []
        paces = pace(config, found, runs / "pace", rounds)
        results[horizon] = {**result, "step_seconds": paces, "ended": ended, "budget": budget, "alone": alone}
        yield _found(results, f"{text}_d{config.depth}")


def _ended(
    shared: Mapping[str, Any],
    points: Mapping[str, Mapping[str, float]],
    result: Mapping[str, Any],
    folder: Path,
    shares: Sequence[float],
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    """Runs of the other optimizers, at their best settings, that end after a share of the horizon."""
    targets = {int(seed): loss for seed, loss in result["tables"]["best"]["targets_by_seed"].items()}
    rows = []
    for name, point in points.items():
        for share in shares if name != YARDSTICK else ():
            steps = round(share * shared["max_steps"])
            for seed in seeds:
                one = {**shared, **point, "optimizer": name, "seed": seed, "max_steps": steps, "eval_interval": steps}
                loss = summary(finish_run(folder / f"ended-{name}-{steps}-seed{seed}", **one))["validation_loss"]
                rows.append({"optimizer": name, "share": share, "seed": seed, "final_loss": loss,
                             "over_target": loss - targets[seed]})  # fmt: skip
    return rows


def pace(base: TrainConfig, points: Mapping[str, Mapping[str, float]], scratch: Path, rounds: int) -> dict[str, float]:
    """The median time of a training step under each optimizer, one after the other in every round."""
    sessions = {}
    for name, point in points.items():
        sessions[name] = new_session(TrainConfig(**{**vars(base), "optimizer": name, **point}), scratch / name)
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for at in range(rounds + 2):
        for name, session in sessions.items():
            session.set_learning_rate()
            begun = time.perf_counter()
            step(session.job, session.optimizer, at, clip=session.clip_gradients)
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(times[2:]) for name, times in seconds.items()}


def _found(results: Mapping[int, Mapping[str, Any]], part: str) -> Found:
    rows, lines, words, figures = [], [], [], {}
    for horizon, result in results.items():
        by_run = {row["run"]: row for row in result["rows"]}
        for name, table in result["tables"].items():
            if name == "swept":
                continue
            for row in (by_run[run] for run in table["runs"]):
                rows.append({"horizon": horizon, "table": name, **row})
                lines.append([f"{horizon} {name}", row["optimizer"], row["seed"], f"{row['final_loss']:.4f}",
                              f"{row['final_bits_per_byte']:.4f}", _reached(row["tokens_to_target"]),
                              _settings(row)])  # fmt: skip
            for other, against in table["against"].items():
                time_of_step = result["step_seconds"][other] / result["step_seconds"]["adamw"]
                words.append([horizon, name, other, in_words(against), f"{time_of_step:.3f}",
                              f"{against['ratio_at_least'] * time_of_step:.3f}"])  # fmt: skip
                figures[f"{other} {name} {horizon}"] = against["ratio_at_least"]
    edges = [
        f"{name} after {horizon} steps, {found['runs']} runs: at an end {', '.join(found['edge']) or 'nothing'}; not "
        f"tried beside {', '.join(found['open']) or 'nothing'}."
        for horizon, result in results.items()
        for name, found in result["tuned"].items()
    ]
    budgets = ", ".join(
        f"{result['budget']} at {horizon} steps ({result['alone']} over the matrices' rate in the controlled table)"
        for horizon, result in results.items()
    )
    ratios = _record.table(
        ["steps", "table", "optimizer", "tokens over AdamW's", "a step's time over AdamW's", "seconds over AdamW's"],
        words,
    )
    body = (
        f"{ratios}\n\n{_record.table(_HEAD, lines)}\n\n"
        f"{_shorter(results)}\n\n"
        f"Tuned on the first seed by coordinate descent; runs of each at most: {budgets}. {' '.join(edges)}\n\n"
        "The target of a seed is the final validation loss of AdamW in the same table; tokens to it are read off the "
        "validation curve of a run of the same length, linear between validations. The schedule of such a run has not "
        "ended there, so a run that ends at the target needs fewer tokens. Seconds: tokens times the time of a step, "
        "the optimizers in turns."
    )
    longest = max(results)
    said = "; ".join(
        f"{other} {in_words(against)}" for other, against in results[longest]["tables"]["best"]["against"].items()
    )
    figures |= {"said": said, "longest": longest}
    data = {str(horizon): {key: result[key] for key in ("tuned", "tables", "step_seconds", "ended", "budget", "alone")}
            for horizon, result in results.items()}  # fmt: skip
    return Found(rows=rows, body=body, figures=figures, data={"horizons": data}, part=part)


def _shorter(results: Mapping[int, Mapping[str, Any]]) -> str:
    """The table of runs that end at a share of AdamW's tokens: how far from its loss, in nats."""
    lines = []
    for horizon, result in results.items():
        for name, share in dict.fromkeys((row["optimizer"], row["share"]) for row in result["ended"]):
            over = [r["over_target"] for r in result["ended"] if (r["optimizer"], r["share"]) == (name, share)]
            lines.append([horizon, name, share, f"{statistics.fmean(over):+.4f}", ", ".join(f"{o:+.4f}" for o in over)])
    return _record.table(
        ["steps of AdamW", "optimizer", "ended at a share of", "loss over AdamW's, mean", "by seed"], lines
    )


def _reached(tokens: float | None) -> str:
    return "not reached" if tokens is None else f"{tokens:.0f}"


def _settings(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{short} {row[key]:g}" for key, short in SHORT.items() if key in row)


if __name__ == "__main__":
    main(
        "tokens_to_loss",
        "Tokens to AdamW's loss after {longest} steps, over AdamW's, each at its best: {said}",
        measure,
        smoke={
            "model": TINY | {"eval_interval": 1, "threads": 1},
            "horizons": (2,),
            "tune": (9,),
            "shares": (0.5,),
            "seeds": (0,),
            "optimizers": ("adamw", "muon"),
            "rounds": 2,
            "depth": 1,
        },
        threads=None,
    )
