"""``spectrain train``: text in, trained model, sample and report out."""

import dataclasses
import shlex
import sys
from pathlib import Path

from spectrain import report, train
from spectrain.cli._flags import train_config
from spectrain.cli._main import fail
from spectrain.train.config import TrainConfig, check_same, fresh_folder, read

DESCRIPTION = "Train a language model on text and write a run folder."


def main(argv: list[str]) -> int:
    """Train, then write the report; on any stop, say how to go on."""
    config = _asked(argv)
    run = Path(config.out_dir)
    try:
        train.train(config)
    except train.StopRequest as stop:
        print(f"{stop}. To go on:\n  {resume_command(config)}")
        return 0
    except FloatingPointError as error:
        return fail(f"{error} Start a new run with a lower --lr, or look at the text of that step.", code=1)
    except BaseException:
        if found := train.checkpoints(run):
            print(f"to go on from {found[-1].path}:\n  {resume_command(config)}", file=sys.stderr)
        raise
    print(f"report: {report.write([run], out=run / 'report.html')}")
    _show_sample(run)
    return 0


def _asked(argv: list[str]) -> TrainConfig:
    """What the flags ask for; for a run that goes on, flags are read on top of what it recorded."""
    config = train_config(argv, verb="train", description=DESCRIPTION)
    if not config.out_dir:
        if config.resume == "auto":
            raise ValueError("--resume auto needs --out-dir: the folder of the run to go on with.")
        return dataclasses.replace(config, out_dir=str(fresh_folder(config)))
    recorded_file = Path(config.out_dir) / "config.json"
    if config.resume == "auto" and recorded_file.exists():
        recorded = read(recorded_file)
        check_same(recorded, train_config(argv, verb="train", description=DESCRIPTION, recorded=recorded))
        return dataclasses.replace(recorded, resume="auto", out_dir=config.out_dir, log_interval=config.log_interval)
    return config


def resume_command(config: TrainConfig) -> str:
    """The command that goes on with a run: its folder says the rest."""
    return f"spectrain train --out-dir {shlex.quote(config.out_dir)} --resume auto"


def _show_sample(run: Path) -> None:
    samples = run / "samples.txt"
    if samples.exists():
        last = samples.read_text(encoding="utf-8").split("\n=== ")[-1].removeprefix("=== ")
        print(f"a sample, {last.rstrip()}\n")
    print(f"more: spectrain sample {shlex.quote(str(run))} --prompt 'def '")
