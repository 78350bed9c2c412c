"""``spectrain report``: one HTML page from run folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spectrain import report
from spectrain.cli._parse import parse


@dataclass(frozen=True)
class Report:
    """Make one self-contained report.html from run folders, or from a folder of runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    out: Path | None = None
    """Where to write. Default: report.html in the first folder."""


def main(argv: list[str]) -> int:
    """Write the report and say where."""
    asked = parse(Report, argv, prog="spectrain report")
    if not asked.runs:
        raise ValueError("report needs at least one run folder, e.g. spectrain report runs/NAME.")
    print(report.write(list(asked.runs), out=asked.out or asked.runs[0] / "report.html"))
    return 0
