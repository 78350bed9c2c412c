"""Digits drawn in one step: MeanFlow beside flow matching, same model, same number of steps, judged alike.

    python benchmarks/draw_one_step.py --pace              first: what a step costs, for the record
    python benchmarks/draw_one_step.py

Runs that are finished in --out-dir are kept, so that an interrupted benchmark goes on.
"""

import argparse
import base64
import json
import statistics
import tempfile
import time
from pathlib import Path

import _record
import numpy as np
import torch

from spectrain import train
from spectrain.train._jobs.draw_config import DEFAULT_STEPS, DrawConfig
from spectrain.train._run import loop as _step
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.job import load_job
from spectrain.train._run.prepare import decide
from spectrain.train._run.session import build

COLUMNS = ("one_step_accuracy", "one_step_frechet", "many_step_accuracy", "many_step_frechet", "one_step_novelty")


def run(folder, steps, **changes):
    """The summary of a run of the default configuration, from its folder where it is finished."""
    if not (folder / "summary.json").exists():
        quiet = {"spectrum_interval": 0, "eval_interval": max(steps // 2, 1), "save_interval": 250}
        train.train(DrawConfig(max_steps=steps, out_dir=str(folder), resume="auto", **quiet, **changes))
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def pace(folder, *, count=24):
    """Seconds of one core's time for a step of the default run, on one thread: a median that load hardly moves."""
    torch.set_num_threads(1)
    config, _ = decide(DrawConfig(max_steps=count, threads=1, muon_dtype="float32"))
    place = RunFolder(folder)
    session = build(config, place, load_job(config, place, resuming=False))
    found = []
    for step in range(count):
        began = time.process_time()
        _step.step(session.job, session.optimizer, step, clip=session.clip_gradients)
        session.job.after_step(1.0)
        found.append(time.process_time() - began)
    return statistics.median(found)


def measure(objectives, seeds, steps, folder, *, finished=False):
    found = []
    for seed in seeds:
        for objective in objectives:
            began, path = time.strftime("%H:%M"), folder / f"{objective}-{seed}-{steps}"
            if finished and not (path / "summary.json").exists():
                continue
            summary = run(path, steps, seed=seed, objective=objective)
            found.append({"seed": seed, "objective": objective, **summary})
            print(began, seed, objective, {key: round(summary[key], 3) for key in COLUMNS}, flush=True)
    return found


def words(found, steps, folder):
    """The three figures that are asked for, seed by seed, and the floor."""
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
    file = folder / "pace.json"
    if file.exists():
        seconds = steps * json.loads(file.read_text(encoding="utf-8"))
        lines.append(f"- {steps:,} steps take {seconds:.0f} s of one core's time, besides the judge and validations.")
    lines.append("- The table has seconds in all, of one thread on a machine that others used at the same time.")
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", default=["model", "flow"])
    parser.add_argument("--max-steps", type=int, default=DEFAULT_STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out-dir", type=Path, default=Path("runs/draw_one_step"))
    parser.add_argument("--picture", type=Path, help="write the sheets of the first seed's runs to this PNG and stop")
    parser.add_argument("--pace", action="store_true", help="measure what a step costs and keep it in --out-dir")
    parser.add_argument("--finished", action="store_true", help="record the runs that are finished, start none")
    parser.add_argument("--smoke", action="store_true", help="two steps, no record")
    asked = parser.parse_args()
    asked.out_dir.mkdir(parents=True, exist_ok=True)
    if asked.picture:
        names = [f"{objective}-{asked.seeds[0]}-{asked.max_steps}" for objective in asked.objectives]
        picture([asked.out_dir / name for name in names], asked.picture)
        return
    if asked.pace:
        (asked.out_dir / "pace.json").write_text(json.dumps(pace(asked.out_dir)))
        return
    with tempfile.TemporaryDirectory() as short:
        folder, steps, seeds = (Path(short), 2, [0]) if asked.smoke else (asked.out_dir, asked.max_steps, asked.seeds)
        found = measure(asked.objectives, seeds, steps, folder, finished=asked.finished)
        said = words(found, steps, folder)
    rows = [
        [row["seed"], row["objective"], *(f"{row[key]:.3f}" for key in COLUMNS), f"{row['seconds']:.0f}"]
        for row in found
    ]
    body = "\n\n".join([_record.table(["seed", "objective", *COLUMNS, "seconds"], rows), said])
    print(body)
    if not asked.smoke:
        _record.write(
            "draw_one_step", claim="Digits drawn in one step", body=body, data={"runs": found, "steps": steps}
        )


if __name__ == "__main__":
    main()
