"""``spectrain export``: a trained model in the files that transformers reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spectrain import nn, train
from spectrain._files.write import write_json
from spectrain.cli._parse import parse
from spectrain.train.internal import LOCK, claimed


@dataclass(frozen=True)
class Export:
    """Write a trained model in Hugging Face's format: Llama, Qwen 3 or DeepSeek-V3, whichever it is."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    out: Path
    """The folder to write."""


def main(argv: list[str]) -> int:
    """Write configuration, weights and tokenizer, and say how they are read."""
    asked = parse(Export, argv, prog="spectrain export")
    with claimed(asked.out):
        if any(path.name != LOCK for path in asked.out.iterdir()):
            raise ValueError(f"--out {asked.out} is there and not empty; give a new folder.")
        _write(asked)
    print(f"written: {asked.out}; transformers.AutoModelForCausalLM.from_pretrained({str(asked.out)!r}) reads it.")
    print("A document begins with <|endoftext|>: put it before the prompt.")
    return 0


def _write(asked: Export) -> None:
    run = train.load_run(asked.run)
    end = run.tokenizer.end_of_text
    nn.to_hugging_face(run.model, asked.out, context=run.config.block, end_of_text=end)
    run.tokenizer.save(asked.out / "tokenizer.json")
    write_json(
        asked.out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>",
            "model_max_length": run.config.block,
            "clean_up_tokenization_spaces": False,
        },
    )
