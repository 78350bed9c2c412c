"""From run folders to a file: which runs, which sections, and the file written whole or not at all."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spectrain._files.write import write_text
from spectrain.report._document import document
from spectrain.report._drawing.html import Section
from spectrain.report._reading.files import Row, number, read_object
from spectrain.report._reading.run import Run, find, is_run, read
from spectrain.report._sections.check import check
from spectrain.report._sections.compare import comparison, of_runs
from spectrain.report._sections.curves import curves
from spectrain.report._sections.experts import experts
from spectrain.report._sections.horizons import horizons
from spectrain.report._sections.logits import logits
from spectrain.report._sections.overview import activations
from spectrain.report._sections.pictures import pictures
from spectrain.report._sections.polynomials import polynomials
from spectrain.report._sections.routing import routing
from spectrain.report._sections.settings import configuration, environment, samples
from spectrain.report._sections.spectra import spectra
from spectrain.report._sections.time import speed

_HALF = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair, which no UTF-8 can say: names of files that are not UTF-8, and what JSON escapes."""

_SECTIONS = (check, curves, pictures, speed, experts, logits, spectra, activations, routing, polynomials, samples,
             configuration, environment)  # fmt: skip


def write(runs: Sequence[Path], *, out: Path) -> Path:
    """Write one self-contained HTML file about run folders; return its path.

    The file holds plotly.js once and asks for nothing from anywhere: a content security policy in the page
    forbids every request and every script but its own, so text from a run can do no harm. What a run folder
    lacks is said on the page. The page counts its own drawn figures and errors and says so at its foot.

    Args:
        runs: run folders, or folders that hold run folders (as `spectrain compare` writes, with a
            ``compare.json``). Several runs are drawn together.
        out: the file to write, or a folder, which then gets a ``report.html``. Written whole or not at all.

    Raises:
        ValueError: no folder was given, or one of them is no run and holds none.

    Cost: about 5 MB, nearly all of it plotly.js; under a second for runs of some thousand steps.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     line = '{"kind": "step", "step": 1, "tokens": 64, "seconds": 0.1, "loss": 8.3}'
    ...     _ = (Path(folder) / "metrics.jsonl").write_text(line)
    ...     page = write([Path(folder)], out=Path(folder)).read_text(encoding="utf-8")
    >>> page.count("plotly.js v"), "summary.json is missing." in page
    (1, True)
    """
    page = render(runs)
    out = Path(out)
    target = out / "report.html" if out.is_dir() else out
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)
    return target


def render(runs: Sequence[Path]) -> str:
    """The page that :func:`write` writes. Raises as it does."""
    given = folders(runs)
    read_runs = _told_apart([read(path) for path in found_in(given)])
    return _HALF.sub("\ufffd", document(read_runs, sections(read_runs, compared=_compared(given))))


def folders(runs: Sequence[Path]) -> list[Path]:
    """The folders that were given. TypeError for one alone, ValueError for none."""
    if isinstance(runs, str | os.PathLike):
        raise TypeError(f"report.write: runs is a list of folders, got {str(runs)!r}. Write [{str(runs)!r}].")
    if not runs:
        raise ValueError("report.write: at least one run folder is needed, got none. Give a folder of a run.")
    return [Path(run) for run in runs]


def found_in(given: Sequence[Path]) -> list[Path]:
    """The run folders in these folders, each once. ValueError for a folder without any."""
    return list(dict.fromkeys(path for folder in given for path in find(folder)))


def _compared(given: Sequence[Path]) -> list[Row]:
    """The ``compare.json`` of each folder of runs that has one."""
    written = [folder / "compare.json" for folder in given if not is_run(folder)]
    return [read_object(path, notes=[]) for path in written if path.is_file()]


def _told_apart(runs: list[Run]) -> list[Run]:
    """Runs of one name get their parent's name in front."""
    names = [run.name for run in runs]
    return [
        replace(run, name=f"{run.path.resolve().parent.name}/{run.name}") if names.count(run.name) > 1 else run
        for run in runs
    ]


def sections(runs: Sequence[Run], *, compared: Sequence[Row]) -> list[Section]:
    """The sections that these runs have something for; of several comparisons, the longest and how they go on."""
    longest = max(compared, key=lambda one: number(one.get("horizon")) or 0.0, default={})
    compares = [horizons(compared), comparison(longest or of_runs(runs))] if len(runs) > 1 else []
    built = [*compares, *(section(runs) for section in _SECTIONS)]
    return [section for section in built if section is not None]
