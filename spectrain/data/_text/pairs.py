"""Pairs of a question and what answers it: JSON lines, or the standard library's functions and their docstrings."""

import ast
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spectrain.data._text.document import DataError, Document
from spectrain.data._text.files import read_standard_library
from spectrain.data._text.json_line import parse, string
from spectrain.data._text.open import lines, refuse_nothing


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and the document it should find; ``group`` (a module, a source) stays on one side of a split."""

    query: str
    document: str
    group: str


def read_pairs(paths: Sequence[str | Path] | None = None) -> list[Pair]:
    r"""Read pairs from JSON-lines files; ``None``: the functions of Python's standard library with their docstrings.

    Of the standard library: the query is the docstring's first line, the document the function's source without
    its docstring (the name stays), the group its module; queries of a single word are left out.

    A line of a file is an object with the strings ``query`` and ``document``, and ``group`` if groups matter;
    without it each pair is a group of its own. Blank lines are skipped.

    Raises DataError for a file that is not there or not UTF-8, for a line that is no such object (naming file, line
    and field), and when no pair is left.

    >>> pairs = read_pairs()
    >>> [pair.query for pair in pairs if pair.document.startswith("def dumps(") and pair.group == "json/__init__.py"]
    ['Serialize ``obj`` to a JSON formatted ``str``.']
    """
    if isinstance(paths, str | Path):
        raise TypeError(f"read_pairs takes a list of paths, got {paths!r}; write [{str(paths)!r}]")
    for path in paths or ():
        refuse_nothing(path)
    if paths is None:
        found = [pair for document in read_standard_library() for pair in functions_of(document)]
    else:
        found = [pair for path in paths for pair in _lines(Path(path))]
    pairs = list(dict.fromkeys(found))
    if not pairs:
        raise DataError('no pair was found; give JSON lines such as {"query": "...", "document": "..."}.')
    return pairs


def functions_of(document: Document) -> Iterator[Pair]:
    """The functions of a Python source that have a docstring. Nothing for a source that does not parse."""
    try:
        with warnings.catch_warnings():  # old sources have escapes that the compiler warns of
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(document.text)
    except (SyntaxError, ValueError):
        return
    lines = document.text.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            query = text.strip().splitlines()[0].strip() if text.strip() else ""
            code = _without_docstring(node, lines)
            if len(query.split()) > 1 and code:
                yield Pair(query, code, document.name)


def _without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> str:
    """The source of a function without decorators and docstring; empty where a docstring is all it has."""
    text = node.body[0]
    if len(node.body) == 1 or text.end_lineno is None or node.end_lineno is None or text.lineno == node.lineno:
        return ""
    kept = [*lines[node.lineno - 1 : text.lineno - 1], *lines[text.end_lineno : node.end_lineno]]
    return "".join(line[node.col_offset :] if line[: node.col_offset].isspace() else line for line in kept)


def _lines(path: Path) -> Iterator[Pair]:
    for number, line in enumerate(lines(path, pipe=True), start=1):
        if line.strip():
            yield _pair(line, where=f"{path}, line {number}")


def _pair(line: bytes, *, where: str) -> Pair:
    row = parse(line, where=where, holds="a pair is an object with query and document")
    for field in ("query", "document"):
        if not string(row.get(field), field, where=where, names=row, advice="give it one").strip():
            raise DataError(f"{where}: the field {field!r} must be a string that is not empty, got {row[field]!r}.")
    group = row.get("group")
    if isinstance(group, dict | list):
        raise DataError(f"{where}: the field 'group' must be a string or a number, got a {type(group).__name__}.")
    return Pair(row["query"], row["document"], where if group is None else str(group))


def split_pairs(
    pairs: Sequence[Pair], *, fraction: float, seed: int, part: str = "held out"
) -> tuple[list[Pair], list[Pair]]:
    """Divide pairs into ``(rest, part)`` by group, about ``fraction`` of the pairs in ``part``; for ever the same.

    Groups are taken in the order of SHA-256(seed, part, group) while they fit. Raises DataError when there are too few
    groups to have both sides.

    >>> pairs = [Pair(f"q{i}", f"d{i}", f"g{i // 5}") for i in range(100)]
    >>> rest, held_out = split_pairs(pairs, fraction=0.2, seed=0)
    >>> len(rest), len(held_out), {p.group for p in rest} & {p.group for p in held_out}
    (80, 20, set())
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.group, []).append(pair)
    room, chosen = fraction * len(pairs), set[str]()
    for name in sorted(groups, key=lambda name: hashlib.sha256(f"{seed}/{part}/{name}".encode()).digest()):
        if len(groups[name]) <= room:
            chosen.add(name)
            room -= len(groups[name])
    rest = [pair for pair in pairs if pair.group not in chosen]
    taken = [pair for pair in pairs if pair.group in chosen]
    if not rest or not taken:
        raise DataError(
            f"{len(pairs)} pairs in {len(groups)} groups cannot be divided at a fraction of {fraction}; give more "
            "pairs, or smaller groups."
        )
    return rest, taken
