"""HTML from text. Every text that came from a file passes through ``text``; nothing else builds markup."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from spectrain.report._drawing.figure import Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: a heading, and figures and pieces of markup in order."""

    name: str
    title: str
    parts: list[Figure | str] = field(default_factory=list)

    @property
    def figures(self) -> list[Figure]:
        """The figures among the parts."""
        return [part for part in self.parts if isinstance(part, Figure)]


def text(value: object) -> str:
    """Escaped text, safe between tags and in quoted attributes.

    >>> text("</script><b>")
    '&lt;/script&gt;&lt;b&gt;'
    """
    return html.escape(str(value), quote=True)


def tag(name: str, content: str, *, of: str = "") -> str:
    """An element around markup, with an optional class."""
    return f'<{name} class="{of}">{content}</{name}>' if of else f"<{name}>{content}</{name}>"


def paragraph(content: object, *, of: str = "") -> str:
    """A paragraph of text."""
    return tag("p", text(content), of=of)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, of: str = "") -> str:
    """A table that scrolls sideways on a narrow screen; columns that are all numbers are set to the right."""
    right = [_numeric([row[i] for row in rows]) for i in range(len(head))]

    def cells(kind: str, row: Sequence[str]) -> str:
        return "".join(tag(kind, text(cell), of="n" if r else "") for cell, r in zip(row, right, strict=True))

    body = "".join(tag("tr", cells("td", row)) for row in rows)
    whole = tag("thead", tag("tr", cells("th", head))) + tag("tbody", body)
    return tag("div", tag("table", whole, of=of), of="scroll")


def _numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell and cell != "not recorded"]
    return bool(filled) and all(cell[0].isdigit() or cell[0] in "-." for cell in filled) and max(map(len, filled)) < 16


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values in as many columns as fit."""
    rows = (("wide" if "\n" in value else "", tag("dt", text(name)) + tag("dd", text(value))) for name, value in pairs)
    return tag("dl", "".join(tag("div", row, of=of) for of, row in rows))


def details(summary: str, content: str) -> str:
    """Markup behind a line that opens it."""
    return tag("details", tag("summary", text(summary)) + content)


def side_by_side(figures: Sequence[Figure]) -> list[Figure | str]:
    """Figures that share a row where the screen is wide enough."""
    return ['<div class="row">', *figures, "</div>"] if figures else []
