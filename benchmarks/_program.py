"""What a program does besides measuring: flags, the sizes of a smoke run, the record, ratios beside recorded ones."""

import argparse
import inspect
import shutil
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from benchmarks import _compare, _record
from benchmarks._record import Found

Measure = Callable[..., Found | Iterator[Found]]


class MissingError(Exception):
    """What a program needs is not here: it is skipped, with the reason, and that is no failure."""


def main(
    name: str,
    claim: str,
    measure: Measure,
    *,
    smoke: Mapping[str, Any],
    check: Mapping[str, Any] | None = None,
    needs: str = "",
    threads: int | None = 1,
    missing: int = 0,
) -> None:
    """Measure as the command line asks and write the record ``<date>_<name>``.

    ``measure`` takes its settings by keyword. Those of a plain type are flags too: ``rounds: int = 7`` is ``--rounds
    9``, a tuple takes several values. A setting called ``runs`` is a folder in which finished runs are kept. It
    returns what it found, or yields what it has so far, which is recorded each time. ``claim`` is one sentence, in
    which settings and figures stand by name: "{ratio:.2f} of the time". ``smoke`` are the settings of ``--smoke``: the
    same code in seconds, recorded where ``--out`` says and else nowhere. ``check`` are those of ``--check``, for
    programs that measure speed: ratios beside the recorded ones (see `_compare`), and no record; ``needs`` is a setting
    without which there is no ratio. ``threads`` are those of torch, as many as it takes for None. What a program raises
    is recorded as ``<date>_<name>_failed``, and raised. ``missing`` is the exit code where there is nothing to record,
    as without what a program needs.
    """
    asked, given = _parse(name, measure, threads)
    if asked.check:
        print(_check(name, measure, check, given, needs=needs, threads=asked.threads))
        return
    chosen = dict(smoke) if asked.smoke else {}
    with tempfile.TemporaryDirectory() as scratch, _threads(asked.threads):
        settings = _defaults(measure, Path("runs", name) if not chosen else Path(scratch, "runs")) | chosen | given
        folder = Path(scratch) if asked.smoke and asked.out is None else asked.out or _record.RECORDS
        pages = folder if asked.smoke or asked.out else _record.DOCS
        found, page = _run(name, claim, measure, settings, folder, pages)
    print(page)
    if found is None and missing:
        sys.exit(missing)


def _check(
    name: str,
    measure: Measure,
    small: Mapping[str, Any] | None,
    given: Mapping[str, Any],
    *,
    needs: str,
    threads: int | None,
) -> str:
    """Ratios of a small run beside the recorded ones, or why there are none."""
    if small is None:
        return f"{name}: nothing to check, it is not about speed"
    if needs and needs not in given:
        return f"{name}: no ratio without --{needs}"
    with tempfile.TemporaryDirectory() as scratch, _threads(threads), redirect_stdout(None):
        settings = _defaults(measure, Path(scratch, "runs")) | small | given
        try:
            *_, found = _each(measure(**settings))
        except MissingError as reason:
            return f"{name}: skipped: {reason}"
    return _compare.page(name + (found.part and f"_{found.part}"), found.ratios, settings, small)


def _run(
    name: str, claim: str, measure: Measure, settings: dict[str, Any], folder: Path, pages: Path
) -> tuple[Found | None, str]:
    """Measure and write; return the last that was found and its page, or why there is none."""
    found, path = Found(rows=[], body=""), None
    try:
        for found in _each(measure(**settings)):
            full = name + (found.part and f"_{found.part}")
            words = claim.format_map(settings | found.figures)
            path = _record.write(full, claim=words, found=found, settings=settings, folder=folder)
    except MissingError as reason:
        return None, f"{name}: skipped: {reason}"
    except Exception as problem:
        found.data["failure"] = f"{type(problem).__name__}: {problem}"
        _record.write(f"{name}_failed", claim=f"{name} failed", found=found, settings=settings, folder=folder)
        raise
    for page, draw in found.pages.items():
        if not (pages / page).exists() and (_record.DOCS / page).exists():
            shutil.copy(_record.DOCS / page, pages / page)  # a part of a page is replaced in a copy of it
        draw(pages / page)
    return (found, path.read_text(encoding="utf-8")) if path else (None, f"{name}: nothing to record yet")


def _each(found: Found | Iterable[Found]) -> Iterable[Found]:
    return [found] if isinstance(found, Found) else found


def _defaults(measure: Measure, runs: Path) -> dict[str, Any]:
    """The settings of a function as it stands."""
    found = {name: p.default for name, p in inspect.signature(measure).parameters.items()}
    return found | ({"runs": runs} if "runs" in found else {})


def _parse(name: str, measure: Measure, threads: int | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """What every program understands, and the settings that are given."""
    parser = argparse.ArgumentParser(
        prog=name, description=inspect.getdoc(sys.modules[measure.__module__]), epilog=inspect.getdoc(measure),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="the same code on tiny sizes")
    parser.add_argument("--check", action="store_true", help="small sizes, ratios beside the recorded ones")
    parser.add_argument("--out", type=Path, help="folder of the record (default: benchmarks/records)")
    parser.add_argument("--threads", type=int, default=threads, help="of torch")
    settings = argparse.Namespace()
    for setting in inspect.signature(measure, eval_str=True).parameters.values():
        options = _flag(setting.annotation)
        if options is not None:
            parser.add_argument(f"--{setting.name.replace('_', '-')}", default=argparse.SUPPRESS, **options)
    asked = parser.parse_args()
    names = set(inspect.signature(measure).parameters)
    settings = {key: value for key, value in vars(asked).items() if key in names}
    return asked, {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}


def _flag(kind: Any) -> dict[str, Any] | None:
    """How argparse reads a setting of a type; None where it cannot be typed."""
    arguments = typing.get_args(kind)
    if kind is bool:
        return {"action": "store_true"}
    if kind in (int, float, str, Path):
        return {"type": kind}
    if typing.get_origin(kind) is typing.Literal:
        return {"choices": arguments}
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return _flag(next(a for a in arguments if a is not types.NoneType))
    if typing.get_origin(kind) is tuple and arguments[1:] == (...,) and arguments[0] in (int, float, str, Path):
        return {"type": arguments[0], "nargs": "*"}
    return None


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many threads of torch, and those that it had afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
