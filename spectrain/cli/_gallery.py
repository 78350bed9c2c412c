"""``spectrain gallery``: list the études, or run one with its flags and draw it."""

import dataclasses
import difflib
import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from spectrain import gallery
from spectrain._drawing import save
from spectrain.cli._parse import parse


def main(argv: list[str]) -> int:
    """Run ``spectrain gallery ARGV`` and return the exit code: 0, or 2 after a message about bad input.

    With nothing after it, or with --help, the études are listed with the first line of each docstring.

    >>> main([]) == main(["--help"]) == 0                              # doctest: +ELLIPSIS
    Études (spectrain gallery NAME --help for the flags of one):
    ...
    True
    """
    etudes = gallery.etudes()
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, etudes))
        print("Études (spectrain gallery NAME --help for the flags of one):")
        print("\n".join(f"  {name:{width}}  {first}" for name, first in etudes.items()))
        return 0
    name = argv[0].replace("-", "_")
    if name not in etudes:
        near = difflib.get_close_matches(name, etudes, n=1, cutoff=0.0)
        return _complain(f"there is no étude {argv[0]!r}; did you mean {near[0]!r}? All: {', '.join(etudes)}.")
    try:
        return _run(name, argv[1:])
    except (ValueError, OSError) as problem:
        return _complain(str(problem))
    except SystemExit as leaving:  # tyro has printed the help
        return leaving.code if isinstance(leaving.code, int) else 2


def _run(name: str, flags: list[str]) -> int:
    """Read the flags of an étude from the fields of its ``Show``, run it, and draw what it returns."""
    show: Any = importlib.import_module(f"spectrain.gallery.{name}").Show
    where = tyro.conf.arg(help="where to draw: a .html page that can be played with, or a .svg picture")
    out = dataclasses.field(default=Path(f"{name}.html"))
    fields: list[Any] = [("show", Annotated[show, tyro.conf.OmitArgPrefixes]), ("out", Annotated[Path, where], out)]
    command = dataclasses.make_dataclass("Command", fields)
    given: Any = parse(command, flags, prog=f"spectrain gallery {name}", description=show.__doc__)
    text, picture = given.show()
    print(text)
    save(picture, given.out)
    print(f"drawn: {given.out}")
    return 0


def _complain(message: str) -> int:
    print(f"spectrain gallery: {message}", file=sys.stderr)
    return 2
