"""Configurations in files: written whole, read back by the class of their job, checked by name and type."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from spectrain._files.read import NOT_FINITE, read_object
from spectrain._files.write import write_json
from spectrain.train._mesh.environment import Started, started
from spectrain.train._mesh.layout import layout
from spectrain.train._run.claim import LOCK, named_folder
from spectrain.train._run.config import Config, RunConfig
from spectrain.train._run.free import FREE
from spectrain.train._run.jobs import JOBS, config_class


@contextmanager
def in_folder(config: Config) -> Iterator[Config]:
    """Hold the run folder that ``config`` names; where it names none a new one in runs/, by date, job and optimizer.

    Of several processes that ``torchrun`` started rank 0 holds it for all. Raises what ``claimed`` raises, and
    ``ValueError`` where such processes cannot do this together.
    """
    start, wish = started(), config.wish
    if start is None:
        if wish is not None:
            layout(wish.mesh, tensor=wish.tensor, experts=wish.experts, ranks=1)
        with named_folder(config.out_dir, config.slug) as folder:
            yield dataclasses.replace(config, out_dir=str(folder))
        return
    if wish is None:
        raise ValueError(f"{config.command()} runs in one process, and torchrun started {start.world}.")
    _check_restarts(config, start)
    stand = layout(wish.mesh, tensor=wish.tensor, experts=wish.experts, ranks=start.world)
    # Loads torch, which one process that only asks for help does not need.
    from spectrain.train._mesh.join import joined, wishes_of
    from spectrain.train._mesh.seen import check_seen

    with (
        joined(start, stand, wishes=wishes_of(config, ("out_dir",)), timeout=wish.timeout) as ranks,
        ExitStack() as held,
    ):
        found = ranks.by_first(lambda: str(held.enter_context(named_folder(config.out_dir, config.slug))))
        check_seen(ranks, Path(found) / LOCK)
        yield dataclasses.replace(config, out_dir=found)


def _check_restarts(config: RunConfig, start: Started) -> None:
    """A run that ``torchrun`` may start again has to find itself again."""
    if start.restarts and not (config.out_dir and config.resume == "auto"):
        raise ValueError(
            f"torchrun --max-restarts {start.restarts} starts the run again when a rank ends: give --out-dir and "
            "--resume auto, so that it goes on where it was."
        )


def fresh_config(recorded: Config) -> Config:
    """A run's configuration as the start of a new run: the same choices in another folder."""
    return dataclasses.replace(recorded, out_dir="", resume="never")


def write(config: RunConfig, path: Path) -> None:
    """Write ``config`` as flat JSON, whole or not at all."""
    write_json(path, {"job": config.job, **dataclasses.asdict(config)})


def read_config(path: Path, kind: type[Config]) -> Config:
    """The configuration of the class ``kind`` in a ``config.json``.

    Raises ``ValueError`` for a file that is no such JSON, for one of another job, for an unknown key
    (with the nearest name) and for a value of the wrong type; ``FileNotFoundError`` where there is none.
    """
    found = read_any(path)
    if not isinstance(found, kind):
        raise ValueError(
            f"{path} is of a run of '{found.command()}', not of '{kind.command()}'. "
            f"Use '{found.command()}', or give another folder."
        )
    return found


def read_any(path: Path) -> RunConfig:
    """The configuration in a ``config.json``, of whatever job; see :func:`read_config`."""
    values = read_object(path, what="a run's config.json", constants=NOT_FINITE)  # clip may be infinite
    job = values.pop("job", "train")
    if job not in JOBS:
        raise ValueError(f"{path}: unknown job {job!r}; known jobs: {', '.join(sorted(JOBS))}.")
    kind = config_class(job)
    return from_values(kind, {**kind.added, **values}, source=str(path))


def resumed(recorded: Config, wanted: Config) -> Config:
    """The recorded configuration, for a run that goes on.

    A field of ``wanted`` that stands at its default asks for nothing. Raises ``ValueError`` naming the
    first other field that differs from what the run was started with: a resumed run replays its choices.
    """
    check_same(recorded, wanted, unless=type(recorded)())
    return free_of(recorded, wanted)


def free_of(recorded: Config, wanted: Config) -> Config:
    """The recorded configuration with what may differ as it is ``wanted`` now."""
    free = [field.name for field in dataclasses.fields(recorded) if field.name in FREE]
    return dataclasses.replace(recorded, **{name: getattr(wanted, name) for name in free})


def check_same(recorded: RunConfig, wanted: RunConfig, *, unless: RunConfig | None = None) -> None:
    """Refuse a configuration that differs from the recorded one, except where it equals ``unless``."""
    names = [field.name for field in dataclasses.fields(recorded) if field.name not in FREE]
    for flag, asked, used in differing(recorded, wanted, names, unless=unless):
        raise ValueError(
            f"{flag} {asked} differs from the run's {used}, and a resumed run keeps its configuration. Leave the flag "
            "out, or start a new run in another --out-dir."
        )


def differing(
    recorded: RunConfig, wanted: RunConfig, names: Iterable[str], *, unless: RunConfig | None = None
) -> Iterator[tuple[str, object, object]]:
    """Flag, wanted and recorded value of those fields that differ, except where the wanted one equals ``unless``."""
    for name in names:
        asked, used = getattr(wanted, name), getattr(recorded, name)
        if asked != used and (unless is None or asked != getattr(unless, name)):
            yield f"--{name.replace('_', '-')}", asked, used


def from_values(kind: type[Config], values: dict[str, object], *, source: str) -> Config:
    """A configuration from plain values, checked by name and by type."""
    hints = typing.get_type_hints(kind)
    types = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known keys: {', '.join(sorted(types))}."
            raise ValueError(f"{source}: unknown key {key!r}.{hint}")
        if not _fits(value, types[key]):
            raise ValueError(f"{source}: {key} must be {_spell(types[key])}, got {value!r}.")
    return kind(**{key: _as(value, types[key]) for key, value in values.items()})  # type: ignore[arg-type]


def _as(value: object, kind: object) -> object:
    """JSON has lists for tuples and may write 1 for 1.0."""
    if isinstance(value, list):
        return tuple(_as(item, typing.get_args(kind)[0]) for item in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and float in (kind, *typing.get_args(kind)) else value  # type: ignore[arg-type]


def _fits(value: object, kind: object) -> bool:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return value in typing.get_args(kind)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(item, typing.get_args(kind)[0]) for item in value)
    options = typing.get_args(kind) or (kind,)
    if isinstance(value, bool):
        return bool in options
    return isinstance(value, options) or (isinstance(value, int) and float in options)


def _spell(kind: object) -> str:
    return str(kind).removeprefix("typing.") if typing.get_args(kind) else getattr(kind, "__name__", str(kind))
