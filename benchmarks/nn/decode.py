"""Absorbed decoding against expanding the latents again at every step, and against MHA, GQA and MQA.

    python -m benchmarks.nn.decode

One token a step behind a cache of so many tokens, one sequence, no gradient. Of each form equal layers follow each
other, as in a model, until they hold so many megabytes. Times are medians of processor time and of a layer; the ratio
to the absorbed form is the median of paired runs (the forms take turns).

A token has to read what is cached and the weights of each layer, once. The memory's bandwidth is that of one
matrix-vector product in float32 over a tensor of as many bytes as all these layers hold, in the same turns: the share
is the time of that product over the time of the token. Where a cache of the processor holds those bytes, it is the
memory of both.
"""

import copy
import functools
import itertools
import time
from collections.abc import Mapping

import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from spectrain import nn

ABSORBED, EXPANDED = "MLA, absorbed", "MLA, expanded again"
OTHERS = ("MHA", "GQA, 4 heads", "MQA", "shared S2, 2 heads of 128")
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
        for name, kv_heads in zip(OTHERS, (heads, 4, 1), strict=False):
            table[name] = (nn.Attention(width, **plain, kv_heads=kv_heads), None)
        shared = {"kv_heads": 2, "head_dim": 128, "rotary_dim": 32, "share": "all"}
        table[OTHERS[-1]] = (nn.Attention(width, **{**plain, **shared}), None)
    return table


def sweep(size: int) -> functools.partial:
    """Read so many bytes once."""
    columns = min(1024, max(1, size // 4))
    return functools.partial(torch.mv, torch.ones(max(1, size // 4 // columns), columns), torch.ones(columns))


class Stack:
    """Equal layers in memory of their own, and what they have answered."""

    def __init__(self, block: nn.Attention, absorbed: bool | None, *, prompt: torch.Tensor, megabytes: float) -> None:
        cache = block.empty_cache()
        for part in prompt.split(512, dim=1):
            block(part, cache=cache)
        self.numbers, self.absorbed = cache.numbers_per_token, absorbed
        self.size = cache.stored * self.numbers * prompt.itemsize + sum(p.nbytes for p in block.parameters())
        self.count = max(1, int(1e6 * megabytes / self.size))
        self.layers = [copy.deepcopy((block, cache)) for _ in range(self.count)]
        self.answers: list[torch.Tensor] = []

    def step(self, inputs: list[torch.Tensor]) -> None:
        """One token of each layer."""
        x = inputs[len(self.answers)]
        for block, cache in self.layers:
            y = block(x, cache=cache, absorbed=self.absorbed)
        self.answers.append(y)


def takes_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16; elsewhere it is widened first."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@torch.no_grad()
def compare(
    width: int, table: dict, stored: int, rounds: int, megabytes: float, dtype: torch.dtype
) -> tuple[list[dict], float]:
    """One row a form, and the largest difference between the two forms of MLA."""
    g = torch.Generator().manual_seed(0)
    for block in dict.fromkeys(block for block, _ in table.values()):
        block.initialise(generator=g)
        torch.nn.init.normal_(block.output.weight, std=width**-0.5, generator=g)
        block.to(dtype)
    prompt = torch.randn(1, stored, width, generator=g).to(dtype)
    inputs = [torch.randn(1, 1, width, generator=g).to(dtype) for _ in range(rounds + 1)]
    stacks = {name: Stack(*form, prompt=prompt, megabytes=megabytes) for name, form in table.items()}
    calls = {name: functools.partial(stack.step, inputs) for name, stack in stacks.items()}
    sweeps = {f"sweep, {name}": sweep(stack.count * stack.size) for name, stack in stacks.items()}
    times = alternate(calls | sweeps, rounds=rounds, clock=time.process_time)
    a, b = (torch.stack(stacks[name].answers) for name in (ABSORBED, EXPANDED))
    rows = [
        {
            "form": name,
            "cached numbers a token": stack.numbers,
            "ms a token": 1e3 * times.median(name) / stack.count,
            "time / absorbed": times.ratio(name, ABSORBED) / stack.count * stacks[ABSORBED].count,
            "MB to read": stack.size / 1e6,
            "layers": stack.count,
            "memory, GB/s": stack.count * stack.size / times.median(f"sweep, {name}") / 1e9,
            "share of the memory's bandwidth": times.ratio(f"sweep, {name}", name),
        }
        for name, stack in stacks.items()
    ]
    return rows, float((a - b).abs().max() / b.abs().max())


def measure(
    *,
    shapes: Mapping[str, tuple[int, dict | None, dict]] = SHAPES,
    dtypes: tuple[str, ...] = ("float32", "bfloat16"),
    stored: int = 4096,
    rounds: int = 15,
    megabytes: float = 128.0,
    others: tuple[str, ...] = OTHERS,
) -> Found:
    """One token a step behind ``stored`` ones; bfloat16 where the processor multiplies it. ``others`` than MLA."""
    parts, found, apart = [f"One sequence, {stored:,} tokens cached."], [], []
    for (title, (width, plain, latent)), dtype in itertools.product(shapes.items(), dtypes):
        if dtype == "bfloat16" and not takes_bfloat16():
            parts.append(f"## {title}, {dtype}\n\nNot measured: this processor widens bfloat16.")
            continue
        table = {k: form for k, form in forms(width, plain, latent).items() if k in (ABSORBED, EXPANDED, *others)}
        rows, difference = compare(width, table, stored, rounds, megabytes, getattr(torch, dtype))
        apart += [difference] if dtype == "float32" else []
        found += [{"shape": title, "dtype": dtype, **row} for row in rows]
        parts.append(
            f"## {title}, {dtype}\n\n{_record.show(rows)}\n\nThe two forms differ by {difference:.1e} at most."
        )
        print(parts[-1], flush=True)
    ratios = {
        f"{r['shape']}, {r['dtype']}, {r['form']}: {what}": r[what]
        for r in found
        for what in ("time / absorbed", "share of the memory's bandwidth")
        if (r["form"], what) != (ABSORBED, "time / absorbed")
    }
    shares = [r["share of the memory's bandwidth"] for r in found if r["form"] != EXPANDED]
    chief = {"faster": max(r["time / absorbed"] for r in found if r["form"] == EXPANDED), "apart": max(apart)}
    chief |= {"lowest": min(shares), "highest": max(shares)}
    return Found(rows=found, body="\n\n".join(parts), figures=chief, ratios=ratios)


if __name__ == "__main__":
    main(
        "decode",
        "Absorbed decoding is up to {faster:.1f} times faster than expanding again, and differs by {apart:.1e} at "
        "most; a token takes {lowest:.2f} to {highest:.2f} of the memory's bandwidth",
        measure,
        smoke={
            "shapes": {"a small layer": (64, {"heads": 16, "head_dim": 8}, SHAPES[FIRST][2] | {"latent": 16})},
            "stored": 16,
            "rounds": 1,
            "megabytes": 1.0,
        },
        check={"shapes": {FIRST: SHAPES[FIRST]}, "dtypes": ("float32",), "rounds": 3, "others": OTHERS[1:2]},
    )
