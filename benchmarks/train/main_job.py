"""Tokens a second of the default `spectrain train`, beside a plain torch loop, the same compiled, and nanoGPT's code.

    python -m benchmarks.train.main_job --nanogpt FOLDER

A step is all of it: batch, forward, backward, clip, update, and of ours the row of metrics. Everybody has the same
sizes, the same number of threads, and a process of its own, and they take turns; a ratio is the median over rounds of
the ratio within a round, in processor time. The precision is that of the model: our Muon iterates in the dtype that the
job measures to be faster here, as under the command, torch's always in bfloat16. The plain loop is `_plain.py`:
torch.optim.Muon for matrices, fused AdamW for the rest, or AdamW for all. nanoGPT's model and optimizer are imported
from the ``model.py`` in FOLDER, a checkout; without it those rows are left out. Its blocks are others (GELU, learned
positions, tied head) of the same depth and width. Ours keeps freed memory (`spectrain.train._run.machine.keep_memory`);
one row gives the plain loop that, too.

The share in products is that of the profiler, forward, backward and update; torch's attention holds products and a
softmax and stands apart. The share of the peak is 6 operations a token for each weight of a matrix, and those of causal
attention, by the time of a step, over what a product of 2048 x 2048 matrices reaches in the same rounds. The products
of Muon and of what is computed twice do not count as work.
"""

import contextlib
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import Times
from benchmarks._runs import TINY
from benchmarks.train._contenders import CONTENDERS, PEAK, Apart, Asked, Here
from benchmarks.train._plain import Shape

THEIRS = "nanoGPT"


def measure(
    *,
    precisions: tuple[str, ...] = ("float32", "bfloat16"),
    rounds: int = 9,
    steps: int = 3,
    cores: int = 1,
    contenders: tuple[str, ...] = tuple(CONTENDERS),
    nanogpt: Path | None = None,
    together: bool = False,
    profiled: bool = True,
    model: Mapping[str, Any] = {},
) -> Found:
    """Rounds of ``steps`` steps of all in every precision, on ``cores`` threads; ``together``: in one process.

    ``profiled``: with the shares of a step of ours.
    """
    names = [name for name in contenders if nanogpt or not name.startswith(THEIRS)]
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for precision in precisions:
        with tempfile.TemporaryDirectory() as scratch:
            asked = Asked(model, precision == "bfloat16", cores, nanogpt, Path(scratch))
            times, shares = race(names, asked, rounds=rounds, steps=steps, together=together, profiled=profiled)
        made = [row(name, precision, times, asked.shape) for name in names if name != "peak"]
        rows += [one | (shares if one["who"] == "ours" else {}) for one in made]
        figures |= {f"{precision}: {name}": share for name, share in shares.items()}
        ratios |= compare(times, precision)
    plain = [value for name, value in ratios.items() if name.endswith("over plain")]
    figures["least"] = min(plain or ratios.values())
    left = "" if nanogpt else "\n\nnanoGPT's own code was not given (--nanogpt FOLDER), and its rows are left out."
    return Found(rows=rows, body=page(rows, ratios) + left, figures=figures, ratios=ratios)


def race(
    names: list[str], asked: Asked, *, rounds: int, steps: int, together: bool, profiled: bool
) -> tuple[Times, dict[str, float]]:
    """Seconds of a step of each, in turns, the order turned round every second time; and the shares of ours."""
    times = Times({name: [] for name in names})
    with contextlib.ExitStack() as held:
        running = {name: Here(name, asked) if together else Apart(name, asked) for name in names}
        for contender in running.values():
            held.callback(contender.close)
        for turn in range(-1, rounds):
            for name in names[::-1] if turn % 2 else names:
                took = running[name].seconds(steps)
                if turn >= 0:
                    times[name].append(took)
        return times, running["ours"].shares(steps) if profiled else {}


def operations(shape: Shape) -> float:
    """Floating-point operations of a step, forward and backward: matrices, and attention on what is visible."""
    s = shape
    attention = s.width * (2 * s.width + 2 * s.kv_heads * (s.width // s.heads))
    weights = s.depth * (attention + 3 * s.width * s.hidden) + s.vocabulary * s.width
    return s.batch * s.block * (6.0 * weights + 6.0 * s.depth * s.block * s.width)


def row(name: str, precision: str, times: Times, shape: Shape) -> dict[str, Any]:
    """What one of them did."""
    seconds = times.median(name)
    found: dict[str, Any] = {
        "who": name,
        "precision": precision,
        "tokens a second": shape.batch * shape.block / seconds,
        "ours over it": times.ratio(name, "ours"),
        "quartiles": times.quartiles(name, "ours"),
    }
    if "peak" in times and not name.startswith(THEIRS):
        found["share of the peak"] = operations(shape) / seconds / (2.0 * PEAK**3 / times.median("peak"))
    return found


def compare(times: Times, precision: str) -> dict[str, float]:
    """Our tokens a second over theirs; compiled beside compiled, AdamW beside AdamW."""
    pairs = {("ours", other) for other in times if other not in ("ours", "peak")}
    pairs |= {(f"ours, {how}", f"{who}, {how}") for who in ("plain", THEIRS) for how in ("compiled", "AdamW")}
    pairs |= {("ours, AdamW", THEIRS), ("ours, compiled", "plain")}
    return {
        f"{precision}: {mine} over {other}": times.ratio(other, mine)
        for mine, other in sorted(pairs)
        if mine in times and other in times
    }


def page(rows: list[dict[str, Any]], figures: Mapping[str, float]) -> str:
    """Two tables: who did what, and our tokens a second over theirs."""
    shares = [key for key in rows[0] if key.startswith("in ")]
    lines = [
        [
            one["precision"],
            one["who"],
            f"{one['tokens a second']:,.0f}",
            "{1:.3f} ({0:.3f} ... {2:.3f})".format(*one["quartiles"]),
            f"{one['share of the peak']:.2f}" if "share of the peak" in one else "-",
            *(f"{one[share]:.2f}" if share in one else "-" for share in shares),
        ]
        for one in rows
    ]
    head = ["precision", "who", "tokens a second", "ours over it, median (quartiles)", "of the peak", *shares]
    ratios = [[name, f"{value:.3f}"] for name, value in figures.items() if " over " in name]
    mean = statistics.fmean(one["tokens a second"] for one in rows if one["who"] == "ours")
    return (
        f"{_record.table(head, lines)}\n\nTokens a second of the first over the second:\n\n"
        f"{_record.table(['who', 'times'], ratios)}\n\nOurs in the mean of the precisions: {mean:,.0f} tokens a second."
    )


if __name__ == "__main__":
    main(
        "main_job",
        "The default job trains {least:.2f} times as many tokens a second as a plain torch loop of the same model, "
        "where it gains least",
        measure,
        smoke={
            "model": TINY,
            "precisions": ("float32",),
            "rounds": 1,
            "steps": 1,
            "together": True,
            "contenders": ("ours", "plain", "plain, AdamW", "peak"),
        },
        check={
            "rounds": 2,
            "steps": 1,
            "precisions": ("bfloat16",),
            "contenders": ("ours", "plain, memory kept"),
            "together": True,  # so the plain loop has the memory that ours keeps, and is compared with that row
            "profiled": False,
        },
    )
