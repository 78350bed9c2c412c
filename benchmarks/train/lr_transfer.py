"""Does the best learning rate stay where it is while the width grows eightfold?

    python benchmarks/lr_transfer.py --data tinyshakespeare.txt

A language model of fixed depth on bytes, at widths 64 to 512 with the same batches and steps: muP with AdamW, with
Muon at scale="spectral" and at its default scale, and beside them the standard parametrisation of both.
Finished runs in --out-dir are kept, so that an interrupted benchmark goes on.
"""

import argparse
from pathlib import Path
from typing import Any

import _record

from spectrain.gallery._drawing import Line, Picture, save
from spectrain.train._studies.check_config import TransferConfig
from spectrain.train._studies.lr_transfer import lr_transfer

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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--out-dir", type=Path, default=Path("runs/lr_transfer"))
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="fewer than all: writes no record")
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs; writes no record")
    return parser.parse_args()


def sweep(asked: argparse.Namespace, name: str) -> dict[str, Any]:
    """One case over all widths and rates."""
    optimizer, scale, parametrisation, rates = CASES[name]
    config = TransferConfig(
        data=tuple(asked.data),
        widths=(64, 128) if asked.smoke else tuple(asked.widths),
        steps=2 if asked.smoke else STEPS[optimizer],
        seeds=tuple(asked.seeds),
        optimizer=optimizer,
        scale=scale,
        parametrisation=parametrisation,
        rates=rates[:2] if asked.smoke else rates,
        threads=1,
    )
    print(name, flush=True)
    return lr_transfer(config, folder=asked.out_dir / f"{parametrisation}-{optimizer}-{scale}")


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


def main() -> None:
    asked = arguments()
    found = {name: sweep(asked, name) for name in asked.cases}
    if asked.smoke or len(found) < len(CASES):
        return
    save(picture(found), Path(__file__).parents[1] / "docs" / "mup.svg")
    summary = [
        [name, f"{case['moved']:g}", f"{case['drift']:.2f}", "yes" if case["ok"] else "no"]
        for name, case in found.items()
    ]
    head = ["case", "best rate moves by a factor of", "vertex of the parabola moves by", "passes"]
    body = _record.table(head, summary) + "\n\n"
    head = ["case", "width", "best rate", "vertex", "loss there (nats a byte)"]
    body += _record.table(head, [row for name, case in found.items() for row in lines(name, case)])
    moved = ", ".join(f"{name}: {case['moved']:g}, vertex {case['drift']:.2f}" for name, case in found.items())
    settings = (
        f"Depth 2, batches of 8 x 64 bytes, steps {STEPS}, seeds {asked.seeds}, heads of 32, rates by factors of 2."
    )
    _record.write(
        "lr_transfer",
        claim=f"Best learning rate over widths {asked.widths[0]} to {asked.widths[-1]} moves by a factor of ({moved})",
        body=f"{settings} The loss is the mean of the last quarter of the steps.\n\n{body}",
        data={
            "cases": {
                name: {**case, "config": {**case["config"], "data": [Path(p).name for p in asked.data]}}
                for name, case in found.items()
            }
        },
    )


if __name__ == "__main__":
    main()
