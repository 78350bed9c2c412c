"""Shapes of attention at equal cache, and at equal parameters: the tables of article 10907, an eighth as wide.

    python -m benchmarks.train.shapes --data FILE --text NAME

The article trains 0.9 billion parameters on 16 billion tokens, 16 heads of 128 at width 2,048, by Muon head by head;
here 4 heads of 32 at width 128, --muon-per-head, the rate tuned once, for MHA. So GQA4 is MHA here, and is left out.
Its claims: larger heads count most, partial RoPE helps, keys that are values do not hurt, low rank of queries and
outputs is the cheapest way to larger heads. Finished runs are kept.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import TINY
from benchmarks._variants import SMALL, Lab, against, beside, mean
from spectrain import train

WIDE = {"heads": 4, "kv_heads": 1, "head_dim": 64, "attention": "mqa"}
S2 = {"attention": "s2", "kv_heads": 2, "head_dim": 64, "rotary_dim": 16}
SHAPES: dict[str, tuple[dict[str, Any], float]] = {
    "MHA": ({"attention": "mha"}, 2.721),
    "MLA": ({"attention": "mla", "latent": 128, "head_dim": 48, "rotary_dim": 16}, 2.721),
    "MLA-256": ({"attention": "mla", "latent": 128, "head_dim": 64, "rotary_dim": 16, "value_dim": 32}, 2.705),
    "GQA2-128": ({"attention": "gqa", "kv_heads": 2}, 2.75),
    "GQA2-192": ({"attention": "gqa", "kv_heads": 2, "head_dim": 48}, 2.729),
    "GQA1-256": (WIDE, 2.72),
    "GQA1-256-PR": (WIDE | {"rotary_dim": 16}, 2.711),
    "GQA2-(192+64)-S1": ({"attention": "s1", "kv_heads": 2, "head_dim": 64, "rotary_dim": 16}, 2.714),
    "GQA2-(192+64)-S2": (S2, 2.708),
    "GQA1-(512+64)-S3": (
        {"attention": "s1", "kv_heads": 1, "head_dim": 144, "rotary_dim": 16, "value_dim": 128}, 2.677,
    ),
    "GQA2-128, twice the heads": ({"attention": "gqa", "heads": 8, "kv_heads": 2, "head_dim": 32}, 2.723),
    "GQA1-256, smaller MLP": (WIDE | {"hidden": 256}, 2.747),
    "GQA1-256, Q and O by rank": (WIDE | {"query_rank": 42, "output_rank": 42}, 2.726),
    "GQA2-(192+64)-S2, smaller MLP": (S2 | {"hidden": 256}, 2.733),
    "GQA2-(192+64)-S2, Q and O by rank": (S2 | {"query_rank": 42, "output_rank": 42}, 2.708),
}  # fmt: skip
"""Settings, and the article's loss. Hidden features are 341 of width 128 unless said (5,456 of 2,048 there)."""


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    text: str = "stdlib",
    steps: int = 320,
    seeds: tuple[int, ...] = (0, 1, 2),
    rates: tuple[float, ...] = (1.0, 2.0, 4.0),
    shapes: tuple[str, ...] = tuple(SHAPES),
    tuned_at: int = 160,
    hidden: int = 341,
    model: Mapping[str, Any] = SMALL | {"muon_per_head": True, "heads": 4},
) -> Iterator[Found]:
    """A record after every shape, of all so far."""
    lab = Lab(runs=runs / text, shared={"data": data, **model}, seeds=seeds, rates=rates)
    mha = {"hidden": hidden, **SHAPES["MHA"][0]}
    factor = lab.choose("all", lambda x: lab.loss("MHA", steps=tuned_at, seed=seeds[0], factor=x, **mha))
    found: dict[str, dict[str, Any]] = {}
    for name in shapes:
        settings, published = SHAPES[name]
        one = {"steps": steps, "factor": factor, "hidden": hidden, **settings}
        losses = [lab.loss(name, seed=seed, **one) for seed in seeds]
        folder = lab.run(name, seed=seeds[0], **one)
        assert folder is not None, f"{name} ended in numbers that are none"
        net = train.load_run(folder).model
        size = sum(p.numel() for p in net.blocks.parameters())
        cache = net.cache_numbers // len(net.blocks)
        found[name] = {"losses": losses, "cache": cache, "parameters": size, "published": published}
        yield _found(found, text, steps, seeds, factor)


def _found(found: Mapping[str, Mapping[str, Any]], text: str, steps: int, seeds: tuple[int, ...], x: float) -> Found:
    """Each shape beside GQA2-128 (else the first), here and in the article, and the pairs that come out otherwise."""
    base = found.get("GQA2-128", next(iter(found.values())))
    lines = []
    for name, of in found.items():
        gap = beside(of["losses"], base["losses"])
        lines.append([name, of["cache"], f"{of['parameters']:,}", mean(of["losses"]), gap,
                      f"{of['published'] - base['published']:+.3f}"])  # fmt: skip
    apart = list(_apart(found))
    head = ["shape", "cached numbers a token and layer", "parameters of blocks", "loss", "against GQA2-128", "article"]
    body = (
        f"{steps} steps on {text}, {len(seeds)} seeds: mean (range) of nats a token of all held-out text, mean "
        f"difference by seed ± its standard error. One rate for all, {x:g} times the default, the best of MHA's.\n\n"
        f"{_record.table(head, lines)}\n\nPairs of another order than the article's by more than two standard errors: "
        f"{'; '.join(apart) or 'none'}."
    )
    rows = [{"shape": name, **of} for name, of in found.items()]
    least = min(found, key=lambda name: sum(found[name]["losses"]))
    return Found(rows=rows, body=body, figures={"least": least, "apart": len(apart)}, part=text)


def _apart(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Pairs whose order differs from the published one, clearly."""
    names = list(found)
    for i, one in enumerate(names):
        for other in names[:i]:
            gap, error = against(found[one]["losses"], found[other]["losses"])
            theirs = found[one]["published"] - found[other]["published"]
            if math.isfinite(error) and gap * theirs < 0 and abs(gap) > 2 * error:
                yield f"{one} - {other} {gap:+.4f}, {abs(gap) / error:.1f} standard errors (article {theirs:+.3f})"


if __name__ == "__main__":
    main(
        "shapes",
        "Shapes of attention on {text}, {steps} steps: the least loss has {least}; pairs of another order than the "
        "article's by more than two standard errors: {apart}",
        measure,
        smoke={
            "model": TINY | {"eval_tokens": 2**40, "width": 128, "heads": 4},
            "steps": 2,
            "seeds": (0,),
            "rates": (1.0,),
            "tuned_at": 2,
            "shapes": ("GQA2-128", "GQA1-(512+64)-S3", "GQA1-256, Q and O by rank"),
        },
    )
