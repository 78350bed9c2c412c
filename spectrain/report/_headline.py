"""What a reader wants first: how good, against what, how large, how long, by which optimizer."""

from collections.abc import Sequence

from spectrain.report._drawing.html import amount, digits, duration, memory, paragraph, percent, table, tag, text
from spectrain.report._drawing.series import column, front, outcome
from spectrain.report._reading.measures import lead, unit
from spectrain.report._reading.run import Run
from spectrain.report._sections.check import finding
from spectrain.report._sections.routing import sentence
from spectrain.report._sections.time import share


def title(runs: Sequence[Run]) -> str:
    """The page's heading: the finding, or the names where nothing was measured."""
    if len(runs) == 1 and runs[0].check:
        return finding(runs[0].check)
    best = min(runs, key=outcome)
    known = lead(best)
    if known is None:
        return f"Run {best.name}" if len(runs) == 1 else f"{len(runs)} runs"
    size, found = _data(best), best.final(known.key)
    count = amount(size).replace(" ", "\u00a0")  # the unit stays with its number
    after = f" after {count} {unit([best])}" if size is not None else ""
    words = known.words[:1].upper() + known.words[1:]
    value = f"{digits(found)} {known.words}" if known.key == "bits_per_byte" else f"{words}: {digits(found)}"
    return f"{value}{after}" + (f", the best of {len(runs)} runs" if len(runs) > 1 else "")


def headline(runs: Sequence[Run]) -> str:
    """The top of the page: tiles for one run, a table for several."""
    if len(runs) == 1 and runs[0].check:
        return ""
    return _tiles(runs[0]) + _about(runs[0]) if len(runs) == 1 else _several(runs)


def parameters(run: Run) -> float | None:
    """The number of parameters: of the summary, else of the configuration."""
    found = run.final("parameters")
    return column([run.config], "parameters")[0] if found is None else found


def _data(run: Run) -> float | None:
    """How much the run learned from, in its unit."""
    return run.final(unit([run]))


def _tiles(run: Run) -> str:
    size, seconds = _data(run), run.final("seconds")
    rate = f"{amount(size / seconds)} a second" if size and seconds else ""
    tiles = [
        (digits(run.final("bits_per_byte")), "bits per byte", _beside_xz(run), "lead"),
        (digits(run.final("xz_bits_per_byte")), "by xz -6", "bits per byte, same text", "lead"),
        *_drawing_tiles(run),
        (amount(parameters(run)), "parameters", _optimizer_part(run), ""),
        (amount(size), f"training {unit([run])}", rate, ""),
        (duration(seconds), "of training", _memory_part(run), ""),
        (
            run.optimizer,
            "trained it",
            f"{percent(share(run))} of step time" if share(run) is not None else "",
            "",
        ),
    ]
    return tag("div", "".join(_tile(*tile) for tile in tiles if tile[0] != "not recorded"), of="tiles")


def _drawing_tiles(run: Run) -> list[tuple[str, str, str, str]]:
    """How well a run draws in one step: beside real pictures, and beside many steps."""
    if run.final("one_step_frechet") is None:
        return []
    many = f"{digits(run.final('many_step_frechet'))} in {run.config.get('many_steps', 'many')} steps"
    real = f"{percent(run.final('judge_accuracy'))} of real ones"
    return [
        (percent(run.final("one_step_accuracy")), "recognised, one step", real, "lead"),
        (digits(run.final("one_step_frechet")), "Frechet distance, one step", many, "lead"),
    ]


def _tile(value: str, name: str, small: str, of: str) -> str:
    words = tag("strong", text(value)) + tag("span", text(name)) + (tag("small", text(small)) if small else "")
    return tag("div", words, of=f"tile {of}".strip())


def _beside_xz(run: Run) -> str:
    """The comparison with xz, in the direction it came out."""
    ours, xz = run.final("bits_per_byte"), run.final("xz_bits_per_byte")
    if ours is None or xz is None or xz <= 0:
        return ""
    if ours == xz:
        return "as many as xz"
    return f"{percent(abs(1 - ours / xz))} {'fewer' if ours < xz else 'more'} than xz"


def _optimizer_part(run: Run) -> str:
    depth, width = run.config.get("depth"), run.config.get("width")
    return f"{depth} layers, {width} wide" if depth and width else ""


def _memory_part(run: Run) -> str:
    peak = run.final("peak_memory_bytes")
    return f"{memory(peak)} at most" if peak is not None else ""


def _about(run: Run) -> str:
    """How to read the figures, and who updated what."""
    pieces = []
    if run.final("xz_bits_per_byte") is not None and run.final("bits_per_byte") is not None:
        pieces.append(
            "Bits per byte are measured on held-out text. The comparison with xz is not even: the model has "
            "read the training text and its own size is not counted; xz starts from nothing."
        )
    if run.routing:
        pieces.append(f"In this run {sentence(run.routing)}.")
    return "".join(paragraph(piece, of="about") for piece in pieces)


def _several(runs: Sequence[Run]) -> str:
    head = [
        "run",
        "optimizer",
        "bits per byte",
        "xz -6",
        "loss",
        "parameters",
        unit(runs),
        "time",
        "optimizer share",
    ]
    rows = [
        [
            run.name,
            run.optimizer,
            digits(run.final("bits_per_byte")),
            digits(run.final("xz_bits_per_byte")),
            digits(run.final("loss")),
            amount(parameters(run)),
            amount(_data(run)),
            duration(run.final("seconds")),
            percent(share(run)),
        ]
        for run in front(runs)
    ]
    shown = [i for i in range(len(head)) if i < 2 or any(row[i] != "not recorded" for row in rows)]
    whole = table([head[i] for i in shown], [[row[i] for i in shown] for row in rows], of="runs")
    rest = f"The best run of each optimizer, of {len(runs)} runs in all." if len(rows) < len(runs) else ""
    return whole + (paragraph(rest, of="about") if rest else "")


def notes(runs: Sequence[Run]) -> str:
    """What could not be read, run by run; nothing when all is there."""
    found = [(run, note) for run in runs for note in run.notes]
    if not found:
        return ""
    items = [tag("li", text(f"{run.name}: {note}" if len(runs) > 1 else note)) for run, note in found]
    return tag("aside", tag("strong", "Not everything could be read.") + tag("ul", "".join(items)), of="notes")
