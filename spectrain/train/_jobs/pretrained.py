"""A folder that transformers wrote as the beginning of a run: configuration as flags, tokenizer, weights."""

import dataclasses
from pathlib import Path

import torch

from spectrain import data
from spectrain._files.read import NOT_FINITE, read_object
from spectrain.nn.internal import Pretrained, read_folder, write_scaling
from spectrain.train.config import TrainConfig

TOKENIZER = "tokenizer.json"
GENERATION = "generation_config.json"
_QK_NORMS = {False: "off", True: "plain"}


def is_pretrained(folder: Path) -> bool:
    """Whether a folder is one of transformers': its ``config.json`` says a ``model_type``, which no run's does."""
    file = folder / "config.json"
    return file.is_file() and "model_type" in read_object(file, what="a config.json", constants=NOT_FINITE)


def as_config(folder: Path, *, tokenizer: str) -> TrainConfig:
    """The configuration with the shape of the model in ``folder``, all else as ever; all of it is checked.

    ``tokenizer`` is the flag, which counts where the folder has none. Raises ``ValueError`` as ``nn.from_hugging_face``
    does, for a family that is not trained on, for a tokenizer that is missing, cannot be used, or has more tokens than
    the model.
    """
    found = _read(folder)
    given = found.arguments
    attention, rows, longest = given["attention"], given["vocabulary"], given["context"]
    file = tokenizer_of(folder, tokenizer)
    size = data.load_tokenizer(file, exact=False).vocabulary_size
    if size > rows:
        raise ValueError(
            f"--init-from: {file} has {size} tokens, and the embedding of {folder} {rows} rows: it is the tokenizer of "
            "another model."
        )
    default = TrainConfig()
    return dataclasses.replace(
        default,
        **{
            name: given[name] for name in ("depth", "width", "heads", "kv_heads", "hidden", "tied", "norms", "norm_eps")
        },
        **{name: attention[name] for name in ("head_dim", "window", "bias", "rotary_base")},
        qk_norm=_QK_NORMS.get(attention["qk_norm"], attention["qk_norm"]),
        feed_forward_bias=given["feed_forward_bias"],
        embedding_norm=given["embedding_norm"],
        rotary_scaling=write_scaling(attention["rotary_scaling"]),
        context=longest,
        block=default.block if longest is None else min(default.block, longest),
        embedding_rows=rows,
        family=found.family.name,
        tokenizer=str(file),
        vocabulary=size,
    )


def tokenizer_of(folder: Path, flag: str) -> Path:
    """The file of the tokenizer that the weights know; ``ValueError`` where there is none."""
    own = folder / TOKENIZER
    if own.is_file():
        return own
    if flag in ("bpe", "bytes"):
        raise ValueError(
            f"--init-from {folder} has no {TOKENIZER}, and its weights know no other one. Give --tokenizer FILE, or "
            "write it there: transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...) does."
        )
    return tokenizer_file(flag)


def tokenizer_file(flag: str) -> Path:
    """The ``tokenizer.json`` that ``--tokenizer`` names, itself or by its folder."""
    place = Path(flag)
    file = place / TOKENIZER if place.is_dir() else place
    if not file.is_file():
        raise ValueError(f"--tokenizer must be bpe, bytes, or a {TOKENIZER} or a folder with one, got {flag}.")
    return file


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Put the folder's weights into a model of its shape, in the model's own dtype."""
    found = _read(folder)
    model.load_state_dict(found.weights(model))  # type: ignore[arg-type]


def _read(folder: Path) -> Pretrained:
    try:
        return read_folder(folder)
    except ValueError as error:
        where = "" if str(folder) in str(error) else f" {folder}"
        raise ValueError(f"--init-from{where}: {error}") from None
