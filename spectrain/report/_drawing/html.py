"""HTML from text. Every text that came from a file passes through ``text``; nothing else builds markup.

Numbers as a reader says them: three or four digits and a unit.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from spectrain.report._drawing.figure import Figure


def digits(x: float | int | None, count: int = 4) -> str:
    """``count`` significant digits, no exponent where a person would write none.

    >>> digits(1.83372), digits(0.0021), digits(4.2e-7), digits(12345678.0), digits(291.3, 2), digits(None)
    ('1.834', '0.0021', '4.2e-7', '12,345,678', '291', 'not recorded')
    """
    if x is None:
        return "not recorded"
    if abs(x) < 1e15 and (x == int(x) or abs(x) >= 10 ** min(count, 3)):
        return f"{round(x):,}"
    return f"{x:.{count}g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def amount(x: float | int | None) -> str:
    """A count, in thousands, millions or billions.

    >>> amount(950), amount(98_304), amount(3_300_000), amount(1.25e9), amount(999_900), amount(None)
    ('950', '98.3 k', '3.3 M', '1.25 B', '1,000 k', 'not recorded')
    """
    if x is None:
        return "not recorded"
    for size, letter, start in ((1e9, "B", 1e9), (1e6, "M", 1e6), (1e3, "k", 1e4)):
        if abs(x) >= start:
            return f"{_three(x / size)} {letter}"
    return digits(x)


def duration(seconds: float | int | None) -> str:
    """A time in the two largest units that matter.

    >>> duration(0.0412), duration(42.3), duration(252), duration(7980), duration(None)
    ('41.2 ms', '42.3 s', '4 min 12 s', '2 h 13 min', 'not recorded')
    """
    if seconds is None:
        return "not recorded"
    if seconds < 1:
        return f"{_three(1e3 * seconds)} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def memory(count: float | int | None) -> str:
    """Bytes in binary units.

    >>> memory(3_221_225_472), memory(5_000_000), memory(1_060_000_000)
    ('3 GiB', '4.77 MiB', '1,011 MiB')
    """
    if count is None:
        return "not recorded"
    size, unit = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")
    return f"{_three(count / size)} {unit}"


def _three(x: float) -> str:
    """Three digits, and all before the point where there are more: no exponent."""
    return f"{x:.3g}" if abs(x) < 999.5 else f"{x:,.0f}"


def percent(share: float | int | None) -> str:
    """A share as percent.

    >>> percent(0.0825), percent(None)
    ('8.2 %', 'not recorded')
    """
    if share is None:
        return "not recorded"
    return f"{100 * share:.2g} %" if abs(share) < 0.995 else f"{100 * share:.3g} %"


def plain(value: object) -> str:
    """Any value of a JSON file as text: shapes as 256 x 256, lists with commas, numbers short.

    >>> plain([256, 1024]), plain(["a", "b"]), plain(True), plain(None), plain(0.1 + 0.2)
    ('256 × 1024', 'a, b', 'yes', '', '0.3')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        whole = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
        return (" × " if whole and len(value) > 1 else ", ").join(plain(item) for item in value)
    return str(value)


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
