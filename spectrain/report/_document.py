"""The document: sections in order, one copy of plotly.js, no request to anywhere."""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from spectrain.report._drawing.figure import Figure, View
from spectrain.report._drawing.html import Section, tag, text
from spectrain.report._headline import headline, notes, title
from spectrain.report._reading.run import Run


def document(runs: Sequence[Run], parts: Sequence[Section]) -> str:
    """The whole HTML document."""
    figures = [fig for section in parts for fig in section.figures]
    scripts = [_asset("check.js"), get_plotlyjs(), _asset("page.js")]
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title(runs))}</title><style>{_asset('page.css')}</style><script>{scripts[0]}</script>"
    )
    data = f'<script type="application/json" id="figures">{embedded([plain_figure(fig) for fig in figures])}</script>'
    body = _body(runs, parts) + data + "".join(f"<script>{script}</script>" for script in scripts[1:])
    start = '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    return f"{start}{head}</head><body>{body}</body></html>\n"


def _asset(name: str) -> str:
    return (files("spectrain.report") / "assets" / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """No request at all; only these scripts, by their hashes. Styles inline, since plotly writes its own."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def embedded(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    dense = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return dense.replace("<", "\\u003c")


def plain_figure(fig: Figure) -> dict[str, Any]:
    """A figure as the page's script reads it; numbers to six digits, what is not finite as null."""
    views = {",".join(map(str, key)): _view(view) for key, view in fig.views.items()}
    controls = [{"label": name, "options": options} for name, options in fig.controls]
    return {"name": fig.name, "controls": controls, "views": views}


def _view(view: View) -> dict[str, Any]:
    parts = {"title": view.title, "data": view.traces, "layout": view.layout, "narrow": view.narrow}
    return {key: _short(part, view.digits) for key, part in parts.items()}


def _short(value: Any, count: int) -> Any:
    """Numbers to ``count`` digits, None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{count}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _short(item, count) for key, item in value.items()}
    return [_short(item, count) for item in value] if isinstance(value, list | tuple) else value


def _body(runs: Sequence[Run], parts: Sequence[Section]) -> str:
    links = "".join(f'<a href="#{section.name}">{text(section.title)}</a>' for section in parts)
    button = '<button id="theme" type="button" aria-label="light or dark page">light / dark</button>'
    names = " · ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs"
    top = tag("p", f"spectrain report: {text(names)}", of="kicker") + tag("h1", text(title(runs)))
    header = tag("header", tag("nav", links + button) + top + notes(runs) + headline(runs))
    main = tag("main", "".join(_section(section) for section in parts))
    warning = "<noscript><p>The figures of this page need JavaScript; the tables and samples do not.</p></noscript>"
    return header + warning + main + '<footer><p id="check">The figures have not been drawn.</p></footer>'


def _section(section: Section) -> str:
    parts = "".join(_slot(part) if isinstance(part, Figure) else part for part in section.parts)
    return f'<section id="{section.name}"><h2>{text(section.title)}</h2>{parts}</section>'


def _slot(fig: Figure) -> str:
    """The place of a figure: its title, controls and caption around the drawing."""
    heading = tag("h3", text(fig.first.title))
    drawing = f'<div class="plot" data-height="{fig.height}" role="img" aria-label="{text(fig.first.title)}"></div>'
    caption = tag("figcaption", text(fig.caption)) if fig.caption else ""
    content = f'{heading}<div class="controls"></div>{drawing}{caption}'
    return f'<figure class="chart" id="{fig.name}">{content}</figure>'
