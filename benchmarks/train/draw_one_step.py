"""Digits drawn in one step: MeanFlow beside flow matching, same model, same number of steps, judged alike.

    python -m benchmarks.train.draw_one_step

Runs that are finished in --runs are kept, so that an interrupted benchmark goes on.
"""

import base64
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import few_pictures, finish_run, new_session, summary
from spectrain.train._jobs.draw_config import DEFAULT_STEPS, DrawConfig
from spectrain.train._run import loop as _step

MODEL: dict[str, Any] = {}
SMALL = {"depth": 1, "width": 32, "batch_size": 4, "eval_pictures": 8, "many_steps": 2}
COLUMNS = ("one_step_accuracy", "one_step_frechet", "many_step_accuracy", "many_step_frechet", "one_step_novelty")


def pace(folder, *, count, **model):
    """Seconds of one core's time for a step, on one thread: a median that load hardly moves."""
    session = new_session(DrawConfig(**{**model, "max_steps": count, "threads": 1, "muon_dtype": "float32"}), folder)
    found = []
    for step in range(count):
        began = time.process_time()
        _step.step(session.job, session.optimizer, step, clip=session.clip_gradients)
        session.job.after_step(1.0)
        found.append(time.process_time() - began)
    return statistics.median(found)


def draw_all(runs, objectives, seeds, steps, model):
    """A row for each seed and objective: the summary of its run."""
    found = []
    for seed in seeds:
        for objective in objectives:
            quiet = {"spectrum_interval": 0, "eval_interval": max(steps // 2, 1), "save_interval": 250}
            flags = {**quiet, **model, "max_steps": steps, "seed": seed, "objective": objective}
            row = summary(finish_run(runs / f"{objective}-{seed}-{steps}", DrawConfig, **flags))
            found.append({"seed": seed, "objective": objective, **row})
            print(seed, objective, {key: round(row[key], 3) for key in COLUMNS}, flush=True)
    return found


def words(found, steps, seconds):
    """The three figures that are asked for, seed by seed, the floor, and what a run costs."""
    lines = []
    for seed in sorted({row["seed"] for row in found}):
        by = {row["objective"]: row for row in found if row["seed"] == seed}
        ours = min((row for name, row in by.items() if name != "flow"), key=lambda row: row["one_step_frechet"])
        one, many = ours["one_step_frechet"], ours["many_step_frechet"]
        line = (
            f"- Seed {seed}: held-out pictures are recognised {ours['judge_accuracy']:.3f}, at a Frechet distance of "
            f"{ours['judge_frechet']:.2f}; one step over many {one / many:.2f} (asked: at most 1.5)"
        )
        if "flow" in by:
            gain = by["flow"]["one_step_frechet"] / one
            line += f"; flow matching's one step over ours {gain:.1f} (asked: at least 3)"
        lines.append(line + ".")
    lines.append(
        f"- {steps:,} steps take {steps * seconds:.0f} s of one core's time, besides the judge and validations."
    )
    lines.append("- The table has seconds in all, of one thread.")
    return "\n".join(lines)


def picture(folders, path):
    """The last sheets of runs side by side, as a PNG: each run in one step, and the first in many too."""
    from PIL import Image

    panels = []
    for number, folder in enumerate(folders):
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        sheets = [row for row in map(json.loads, lines) if row["kind"] == "pictures"][-2:]
        for sheet in sheets if number == 0 else sheets[:1]:
            pixels = np.frombuffer(base64.b64decode(sheet["pixels"]), np.uint8).reshape(sheet["shape"])[:, 0]
            pixels = np.pad(pixels, ((0, 0), (0, 1), (0, 1)))
            count, side, _ = pixels.shape
            rows = pixels.reshape(count // sheet["columns"], sheet["columns"], side, side)
            panels.append(rows.transpose(0, 2, 1, 3).reshape(len(rows) * side, -1))
    gap = np.full((len(panels[0]), 6), 255, np.uint8)
    whole = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    Image.fromarray(whole).resize((whole.shape[1] * 4, whole.shape[0] * 4), Image.Resampling.NEAREST).save(path)


def measure(
    *,
    runs: Path,
    objectives: tuple[str, ...] = ("model", "flow"),
    seeds: tuple[int, ...] = (0, 1, 2),
    steps: int = DEFAULT_STEPS,
    model: Mapping[str, Any] = MODEL,
    source: Callable[[Path], tuple[str, ...]] | None = None,
    paced: int = 24,
) -> Found:
    """Runs of every objective on every seed; the cost of a step is the median of ``paced``. The pictures are
    scikit-learn's digits, or what ``source`` writes.
    """
    model = {**model, "data": source(runs / "source")} if source else model
    found = draw_all(runs, objectives, seeds, steps, model)
    with tempfile.TemporaryDirectory() as folder:
        seconds = pace(Path(folder), count=paced, **model)
    cells = [
        [row["seed"], row["objective"], *(f"{row[key]:.3f}" for key in COLUMNS), f"{row['seconds']:.0f}"]
        for row in found
    ]
    body = "\n\n".join([_record.table(["seed", "objective", *COLUMNS, "seconds"], cells), words(found, steps, seconds)])
    ours = [row for row in found if row["objective"] != "flow"]
    figures = {key: statistics.mean(row[key] for row in ours) for key in ("one_step_frechet", "many_step_frechet")}
    sheets = [runs / f"{objective}-{seeds[0]}-{steps}" for objective in objectives]
    pages = {"meanflow.png": lambda path: picture(sheets, path)}
    return Found(rows=found, body=body, figures=figures, data={"step seconds": seconds}, pages=pages)


if __name__ == "__main__":
    main(
        "draw_one_step",
        "Digits drawn in one step have a Frechet distance of {one_step_frechet:.1f} where many steps have "
        "{many_step_frechet:.1f}",
        measure,
        smoke={"source": few_pictures, "model": SMALL, "objectives": ("model",), "steps": 1, "seeds": (0,), "paced": 2},
    )
