"""What mkdocs does to pages beyond its plugins: names of a layer become its reference, formulas become MathML."""

import ast
import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

ROOT = Path(__file__).parents[2]
_DOOR = re.compile(r"^\[\[names of (spectrain(?:\.\w+)*)\]\]$", re.MULTILINE)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


_FOR_MAINTAINERS = {"architecture.md", "names.md", "decisions.md", "complaints.md", "log.md"}


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """A line ``[[names of spectrain.optim]]`` becomes the reference of each name at that door.

    The start page has the whole width; what is for maintainers is not found by users' searches.
    """
    source = page.file.src_uri.replace(".zh.md", ".md")
    if source == "index.md":
        page.meta["hide"] = ["navigation", "toc"]
    if source in _FOR_MAINTAINERS:
        page.meta["search"] = {"exclude": True}
    homes: set[str] = set()

    def entries(found: re.Match[str]) -> str:
        new = [pair for pair in _names(found[1]) if pair[0] not in homes]  # a room may repeat what its layer shows
        homes.update(home for home, _ in new)
        return "\n\n".join(map(_entry, new))

    return _DOOR.sub(entries, markdown)


def on_page_content(content: str, **_: object) -> str:
    """Formulas in MathML, which browsers set themselves: no script, no network."""
    return _FORMULA.sub(
        lambda found: convert(html.unescape(found[3]), display="inline" if found[2] == "(" else "block"), content
    )


def _names(place: str) -> list[tuple[str, str]]:
    """Where each name of a door comes from, and what users call it; rooms have pages or headings of their own."""
    file = ROOT / place.replace(".", "/")
    source = (file / "__init__.py" if file.is_dir() else file.with_suffix(".py")).read_text(encoding="utf-8")
    opened = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    promised = next((node for node in opened if ast.unparse(node.test) == "TYPE_CHECKING"), None)
    if promised is None:  # a room that holds its code
        here = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        return [(f"{place}.{n.name}", f"{place}.{n.name}") for n in here if not n.name.startswith("_")]
    imports = [node for node in promised.body if isinstance(node, ast.ImportFrom)]
    named = [(f"{node.module}.{alias.name}", f"{place}.{alias.name}") for node in imports for alias in node.names]
    return [(home, name) for home, name in named if home != name]


def _entry(pair: tuple[str, str]) -> str:
    home, name = pair
    short = name.removeprefix("spectrain.")
    return f"::: {home}\n    options:\n      heading: {short}\n      toc_label: {short}"
