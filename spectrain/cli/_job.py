"""The verbs that train: what a job's configuration has becomes flags and help; the run, its report, how to go on."""

import inspect
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spectrain import report, train
from spectrain.cli._flags import run_config
from spectrain.cli._main import fail
from spectrain.train.internal import (
    Config,
    RunConfig,
    check_same,
    config_class,
    follows,
    free_of,
    in_folder,
    read_config,
)


def main(verb: str, argv: list[str]) -> int:
    """Train the job of that name and write the report: all that a verb does which has no file of its own."""
    with request(config_class(verb), argv) as config:
        stopped = run(config)
    return 0 if stopped is None else stopped


def run(config: RunConfig) -> int | None:
    """Train, then write the report; on a stop, say how to go on. The exit code, or None when it is done."""
    folder = Path(config.out_dir)
    try:
        train.train(config)
    except train.runs.StopRequest as stop:
        if not follows():
            print(f"{stop}. To go on:\n  {resume_command(config)}")
        return 0
    except FloatingPointError as error:
        what = str(error).removesuffix(".")
        cure = f"Start a new run with a lower {_rates(config)}, or look at the data of that step."
        return 1 if follows() else fail(f"{what}. {cure}", code=1)
    except BaseException:
        if not follows() and (found := train.checkpoints(folder)):
            print(f"to go on from {found[-1].path}:\n  {resume_command(config)}", file=sys.stderr)
        raise
    if follows():
        return 0
    print(f"report: {report.write([folder], out=folder / 'report.html')}")
    return None


def _rates(config: RunConfig) -> str:
    """``--lr``, and what was asked for that multiplies it beyond 1, or the decay where that is beyond 1."""
    beside = ("embedding_lr", "head_lr", "vector_lr", "weight_decay")
    given = [name for name in beside if (getattr(config, name, None) or 0.0) > 1.0]
    return " or ".join(f"--{name.replace('_', '-')}" for name in ("lr", *given))


@contextmanager
def request(kind: type[Config], argv: list[str]) -> Iterator[Config]:
    """What the flags ask for, in a run folder that is held; for a run that goes on, flags are read on top of what it
    recorded."""
    config = run_config(kind, argv, verb=kind.job, description=_about(kind))
    if not config.out_dir and config.resume == "auto":
        raise ValueError("--resume auto needs --out-dir: the folder of the run to go on with.")
    with in_folder(config) as held:
        yield _with_recorded(held, argv)


def _about(kind: type[RunConfig]) -> str:
    """What --help says above the flags: the first paragraph of the configuration's docstring."""
    return (inspect.getdoc(kind) or "").split("\n\n")[0]


def _with_recorded(config: Config, argv: list[str]) -> Config:
    kind, file = type(config), Path(config.out_dir) / "config.json"
    if config.resume != "auto" or not file.exists():
        return config
    recorded = read_config(file, kind)
    check_same(recorded, run_config(kind, argv, verb=kind.job, description=_about(kind), recorded=recorded))
    return free_of(recorded, config)


def resume_command(config: RunConfig) -> str:
    """The command that goes on with a run: its folder says the rest."""
    return f"spectrain {config.job} --out-dir {shlex.quote(config.out_dir)} --resume auto"
