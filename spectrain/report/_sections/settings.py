"""Samples, configuration and environment: the text part of the page."""

from collections.abc import Callable, Sequence

from spectrain.report._drawing.html import Section, definitions, details, paragraph, plain, table, tag, text
from spectrain.report._drawing.series import front
from spectrain.report._reading.files import Row
from spectrain.report._reading.run import Run


def samples(runs: Sequence[Run]) -> Section | None:
    """The section on samples, as the model wrote them."""
    shown = [run for run in front(runs) if run.samples]
    if not shown:
        return None
    parts = []
    for run in shown:
        blocks = "".join(_sample(*block) for block in run.samples)
        parts.append(blocks if len(shown) == 1 else details(run.name, blocks))
    return Section("samples", "Samples", list(parts))


def _sample(heading: str, body: str) -> str:
    caption = tag("figcaption", text(heading)) if heading else ""
    return tag("figure", caption + tag("pre", text(body)), of="sample")


def flat(row: Row, *, prefix: str = "") -> dict[str, str]:
    """A JSON object as dotted names and texts.

    >>> flat({"a": 1, "b": {"c": [2, 3]}})
    {'a': '1', 'b.c': '2 × 3'}
    """
    result: dict[str, str] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            result |= flat(value, prefix=f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = _lines(value) if isinstance(value, list) else plain(value) or "none"
    return result


def _lines(items: list[object]) -> str:
    """A list: one line each where an item is a sentence, else in one line."""
    texts = [plain(item) for item in items]
    return "\n".join(texts) if any(len(text) > 30 for text in texts) else plain(items) or "none"


def configuration(runs: Sequence[Run]) -> Section | None:
    """The section on the configuration: all of one run, the differences of several."""
    return _settings("configuration", "Configuration", runs, lambda run: run.config)


def environment(runs: Sequence[Run]) -> Section | None:
    """The section on the machine and the versions."""
    return _settings("environment", "Environment", runs, lambda run: run.environment)


def _settings(name: str, title: str, runs: Sequence[Run], of: Callable[[Run], Row]) -> Section | None:
    columns = [flat(of(run)) for run in runs]
    keys = list(dict.fromkeys(key for found in columns for key in found))
    if not keys:
        return None
    if len(runs) == 1:
        return Section(name, title, [definitions(list(columns[0].items()))])
    rows = {key: [found.get(key, "") for found in columns] for key in keys}
    differ = [[key, *cells] for key, cells in rows.items() if len(set(cells)) > 1]
    same = [(key, cells[0]) for key, cells in rows.items() if len(set(cells)) == 1]
    parts = [table(["setting", *(run.name for run in runs)], differ, of="settings")] if differ else []
    if not differ:
        parts.append(paragraph("The runs do not differ here."))
    if same:
        parts.append(details(f"The same in all runs: {len(same)} settings", definitions(same)))
    return Section(name, title, list(parts))
