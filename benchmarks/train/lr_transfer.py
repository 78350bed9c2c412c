"""Does the best learning rate stay where it is while the width grows eightfold?

    python -m benchmarks.train.lr_transfer --data tinyshakespeare.txt

A language model of fixed depth on bytes, at widths 64 to 512 with the same batches and steps: muP with AdamW, with
Muon at scale="spectral" and at its default scale, and beside them the standard parametrisation of both.
Finished runs in --runs are kept, so that an interrupted benchmark goes on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import TINY
from spectrain._drawing import Line, Picture, save
from spectrain.train.internal import TransferConfig
from spectrain.train.studies import lr_transfer

ADAMW = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
MUON = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SPECTRAL = (6.4e-3, 1.28e-2, 2.56e-2, 5.12e-2, 1.024e-1)
STEPS = {"adamw": 200, "muon": 60}
CASES = {
    "muP, AdamW": ("adamw", "match_rms_adamw", "mup", ADAMW),
    "standard, AdamW": ("adamw", "match_rms_adamw", "standard", ADAMW),
    "muP, Muon spectral": ("muon", "spectral", "mup", SPECTRAL),
    "muP, Muon match_rms_adamw": ("muon", "match_rms_adamw", "mup", MUON),
    "standard, Muon match_rms_adamw": ("muon", "match_rms_adamw", "standard", MUON),
}


def lines(name: str, found: dict[str, Any]) -> list[list[object]]:
    """One row of the table for each width."""
    return [
        [name, width, f"{rate:.4g}", f"{found['vertex'][width]:.3g}", f"{found['least'][width]:.4f}"]
        for width, rate in found["best"].items()
    ]


def picture(found: dict[str, Any]) -> Picture:
    """Losses of AdamW against the learning rate, a colour for each width."""
    drawn = []
    for name, style in (("muP, AdamW", "line"), ("standard, AdamW", "dash")):
        rows = sorted(found[name]["rows"], key=lambda row: (row["width"], row["lr"]))
        for color, width in enumerate(found[name]["best"]):
            pairs = [(row["lr"], row["loss"]) for row in rows if row["width"] == width]
            kind = name.partition(",")[0]
            drawn.append(Line(*zip(*pairs, strict=True), name=f"{kind}, width {width}", style=style, color=color))
    title = "AdamW, 200 steps: the best rate stays under muP and falls without"
    return Picture(title, "learning rate", "loss (nats a byte)", tuple(drawn), log="x")


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    cases: tuple[str, ...] = tuple(CASES),
    widths: tuple[int, ...] = (64, 128, 256, 512),
    seeds: tuple[int, ...] = (0,),
    steps: Mapping[str, int] = STEPS,
    rates: int = 5,
) -> Found:
    """``rates`` learning rates for each case and width; the picture needs both cases of AdamW."""
    found = {}
    for name in cases:
        optimizer, scale, parametrisation, grid = CASES[name]
        config = TransferConfig(
            data=data, widths=widths, steps=steps[optimizer], seeds=seeds, optimizer=optimizer, scale=scale,
            parametrisation=parametrisation, rates=grid[:rates], threads=1,
        )  # fmt: skip
        print(name, flush=True)
        found[name] = lr_transfer(config, folder=runs / f"{parametrisation}-{optimizer}-{scale}")
    head = ["case", "best rate moves by a factor of", "vertex of the parabola moves by", "passes"]
    body = (
        "Depth 2, batches of 8 x 64 bytes, heads of 32, rates by factors of 2. The loss is the mean of the last "
        "quarter of the steps.\n\n"
    )
    body += _record.table(
        head,
        [[n, f"{c['moved']:g}", f"{c['drift']:.2f}", "yes" if c["ok"] else "no"] for n, c in found.items()],
    )
    head = ["case", "width", "best rate", "vertex", "loss there (nats a byte)"]
    body += "\n\n" + _record.table(head, [row for name, case in found.items() for row in lines(name, case)])
    rows = [{"case": name, **row} for name, case in found.items() for row in case["rows"]]
    moved = {
        name: {key: case[key] for key in ("best", "vertex", "least", "moved", "drift", "ok")}
        for name, case in found.items()
    }
    figures = {name: case["moved"] for name, case in found.items()}
    figures["moved"] = ", ".join(f"{case['moved']:g} ({name})" for name, case in found.items())
    whole = len(found) == len(CASES)
    pages = {"mup.svg": lambda path: save(picture(found), path)} if whole else {}
    return Found(
        rows=rows, body=body, figures=figures, data={"cases": moved}, pages=pages, part="" if whole else "some"
    )


if __name__ == "__main__":
    main(
        "lr_transfer",
        "The best learning rate moves over widths {widths} by a factor of {moved}",
        measure,
        smoke={
            "data": TINY["data"],
            "cases": tuple(CASES)[:2],
            "widths": (64, 128),
            "steps": {"adamw": 2, "muon": 2},
            "rates": 2,
        },
    )
