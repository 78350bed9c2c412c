"""``spectrain compress``: a trained model in fewer weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from spectrain import train
from spectrain.cli._parse import parse


@dataclass(frozen=True)
class Compress:
    """Replace the linear layers of a trained model by smaller ones, judge it again, and write a run folder."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    out_dir: Path | None = None
    """Where to write. Default: beside the run, named by method and size."""
    method: Literal["svd", "id", "cur", "cr"] = "id"
    """svd: low rank. id: real neurons and outputs, the others written by them. cr: real neurons and inputs, weighted.
    cur: real rows and columns of the weights."""
    params: float | None = None
    """Share of the blocks' linear weights that stays, 0.5 say."""
    rtol: float | None = None
    """Or: relative error allowed in what each layer writes."""
    calibration_tokens: int = 16384
    """Training text to see what layers are given; 0: all directions count alike (svd and cur only)."""
    finetune_steps: int = 0
    """Steps of AdamW to heal the result."""
    lr: float = 1e-3
    """Learning rate of these steps, falling to zero."""


def main(argv: list[str]) -> int:
    """Compress, print the table, and say where the folder is."""
    asked = parse(Compress, argv, prog="spectrain compress")
    size = asked.params if asked.params is not None else asked.rtol
    out = asked.out_dir or asked.run.with_name(f"{asked.run.name}-{asked.method}-{size}")
    folder = train.compress(
        asked.run,
        out_dir=out,
        method=asked.method,
        params=asked.params,
        rtol=asked.rtol,
        calibration_tokens=asked.calibration_tokens,
        finetune_steps=asked.finetune_steps,
        lr=asked.lr,
    )
    print((folder / "compress.md").read_text(encoding="utf-8"))
    print(f"run folder: {folder}")
    return 0
