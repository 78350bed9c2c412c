"""Tokens per second of whole-model sampling: with a cache, absorbed, expanded again, and without a cache.

    python -m benchmarks.nn.sampling

The models that `spectrain train` and `spectrain train --attention mla` make, at initial weights: the time does not
depend on them. One sequence, float32, `--temperature 0.8 --top-k 50` as `spectrain sample` has it. Each text is begun
from a prompt; the time is that of the tokens after the first one, so that reading the prompt is in none of the figures.
The forms take turns; rates are medians, ratios medians of paired runs.
"""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import seconds
from spectrain import nn
from spectrain.train import TrainConfig
from spectrain.train._jobs.model import build_model

DEFAULT, LATENT = "default (GQA)", "latent (--attention mla)"
MODELS = {DEFAULT: {}, LATENT: {"attention": "mla"}}
TEXTS = {"a short text": (1, 127), "a long one": (1984, 8)}


def forms(kind: str) -> dict[str, str]:
    """Names of the forms that a model has, and what ``nn.stream`` calls them."""
    cached = {"absorbed": "absorbed", "expanded again": "expanded"} if "mla" in kind else {}
    return {"cached": "auto", **cached, "full": "full"}


def rate(model: nn.LanguageModel, form: str, *, prompt: int, tokens: int) -> float:
    """Tokens per second of those after the first."""
    draw = torch.Generator().manual_seed(0)
    begun = torch.randint(0, model.embedding.num_embeddings, (1, prompt), generator=draw)
    drawn = nn.stream(model, begun, tokens=tokens + 1, temperature=0.8, top_k=50, form=form, generator=draw)
    next(drawn)
    return tokens / seconds(lambda: list(drawn), clock=time.process_time)


def compare(kind: str, settings: Mapping[str, Any], text: tuple[int, int], rounds: int, *, depth: int) -> list[dict]:
    """One row a form."""
    config, _ = TrainConfig(depth=depth, **settings).derive()
    model = build_model(config, vocabulary=config.vocabulary).eval()
    names = forms(kind)
    prompt, tokens = text
    for form in names.values():
        rate(model, form, prompt=prompt, tokens=2)
    seen: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, form in names.items():
            seen[name].append(rate(model, form, prompt=prompt, tokens=tokens))
    return [
        {
            "form": name,
            "tokens/s": statistics.median(rates),
            "from": min(rates),
            "to": max(rates),
            "times full": statistics.median(a / b for a, b in zip(rates, seen["full"], strict=True)),
            "numbers cached a token": 0 if name == "full" else model.cache_numbers,
        }
        for name, rates in seen.items()
    ]


def measure(
    *,
    texts: Mapping[str, tuple[int, int]] = TEXTS,
    models: tuple[str, ...] = (DEFAULT, LATENT),
    depth: int = 4,
    rounds: int = 3,
) -> Found:
    """Each model on texts of (tokens of the prompt, tokens drawn)."""
    parts, found = [f"One sequence, float32, depth {depth}, 4,096 tokens of vocabulary."], []
    for title, text in texts.items():
        for kind in models:
            rows = compare(kind, MODELS[kind], text, rounds, depth=depth)
            found += [{"model": kind, "text": title, **row} for row in rows]
            parts.append(f"## {kind}, {title}: {text[1]} tokens after {text[0]}\n\n{_record.show(rows)}")
            print(parts[-1], flush=True)
    ratios = {
        f"{r['model']}, {r['text']}, {r['form']}: times full": r["times full"] for r in found if r["form"] != "full"
    }
    return Found(rows=found, body="\n\n".join(parts), figures={"faster": max(ratios.values())}, ratios=ratios)


if __name__ == "__main__":
    main(
        "sampling",
        "Sampling with a cache gives up to {faster:.1f} times the tokens per second of sampling without",
        measure,
        smoke={"texts": {"a text": (8, 3)}, "depth": 1, "rounds": 1},
        check={"texts": {"a short text": TEXTS["a short text"]}, "models": (DEFAULT,), "rounds": 1},
    )
