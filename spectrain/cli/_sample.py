"""``spectrain sample``: let a trained model continue a prompt."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spectrain import train


@dataclass(frozen=True)
class Sample:
    """Let a trained model continue a prompt."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    prompt: str = ""
    """Text to continue; empty: begin a new document."""
    tokens: int = 200
    """Tokens to write."""
    temperature: float = 0.8
    """0 takes the most likely token; 1 samples what the model believes."""
    top_k: int = 50
    """Choose among this many most likely tokens."""
    seed: int = 0
    """Decides the draw."""


def main(argv: list[str]) -> int:
    """Print the prompt and its continuation."""
    asked = tyro.cli(Sample, args=argv, prog="spectrain sample")
    if asked.tokens < 0:
        raise ValueError(f"--tokens must be 0 or more, got {asked.tokens}.")
    if not 0 <= asked.seed < 2**63:
        raise ValueError(f"--seed must be from 0 to 2**63 - 1, got {asked.seed}.")
    run = train.load_run(asked.run)
    if run.source.parent != asked.run:
        print(f"the run is not finished; sampling from {run.source.parent}", file=sys.stderr)
    text = run.sample(
        asked.prompt, tokens=asked.tokens, temperature=asked.temperature, top_k=asked.top_k, seed=asked.seed
    )
    print(text)
    return 0
