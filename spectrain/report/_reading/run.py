"""One training run as its folder tells it.

Rows of metrics by name, spectra of parameters or statistics of activations, over training, run by run.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from spectrain.report._reading.files import Row, number, objects, read_blocks, read_lines, read_object, read_rows

_MOST_TIMES = 80


History = dict[str, list[Row]]


def history_of(found: Sequence[Row]) -> History:
    """The rows of each name, at most ``_MOST_TIMES`` of them."""
    rows: History = defaultdict(list)
    for row in found:
        rows[str(row.get("name", "unnamed"))].append(row)
    return {name: _fewer(history) for name, history in rows.items()}


def which(histories: dict[str, History]) -> list[tuple[str, list[str]]]:
    """The control that chooses the run, when there are several."""
    return [("run", list(histories))] if len(histories) > 1 else []


def _fewer(rows: list[Row]) -> list[Row]:
    if len(rows) <= _MOST_TIMES:
        return rows
    return [rows[round(i * (len(rows) - 1) / (_MOST_TIMES - 1))] for i in range(_MOST_TIMES)]


def key_of(histories: dict[str, History], index: int) -> tuple[int, ...]:
    """The part of a view's key that names the run."""
    return (index,) if len(histories) > 1 else ()


_MARKS = ("config.json", "metrics.jsonl", "summary.json", "environment.json", "check.json")


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder holds. Anything may be empty; ``notes`` says in plain words what is missing.

    ``steps``, ``evals``, ``spectra``, ``activations`` and ``pictures`` are the lines of ``metrics.jsonl`` by kind in
    order of steps, one per step (and parameter, activation or sheet): the last written, where a resumed run wrote a
    step twice.
    """

    path: Path
    name: str
    config: Row = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    summary: Row = field(default_factory=dict)
    steps: list[Row] = field(default_factory=list)
    evals: list[Row] = field(default_factory=list)
    spectra: list[Row] = field(default_factory=list)
    activations: list[Row] = field(default_factory=list)
    pictures: list[Row] = field(default_factory=list)
    routing: list[Row] = field(default_factory=list)
    schedules: list[Row] = field(default_factory=list)
    samples: list[tuple[str, str]] = field(default_factory=list)
    check: Row = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def optimizer(self) -> str:
        """The optimizer as people write it."""
        return proper_name(self.config.get("optimizer", "optimizer not recorded"))

    def final(self, key: str) -> float | None:
        """A final figure: of ``summary.json``, else of the last evaluation or step that has it.

        The summary calls the final loss ``validation_loss``.
        """
        stated = number(self.summary.get({"loss": "validation_loss"}.get(key, key)))
        rows = chain([self.summary], reversed(self.evals), reversed(self.steps))
        found = (number(row.get(key)) for row in rows)
        return stated if stated is not None else next((value for value in found if value is not None), None)


def proper_name(optimizer: object) -> str:
    """An optimizer as people write it.

    >>> proper_name("adamw"), proper_name("lion")
    ('AdamW', 'lion')
    """
    known = {"muon": "Muon", "normuon": "NorMuon", "muoneq": "MuonEq", "adamw": "AdamW", "sgd": "SGD", "soap": "SOAP"}
    return {**known, "torch-muon": "torch.optim.Muon"}.get(str(optimizer).lower(), str(optimizer))


def is_run(folder: Path) -> bool:
    """Whether a folder has any file that only a run has."""
    return any((folder / mark).is_file() for mark in _MARKS)


def _children(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and is_run(child))


def find(folder: Path) -> list[Path]:
    """The run folders that ``folder`` stands for: itself, or the runs inside it.

    Raises ValueError when it is no folder, or neither it nor a folder inside is a run.
    """
    if not folder.is_dir():
        raise ValueError(
            f"report: a run folder is needed, got {str(folder)!r}, which is no folder. "
            "Give the folder that `spectrain train` wrote, the one with config.json and metrics.jsonl."
        )
    found = [folder] if is_run(folder) else _children(folder)
    if not found:
        raise ValueError(
            f"report: no run in {str(folder)!r}: it has none of {', '.join(_MARKS)}, nor has a folder in it. "
            "Give the folder that `spectrain train` or `spectrain compare` wrote."
        )
    return found


def read(run: Path) -> Run:
    """Read a run folder, forgiving: what is missing, cut off or damaged is said in ``.notes``.

    Args:
        run: folder with any of ``config.json``, ``environment.json``, ``metrics.jsonl``, ``routing.json``,
            ``polynomials.json``, ``samples.txt``, ``summary.json``; or with ``check.json``.

    Raises:
        ValueError: the path is no folder, or no file in it is of a run.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     line = '{"kind": "step", "step": 1, "loss": 8.3}'
    ...     _ = (Path(folder) / "metrics.jsonl").write_text(line + '\\n{"kind": "st')
    ...     run = read(Path(folder))
    >>> run.steps[0]["loss"], run.notes[1]
    (8.3, 'The last line of metrics.jsonl was cut off and was left out.')
    """
    run = Path(run)
    if find(run) != [run]:
        raise ValueError(
            f"report.read: one run folder is needed, got {str(run)!r}, which holds several. "
            "Read each of the folders in it, or give it to report.write."
        )
    notes: list[str] = []
    if (run / "check.json").is_file() and not (run / "config.json").is_file():
        return Run(run, run.resolve().name, check=read_object(run / "check.json", notes=notes), notes=notes)
    config = read_object(run / "config.json", notes=notes)
    lines = read_lines(run / "metrics.jsonl", notes=notes)
    result = Run(
        path=run,
        name=run.resolve().name,
        config=config,
        environment=read_object(run / "environment.json", notes=notes),
        summary=read_object(run / "summary.json", notes=notes),
        steps=_of_kind(lines, "step"),
        evals=_of_kind(lines, "eval"),
        spectra=_of_kind(lines, "spectrum"),
        activations=_of_kind(lines, "activation"),
        pictures=_of_kind(lines, "pictures"),
        routing=read_rows(run / "routing.json", notes=notes),
        schedules=objects(_schedules(run, config, notes).get("schedules")),
        samples=read_blocks(run / "samples.txt", notes=notes) if _samples(config) else [],
        notes=notes,
    )
    notes.extend(_not_finite(result.steps, "loss"))
    notes.extend(_not_finite(result.steps, "grad_norm"))
    return result


def _schedules(run: Path, config: Row, notes: list[str]) -> Row:
    """What ``polynomials.json`` holds; an optimizer that is not ours has none and none is missed."""
    file = run / "polynomials.json"
    ours = config.get("optimizer", "muon") in ("muon", "normuon", "muoneq")
    return read_object(file, notes=notes) if ours or file.exists() else {}


def _samples(config: Row) -> bool:
    """Whether the run was to write samples."""
    return config.get("job", "train") == "train" and config.get("sample_tokens") != 0


def _of_kind(lines: Sequence[Row], kind: str) -> list[Row]:
    rows = [row for row in lines if row.get("kind") == kind and number(row.get("step")) is not None]
    last = {(row["step"], str(row.get("name", row.get("steps", "")))): row for row in rows}
    return sorted(last.values(), key=lambda row: row["step"])


def _not_finite(steps: Sequence[Row], key: str) -> list[str]:
    bad = [row["step"] for row in steps if key in row and number(row[key]) is None]
    if not bad:
        return []
    name = key.replace("_", " ").replace("grad ", "gradient ")
    return [f"The {name} is not a finite number in {len(bad)} of {len(steps)} steps, first at step {bad[0]}."]
