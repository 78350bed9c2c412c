"""Flags read by tyro or argparse, whose boxes and usage lines about a wrong one become a single sentence."""

import argparse
import contextlib
import dataclasses
import difflib
import io
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn
from unittest import mock

from spectrain._extras import wanted_by
from spectrain.cli._help import as_kind, with_help

_WIDE = "100000"
"""Columns at which no message is wrapped."""
_NO_TYPE = re.compile(r"Error parsing (--\S+): no type matching (.+?) could be instantiated from \[(.*?)\]")
_MISSING = re.compile(r"Missing value for argument '(--\S+)'")
_UNKNOWN = re.compile(r"Unrecognized options: (.*)")
_LITERAL = re.compile(
    r"Error parsing (--\S+): (?:invalid literal for (int)\(\).*|could not convert string to (float)): (.*)"
)
_CHOICE = re.compile(r"invalid choice (.+?) for argument '(--\S+)'\. Expected one of \((.*?),?\)\.")


def parse(kind: Any, argv: Sequence[str], *, prog: str, **more: Any) -> Any:
    """What ``tyro.cli`` makes of ``argv``; a wrong flag is a ``ValueError`` of one line. Help leaves as it does."""
    with wanted_by(prog):
        import tyro

    fields = dataclasses.is_dataclass(kind)  # else a function
    told = with_help(kind) if fields else kind
    if fields and more.get("default") is not None:
        more["default"] = as_kind(told, more["default"])

    def read() -> Any:
        found = tyro.cli(told, args=list(argv), prog=prog, **more)
        return as_kind(kind, found) if fields else found

    quiet = io.StringIO()
    try:
        with contextlib.redirect_stderr(quiet):
            return read()
    except SystemExit as leaving:
        if not leaving.code:
            raise
    wide = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS=_WIDE), contextlib.redirect_stderr(wide), contextlib.suppress(SystemExit):
        read()
    raise ValueError(_sentence(wide.getvalue(), prog, argv))


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose complaint is a ``ValueError`` of one line."""

    def error(self, message: str) -> NoReturn:
        """Say what argparse says, without the usage."""
        raise ValueError(f"{message.removeprefix('argument ')}; see {self.prog} --help.")


def _sentence(box: str, prog: str, argv: Sequence[str]) -> str:
    """The first paragraph of tyro's box, in this project's words where they are known.

    >>> _sentence("╭─ x ─╮\\n│ Unrecognized options: --dept, 3 │\\n│ ─── │", "spectrain train", ["--dept", "3"])
    'spectrain train has no --dept; see spectrain train --help.'
    """
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    parts: list[list[str]] = [[]]
    for line in lines:
        if line and set(line) <= set("─-"):
            parts.append([])
        elif line:
            parts[-1].append(line)
    bare = not box.startswith("╭")  # where standard output is no UTF-8 the title is a part, and rules are hyphens
    said = " ".join(next((part for part in parts[bare:] if part), []))
    near = [word for line in lines for word in re.findall(r"^(--[\w-]+)", line)]
    if found := _UNKNOWN.match(said):
        wrong = next((word for word in found[1].split(", ") if word.startswith("-")), found[1].split(", ")[0])
        guess = difflib.get_close_matches(wrong, near, n=1)
        hint = f" Did you mean {guess[0]}?" if guess else ""
        return f"{prog} has no {wrong}{'.' if hint else ';'}{hint}{' See' if hint else ' see'} {prog} --help."
    if found := _MISSING.match(said):
        return f"{found[1]} needs a value; see {prog} --help."
    if found := _NO_TYPE.match(said):
        kinds = found[2].replace("{None}|", "").replace("|{None}", "")
        left_out = " or, to leave it out, None" if found[3].strip("'").lower() in ("none", "null", "") else ""
        return f"{found[1]} takes {kinds}{left_out}, got {found[3]}; see {prog} --help."
    if found := _LITERAL.match(said):
        return f"{found[1]} takes {(found[2] or found[3]).upper()}, got {found[4]}; see {prog} --help."
    if found := _CHOICE.match(said):
        return f"{found[2]} must be one of {found[3].replace(chr(39), '')}, got {found[1]}."
    return re.sub(r"^Error parsing [\w.]+: ", "", said) or f"these flags cannot be read: {' '.join(argv)}."
