"""Tokens per second of whole-model sampling: with a cache, absorbed, expanded again, and without a cache.

    python benchmarks/sampling.py            # writes benchmarks/records/<date>_sampling.{md,json}
    python benchmarks/sampling.py --smoke    # small

The models that `spectrain train` and `spectrain train --attention mla` make, at initial weights: the time does not
depend on them. One sequence, float32, `--temperature 0.8 --top-k 50` as `spectrain sample` has it. Each text is begun
from a prompt; the time is that of the tokens after the first one, so that reading the prompt is in none of the figures.
The forms take turns; rates are medians, ratios medians of paired runs.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import _record
import torch

from spectrain import nn
from spectrain.train import TrainConfig
from spectrain.train._jobs.language import build_model

MODELS = {"default (GQA)": {}, "latent (--attention mla)": {"attention": "mla"}}
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
    start = time.perf_counter()
    count = sum(1 for _ in drawn)
    return count / (time.perf_counter() - start)


def measure(kind: str, settings: dict, text: tuple[int, int], repeats: int, *, depth: int) -> list[list]:
    config, _ = TrainConfig(depth=depth, **settings).derive()
    model = build_model(config, vocabulary=config.vocabulary).eval()
    names = forms(kind)
    prompt, tokens = text
    for form in names.values():
        rate(model, form, prompt=prompt, tokens=2)
    seen = {name: [] for name in names}
    for _ in range(repeats):
        for name, form in names.items():
            seen[name].append(rate(model, form, prompt=prompt, tokens=tokens))
    return [
        [name, statistics.median(rates), statistics.median(a / b for a, b in zip(rates, seen["full"], strict=True)),
         0 if name == "full" else model.cache_numbers, min(rates), max(rates)]
        for name, rates in seen.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    parts, data = [], {}
    for title, (prompt, tokens) in TEXTS.items():
        text = (8, 3) if args.smoke else (prompt, tokens)
        for kind, settings in MODELS.items():
            rows = measure(kind, settings, text, 1 if args.smoke else args.repeats, depth=1 if args.smoke else 4)
            data[f"{kind}, {title}"] = rows
            shown = [
                [name, f"{median:.0f}", f"{low:.0f} to {high:.0f}", f"{ratio:.2f}", f"{numbers:,}"]
                for name, median, ratio, numbers, low, high in rows
            ]
            head = ["form", "tokens/s", "from, to", "times full", "numbers cached a token"]
            words = f"{kind}, {title}: {text[1]} tokens after {text[0]}"
            parts.append(f"## {words}\n\n{_record.table(head, shown)}")
            print(parts[-1], flush=True)
    claim = "Tokens per second of sampling, by form"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if args.smoke else _record.RECORDS
        body = "One sequence, float32, depth 4, width 256, 4,096 tokens of vocabulary.\n\n" + "\n\n".join(parts)
        _record.write("sampling", claim=claim, body=body, data={"models": data}, folder=folder)


if __name__ == "__main__":
    main()
