"""Flags from frozen dataclasses by tyro, with ``--config FILE`` as their defaults."""

import dataclasses
import itertools
from pathlib import Path

from spectrain.cli._parse import Parser, parse
from spectrain.train.internal import Config, follows, fresh_config, read_config

_LIMITS = ("max_steps", "max_tokens", "max_minutes", "batch_size", "block")
_CONFIG_HELP = (
    "--config FILE takes the flags back from a run's config.json; flags given beside it win, and None\ntakes one back."
)


def run_config(
    kind: type[Config], argv: list[str], *, verb: str, description: str, recorded: Config | None = None
) -> Config:
    """The configuration that ``argv`` asks for, on top of ``recorded``, ``--config FILE`` or the built-in defaults.

    Raises ``ValueError`` as :func:`spectrain.train._run.recorded.read_config` does; exits with 2 on a wrong flag.
    """
    file, rest = config_file(argv)
    for word, after in itertools.pairwise([*rest, "--"]):
        if word == "--data" and after.startswith("--"):  # nothing would mean the default text, in silence
            raise ValueError("--data needs at least one file, folder or glob; leave it out for the default.")
    default = kind() if file is None else fresh_config(read_config(file, kind))
    default = default if recorded is None else recorded
    asked = parse(
        kind,
        rest,
        default=default,
        prog=f"spectrain {verb}",
        description=f"{description}\n\n{_CONFIG_HELP}",
        console_outputs=not follows(),
    )
    changed = any(getattr(asked, name, None) != getattr(default, name, None) for name in _LIMITS)
    if recorded is None and changed and asked.horizon == default.horizon:
        return dataclasses.replace(asked, horizon=None)  # a new limit undoes the steps that the old run had fixed
    return asked


def config_file(argv: list[str]) -> tuple[Path | None, list[str]]:
    """What ``--config`` names, and the rest of the words."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(argv)
    if known.config is not None and not known.config.exists():
        raise ValueError(f"--config {known.config} is not there; give a run's config.json.")
    return known.config, rest
