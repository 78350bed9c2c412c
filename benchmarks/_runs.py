"""What programs ask of runs of `spectrain train`: a finished one, a tiny one, the text that it has not learned from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectrain import data, train
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.job import load_job
from spectrain.train._run.prepare import decide
from spectrain.train._run.session import Session, build

QUIET: dict[str, Any] = {"spectrum_interval": 0, "sample_tokens": 0}
"""A run that spends no time on what nobody looks at here."""

FIXED: dict[str, Any] = {**QUIET, "autocast": "bfloat16", "muon_dtype": "bfloat16"}
"""The same, with precisions fixed, so that no measurement can tell two runs apart."""

TINY: dict[str, Any] = {
    **FIXED,
    "data": tuple(str(Path(__file__).parent / name) for name in ("_memory.py", "_record.py", "_rounds.py")),
    "depth": 1, "width": 32, "heads": 2, "tokenizer": "bytes", "block": 32, "batch_size": 2, "eval_tokens": 256,
    "max_steps": 2, "validation_fraction": 0.3,
}  # fmt: skip
"""A model that learns the source of three files of this folder for two steps."""


def finish_run(folder: Path, config: type[Any] = train.TrainConfig, **settings: Any) -> Path:
    """The folder of a run, trained, or trained to its end, unless it is finished: an interrupted program goes on."""
    if (folder / "summary.json").exists():
        return folder
    return train.train(config(out_dir=str(folder), resume="auto", **settings))


def file_name(words: str) -> str:
    """The words of a row as the name of a folder."""
    return words.replace(" ", "-").replace(",", "")


def new_session(config: Any, path: Path) -> Session:
    """A run as it stands before its first step, in a folder that is made."""
    full, _ = decide(config)
    folder = RunFolder(path)
    folder.path.mkdir(parents=True, exist_ok=True)
    return build(full, folder, load_job(full, folder, resuming=False))


def summary(folder: Path) -> dict[str, Any]:
    """What a finished run says of itself."""
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def held_out_tokens(made: train.TrainedRun) -> torch.Tensor:
    """The tokens of the documents that the run has not learned from."""
    documents = data.read_documents(made.config.data or None)
    _, kept = data.split_documents(documents, fraction=made.config.validation_fraction, seed=made.config.seed)
    return torch.from_numpy(made.tokenizer.encode_documents(kept).astype("int64"))


def few_pairs(folder: Path) -> tuple[str, ...]:
    """Forty pairs of a query and a document about a number, as JSON lines."""
    lines = (json.dumps({"query": f"what is number {i}", "document": f"number {i} is {i * i}"}) for i in range(40))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return (str(folder / "pairs.jsonl"),)


def few_pictures(folder: Path) -> tuple[str, ...]:
    """Two dozen pictures of 4 x 4 pixels in two classes."""
    from PIL import Image

    for i in range(24):
        path = folder / f"{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 128, (4, 4), dtype=np.uint8) + 127 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return (str(folder),)
