"""Flags from frozen dataclasses by tyro, with ``--config FILE`` as their defaults."""

import argparse
import dataclasses
from pathlib import Path

from spectrain.train import config
from spectrain.train.config import TrainConfig


def train_config(argv: list[str], *, verb: str, description: str, recorded: TrainConfig | None = None) -> TrainConfig:
    """The configuration that ``argv`` asks for, on top of ``recorded``, ``--config FILE`` or the built-in defaults.

    Raises ``ValueError`` as :func:`spectrain.train.config.read` does; exits with 2 on a wrong flag.
    """
    import tyro

    file, rest = _config_file(argv)
    default = TrainConfig() if file is None else config.fresh(config.read(file))
    default = default if recorded is None else recorded
    asked = tyro.cli(
        TrainConfig,
        args=rest,
        default=default,
        prog=f"spectrain {verb}",
        description=f"{description}\n\n{_CONFIG_HELP}",
    )
    limits = ("max_steps", "max_tokens", "max_minutes", "batch_size", "block")
    changed = any(getattr(asked, name) != getattr(default, name) for name in limits)
    if recorded is None and changed and asked.horizon == default.horizon:
        return dataclasses.replace(asked, horizon=None)  # a new limit undoes the steps that the old run had fixed
    return asked


_CONFIG_HELP = "--config FILE takes the flags back from a run's config.json; flags given beside it win."


def _config_file(argv: list[str]) -> tuple[Path | None, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(argv)
    return known.config, rest
