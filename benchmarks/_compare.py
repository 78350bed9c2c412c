"""Ratios of a small run beside the recorded ones of the same case, with a mark where one moved.

A ratio bears the name of its case, as shape, dtype and method, and of what is divided by what. It stands beside the
recorded ratio of that very name, never beside a mean or the worst of several cases; without one, beside a dash.

What names do not say, settings do. Those that the check leaves alone have to be as they were recorded; of lists and
tables it may take a part, and it may leave out a peer, or what was switched on. Otherwise nothing is compared, and the
page says which setting is another. Single values that the check sets itself, as the number of rounds, are free.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from benchmarks import _record

MOVED = 4 / 3
MARK = "<--"


def page(name: str, ratios: Mapping[str, float], settings: Mapping[str, Any], free: Collection[str]) -> str:
    """A line for each ratio: here, recorded, here / recorded; above them where and when that was, or why not."""
    path = _record.newest(name, _record.RECORDS)
    record = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    others = differing(_record.plain(settings), record.get("settings", {}), free)
    figures = {} if others else record.get("figures", {})
    wide = max(map(len, ratios), default=0)
    lines = [f"{'':{wide}}      here  recorded  here / recorded"]
    lines += [_line(f"{case:{wide}}", here, figures.get(case)) for case, here in ratios.items()]
    if path is None:
        words = "no record"
    elif others:
        words = f"nothing to compare: recorded {path.name[:10]} with {', '.join(others)}"
    else:
        words = f"recorded {path.name[:10]}{_elsewhere(record)}"
    return "\n".join([f"{name}: {words}", *(lines if ratios else ["no ratio"])])


def _line(case: str, here: float, recorded: float | None) -> str:
    if not recorded:
        return f"{case} {here:9.3g}         -                -"
    moved = here / recorded
    mark = "" if 1 / MOVED <= moved <= MOVED else f"  {MARK}"
    return f"{case} {here:9.3g} {recorded:9.3g} {moved:16.2f}{mark}"


def differing(now: Mapping[str, Any], then: Mapping[str, Any], free: Collection[str]) -> list[str]:
    """The settings of a record, by name and value, with which it measured something else."""
    return [
        f"{key} {then[key]}"
        for key, value in now.items()
        if key in then and key != "runs" and not (key in free and _single(value)) and not _part(value, then[key])
    ]


def _single(value: object) -> bool:
    return isinstance(value, bool | int | float | str)


def _part(value: Any, whole: Any) -> bool:
    """Whether a setting asks for what was recorded, or for less of it."""
    if value is None or value is False:
        return True
    if isinstance(value, dict) and isinstance(whole, dict):
        return all(key in whole and whole[key] == item for key, item in value.items())
    if isinstance(value, list) and isinstance(whole, list):
        return all(item in whole for item in value)
    return bool(value == whole)


def _elsewhere(record: Mapping[str, Any]) -> str:
    """What else a reader has to know of a record: another processor, other threads, settings that nobody wrote down."""
    here, there = _record.machine(), record.get("machine")
    there = there if isinstance(there, dict) else {"cpu": "a machine without a name"}
    words = "" if there["cpu"] == here["cpu"] else f" on {there['cpu']}"
    words += "" if there.get("threads", 1) == here["threads"] else f", threads {there['threads']}"
    return words + ("" if "settings" in record else ", settings not written down")
