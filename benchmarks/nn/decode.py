"""Absorbed decoding against expanding the latents again at every step, and against MHA, GQA and MQA.

    python -m benchmarks.nn.decode

One token a step behind a cache of so many tokens, one sequence, float32, no gradient. Times are medians; the ratio to
the absorbed form is the median of paired runs (the forms take turns).
"""

import functools
from collections.abc import Mapping

import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from spectrain import nn

ABSORBED, EXPANDED = "MLA, absorbed", "MLA, expanded again"
FIRST = "a layer of width 1024, 16 heads"
SHAPES = {
    FIRST: (
        1024,
        {"heads": 16},
        {"latent": 256, "head_dim": 96, "rotary_dim": 32, "value_dim": 64},
    ),
    "the published heads: 128 of 128 + 64, latent 512, width 2048": (
        2048,
        None,
        {"heads": 128, "latent": 512, "head_dim": 192, "rotary_dim": 64, "value_dim": 128, "query_rank": 512},
    ),
}


def forms(width: int, plain: dict | None, latent: dict) -> dict[str, tuple[nn.Attention, bool | None]]:
    heads = latent.get("heads") or (plain or {})["heads"]
    mla = nn.Attention(width, **{"heads": heads, **latent})
    table: dict[str, tuple[nn.Attention, bool | None]] = {
        ABSORBED: (mla, True),
        EXPANDED: (mla, False),
    }
    if plain:
        for name, kv_heads in (("MHA", heads), ("GQA, 4 heads", 4), ("MQA", 1)):
            table[name] = (nn.Attention(width, **plain, kv_heads=kv_heads), None)
        shared = {"kv_heads": 2, "head_dim": 128, "rotary_dim": 32, "share": "all"}
        table["shared S2, 2 heads of 128"] = (nn.Attention(width, **{**plain, **shared}), None)
    return table


@torch.no_grad()
def compare(width: int, table: dict, stored: int, rounds: int) -> tuple[list[dict], float]:
    """One row a form, and the largest difference between the two forms of MLA."""
    g = torch.Generator().manual_seed(0)
    for block in {block for block, _ in table.values()}:
        block.initialise(generator=g)
        torch.nn.init.normal_(block.output.weight, std=width**-0.5, generator=g)
    caches = {name: block.empty_cache() for name, (block, _) in table.items()}
    for _ in range(0, stored, 512):
        x = torch.randn(1, min(512, stored), width, generator=g)
        for name, (block, _) in table.items():
            block(x, cache=caches[name])
    inputs = [torch.randn(1, 1, width, generator=g) for _ in range(rounds + 1)]
    answers: dict[str, list[torch.Tensor]] = {name: [] for name in table}

    def step(name: str) -> None:
        block, absorbed = table[name]
        answers[name].append(block(inputs[len(answers[name])], cache=caches[name], absorbed=absorbed))

    times = alternate({name: functools.partial(step, name) for name in table}, rounds=rounds)
    a, b = answers[ABSORBED][-1], answers[EXPANDED][-1]
    rows = [
        {
            "form": name,
            "cached numbers a token": caches[name].numbers_per_token,
            "ms a token": 1e3 * times.median(name),
            "time / absorbed": times.ratio(name, ABSORBED),
        }
        for name in table
    ]
    return rows, float((a - b).abs().max() / b.abs().max())


def measure(
    *, shapes: Mapping[str, tuple[int, dict | None, dict]] = SHAPES, stored: int = 4096, rounds: int = 15
) -> Found:
    """One token a step behind ``stored`` ones."""
    parts, found, apart = [f"float32, one sequence, {stored:,} tokens cached."], [], []
    for title, (width, plain, latent) in shapes.items():
        rows, difference = compare(width, forms(width, plain, latent), stored, rounds)
        apart.append(difference)
        found += [{"shape": title, **row} for row in rows]
        parts.append(f"## {title}\n\n{_record.show(rows)}\n\nThe two forms differ by {difference:.1e} at most.")
        print(parts[-1], flush=True)
    ratios = {f"{r['shape']}, {r['form']}: time / absorbed": r["time / absorbed"] for r in found}
    figures = {"faster": max(r["time / absorbed"] for r in found if r["form"] == EXPANDED), "apart": max(apart)}
    return Found(rows=found, body="\n\n".join(parts), figures=figures | ratios)


if __name__ == "__main__":
    main(
        "decode",
        "Absorbed decoding is up to {faster:.1f} times faster than expanding again, and differs by {apart:.1e} at most",
        measure,
        smoke={
            "shapes": {"a small layer": (64, {"heads": 16, "head_dim": 8}, SHAPES[FIRST][2] | {"latent": 16})},
            "stored": 16,
            "rounds": 1,
        },
        check={"shapes": {FIRST: SHAPES[FIRST]}, "rounds": 3},
    )
