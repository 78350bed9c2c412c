"""``spectrain export``: a trained model in the files that transformers reads, or in the one of llama.cpp."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from spectrain import data, nn, train
from spectrain._files.read import NOT_FINITE, read_object
from spectrain._files.write import write_json
from spectrain.cli._parse import parse
from spectrain.train.internal import GENERATION, LOCK, claimed

_END = "<|endoftext|>"
_SETTINGS = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}


@dataclass(frozen=True)
class Export:
    """Write a trained model in Hugging Face's format: Llama, Mistral, Qwen 2, Qwen 3, OLMo 2 or DeepSeek-V3, whichever
    it is; a model that began as one of them (--init-from) as the same. Or as GGUF, for llama.cpp and its relatives."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    out: Path
    """The folder to write, or the file where --format is gguf. One that is there is left alone."""
    format: Literal["hf", "gguf"] = "hf"
    """hf: a folder that transformers reads. gguf: one file with tokenizer, without DeepSeek-V3 (spectrain[gguf])."""


def main(argv: list[str]) -> int:
    """Write configuration, weights and tokenizer, and say how they are read."""
    asked = parse(Export, argv, prog="spectrain export")
    return _write_gguf(asked) if asked.format == "gguf" else _write_folder(asked)


def _write_folder(asked: Export) -> int:
    with claimed(asked.out):
        if any(path.name != LOCK for path in asked.out.iterdir()):
            raise ValueError(f"--out {asked.out} is there and not empty; give a new folder.")
        first = _write(asked)
    print(f"written: {asked.out}; transformers.AutoModelForCausalLM.from_pretrained({str(asked.out)!r}) reads it.")
    print(f"A document begins with {first}: put it before the prompt.")
    return 0


def _write_gguf(asked: Export) -> int:
    """One file, whole or not at all."""
    if asked.out.exists():
        raise ValueError(f"--out {asked.out} is there; give the name of a new file.")
    run = train.load_run(asked.run)
    tokenizer, config = run.tokenizer, run.config
    vocabulary = tokenizer.gguf(rows=run.model.embedding.num_embeddings)
    name = asked.run.resolve().name
    nn.models.to_gguf(
        run.model, asked.out, context=config.longest, family=config.family, vocabulary=vocabulary, name=name
    )
    print(f"written: {asked.out}; llama-cli -m {asked.out} -no-cnv -p 'a prompt' reads it.")
    if tokenizer.changes_text:
        print("llama.cpp does not normalise text as this tokenizer does: give it text in that form.", file=sys.stderr)
    return 0


def _write(asked: Export) -> str:
    """Write the folder; the token that a document begins with."""
    run = train.load_run(asked.run)
    tokenizer, longest = run.tokenizer, run.config.longest
    nn.to_hugging_face(
        run.model,
        asked.out,
        context=longest,
        end_of_text=tokenizer.end_of_text,
        begin_of_text=tokenizer.number_of("bos_token"),
        family=run.config.family,
    )
    tokenizer.save(asked.out / "tokenizer.json")
    name = tokenizer.settings.get("eos_token", _END)
    settings = {**_SETTINGS, "bos_token": name, "model_max_length": longest, **tokenizer.settings, "eos_token": name}
    settings.setdefault("pad_token", name)
    write_json(asked.out / "tokenizer_config.json", settings)
    write_json(asked.out / GENERATION, _generation(asked.run, tokenizer))
    return str(name)


def _generation(run: Path, tokenizer: data.Tokenizer) -> dict[str, Any]:
    """How transformers draws text: as the model that the run began with was to be drawn from, else plainly.

    The token that fills rows up is said here and not in ``config.json``, where its embedding would no longer learn.
    """
    kept, end = run / GENERATION, tokenizer.end_of_text
    said = read_object(kept, what="what came with the model", constants=NOT_FINITE) if kept.is_file() else {}
    pad = tokenizer.number_of("pad_token")
    begin = tokenizer.number_of("bos_token")
    ids = {
        "bos_token_id": end if begin is None else begin,
        "eos_token_id": end,
        "pad_token_id": end if pad is None else pad,
    }
    return ids | {name: value for name, value in said.items() if value is not None and not name.startswith("_")}
