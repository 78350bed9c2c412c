"""Absorbed decoding against expanding the latents again at every step, and against MHA, GQA and MQA.

    python benchmarks/decode.py            # writes benchmarks/records/<date>_decode.{md,json}
    python benchmarks/decode.py --smoke    # small

One token a step behind a cache of so many tokens, one sequence, float32, no gradient. Times are medians; the ratio to
the absorbed form is the median of paired runs (the forms take turns).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import _record
import torch

from spectrain import nn

SHAPES = {
    "a layer of width 1024, 16 heads": (
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
        "MLA, absorbed": (mla, True),
        "MLA, expanded again": (mla, False),
    }
    if plain:
        for name, kv_heads in (("MHA", heads), ("GQA, 4 heads", 4), ("MQA", 1)):
            table[name] = (nn.Attention(width, **plain, kv_heads=kv_heads), None)
        shared = {"kv_heads": 2, "head_dim": 128, "rotary_dim": 32, "share": "all"}
        table["shared S2, 2 heads of 128"] = (nn.Attention(width, **{**plain, **shared}), None)
    return table


@torch.no_grad()
def measure(width: int, table: dict, stored: int, repeats: int) -> list[list]:
    g = torch.Generator().manual_seed(0)
    for block in {block for block, _ in table.values()}:
        block.initialise(generator=g)
        torch.nn.init.normal_(block.output.weight, std=width**-0.5, generator=g)
    caches = {name: block.empty_cache() for name, (block, _) in table.items()}
    for _ in range(0, stored, 512):
        x = torch.randn(1, min(512, stored), width, generator=g)
        for name, (block, _) in table.items():
            block(x, cache=caches[name])
    times = {name: [] for name in table}
    answers = {}
    for _ in range(repeats + 1):
        x = torch.randn(1, 1, width, generator=g)
        for name, (block, absorbed) in table.items():
            start = time.perf_counter()
            answers[name] = block(x, cache=caches[name], absorbed=absorbed)
            times[name].append(time.perf_counter() - start)
    a, b = answers["MLA, absorbed"], answers["MLA, expanded again"]
    print(f"largest difference between the two forms: {(a - b).abs().max() / b.abs().max():.1e}")
    base = times["MLA, absorbed"][1:]
    return [
        [
            name,
            caches[name].numbers_per_token,
            1e3 * statistics.median(t[1:]),
            statistics.median(t / s for t, s in zip(t[1:], base, strict=True)),
        ]
        for name, t in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts, data = [], {}
    for title, (width, plain, latent) in SHAPES.items():
        if args.smoke:
            width, latent = 64, {**latent, "latent": 16}
            latent.pop("query_rank", None)
            plain = plain and {"heads": 16, "head_dim": 8}
        stored = 64 if args.smoke else 4096
        rows = measure(width, forms(width, plain, latent), stored, 2 if args.smoke else args.repeats)
        data[title] = rows
        shown = [[name, f"{numbers:,}", f"{ms:.3g}", f"{ratio:.2f}"] for name, numbers, ms, ratio in rows]
        head = ["form", "cached numbers a token", "ms a token", "time / absorbed"]
        parts.append(f"## {title}, {stored:,} tokens cached\n\n{_record.table(head, shown)}")
        print(parts[-1], flush=True)
    claim = "Absorbed decoding against expanding again"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if args.smoke else _record.RECORDS
        body = "float32, one sequence, one thread.\n\n" + "\n\n".join(parts)
        _record.write("decode", claim=claim, body=body, data={"shapes": data}, folder=folder)


if __name__ == "__main__":
    main()
