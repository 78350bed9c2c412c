"""``spectrain sample``: let a trained model continue a prompt."""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from spectrain import train
from spectrain.cli._parse import parse
from spectrain.train.config import MOST_WRITTEN

_MOST_COPIES = 10_000
_FORMS = ("absorbed", "expanded", "full")


@dataclass(frozen=True)
class Sample:
    """Let a trained model continue one prompt or several."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    prompt: tuple[str, ...] = ("",)
    """Texts to continue, in one batch; empty: begin a new document."""
    copies: int = 1
    """Continuations of each prompt."""
    tokens: int = 200
    """Tokens to write."""
    temperature: float = 0.8
    """0 takes the most likely token; 1 samples what the model believes."""
    top_k: int = 50
    """Choose among this many most likely tokens."""
    top_p: float = 1.0
    """Choose among the fewest tokens that hold this much of the chance."""
    seed: int = 0
    """Decides the draw."""
    form: Literal["auto", "absorbed", "expanded", "full"] = "auto"
    """With a cache, chosen by shape; absorbed and expanded: the two forms of a latent; full: without a cache."""
    speed: bool = False
    """Write nothing, but measure tokens per second of every form, in turns; the medians of three."""


def main(argv: list[str]) -> int:
    """Print each prompt and its continuation as it comes, and tokens per second on the error stream."""
    asked = parse(Sample, argv, prog="spectrain sample")
    if not (0 <= asked.tokens <= MOST_WRITTEN and 1 <= asked.copies <= _MOST_COPIES):
        raise ValueError(
            f"--tokens must be from 0 to {MOST_WRITTEN:,} and --copies from 1 to {_MOST_COPIES:,}, got {asked.tokens} "
            f"and {asked.copies}."
        )
    if not asked.prompt:
        raise ValueError("--prompt needs a text; leave it out to begin a new document.")
    if not 0 <= asked.seed < 2**63:
        raise ValueError(f"--seed must be from 0 to 2**63 - 1, got {asked.seed}.")
    run = train.load_run(asked.run)
    if run.source.parent != asked.run:
        print(f"the run is not finished; sampling from {run.source.parent}", file=sys.stderr)
    latent = run.config.latent is not None
    if asked.form in ("absorbed", "expanded") and not latent:
        raise ValueError(f"--form {asked.form} is for --attention mla; the run has {run.config.attention}.")
    if asked.speed:
        _race(run, asked, _FORMS if latent else ("auto", "full"))
        return 0
    texts, rate = _write(run, asked, asked.form, shown=len(asked.prompt) * asked.copies == 1)
    for i, text in enumerate(texts if len(texts) > 1 else []):
        print(f"=== {i + 1}\n{text}")
    print(f"{rate:.1f} tokens/s, {run.model.cache_numbers:,} numbers cached a token", file=sys.stderr)
    return 0


def _race(run: train.TrainedRun, asked: Sample, forms: tuple[str, ...]) -> None:
    """Print tokens per second of each form, and how often that is the rate without a cache."""
    rounds = [[_write(run, asked, form, shown=False)[1] for form in forms] for _ in range(4)][1:]  # the first warms up
    for i, form in enumerate(forms):
        rate = statistics.median(rates[i] for rates in rounds)
        times = statistics.median(rates[i] / rates[-1] for rates in rounds)
        print(f"{'cached' if form == 'auto' else form:>9}: {rate:8.1f} tokens/s, {times:5.2f} times full")
    print(f"{run.model.cache_numbers:,} numbers cached a token")


def _write(run: train.TrainedRun, asked: Sample, form: str, *, shown: bool) -> tuple[list[str], float]:
    """The texts, printed as they come where ``shown``, and tokens drawn in a second."""
    prompts = [prompt for prompt in asked.prompt for _ in range(asked.copies)]
    pieces = run.stream(
        prompts,
        tokens=asked.tokens,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        form=form,
        seed=asked.seed,
    )
    texts, start = [""] * len(prompts), time.perf_counter()
    for new in pieces:
        texts = [text + more for text, more in zip(texts, new, strict=True)]
        if shown:
            print(new[0], end="", flush=True)
    if shown:
        print()
    return texts, len(prompts) * asked.tokens / max(1e-9, time.perf_counter() - start)
