"""nanoGPT's CPU recipe on tiny Shakespeare: 4 layers, 128 wide, block 64, batch 12, 2000 steps; published loss 1.88.

    python -m benchmarks.train.nanogpt_recipe --data tinyshakespeare.txt

The recipe itself runs here (`_gpt.py`), and our model with our optimizers on the same number of characters, of the same
depth and width. Held out is the last tenth, all of which is scored, for everybody. The text is ASCII, so bytes are
characters, and loss a byte is loss a character.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import MissingError, main
from benchmarks._record import Found
from benchmarks._runs import TINY, finish_run, summary
from benchmarks.train._gpt import Recipe, run

PUBLISHED = 1.88


RECIPE = {
    "depth": 4, "width": 128, "heads": 4, "kv_heads": 4, "tokenizer": "bytes", "block": 64, "batch_size": 12,
    "warmup": 100, "validation_fraction": 0.1, "eval_interval": 250, "save_interval": 500, "log_interval": 250,
    "spectrum_interval": 0, "sample_tokens": 0, "autocast": "off", "muon_dtype": "float32",
}  # fmt: skip


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    steps: int = 2000,
    muon_lr: tuple[float, ...] = (4e-3,),
    adamw_lr: tuple[float, ...] = (1e-3, 4e-3),
    seeds: tuple[int, ...] = (0,),
    model: Mapping[str, Any] = RECIPE,
) -> Found:
    """``data`` is the file of 1,115,394 bytes."""
    if not data:
        raise MissingError("give --data tinyshakespeare.txt")
    rows = []
    text = Path(data[0]).read_text(encoding="utf-8")
    for seed in seeds:
        begun = time.perf_counter()
        found = run(text, Recipe(steps=steps), seed=seed)
        found |= {"tokens": steps * Recipe.batch * Recipe.block, "seconds": time.perf_counter() - begun}
        rows.append({"optimizer": "recipe", "lr": Recipe.lr, "seed": seed, **found})
        print(f"the recipe, seed {seed}: validation loss {found['validation_loss']:.4f}")
        for optimizer, rates in (("muon", muon_lr), ("adamw", adamw_lr)):
            for lr in rates:
                flags = {**model, "data": data, "optimizer": optimizer, "lr": lr, "seed": seed, "max_steps": steps}
                found = summary(finish_run(runs / f"{optimizer}-lr{lr:g}-seed{seed}-{steps}", **flags))
                rows.append({"optimizer": optimizer, "lr": lr, "seed": seed, **found})
                print(f"{optimizer} lr {lr:g} seed {seed}: validation loss {found['validation_loss']:.4f}")
    body = _record.table(
        ["optimizer", "lr", "seed", "validation loss", "parameters", "tokens", "seconds"],
        [[r["optimizer"], f"{r['lr']:g}", r["seed"], f"{r['validation_loss']:.4f}", r["parameters"], r["tokens"],
          f"{r['seconds']:.0f}"] for r in rows],
    )  # fmt: skip
    body += (
        "\n\n`recipe` is nanoGPT's own: GPT-2's blocks, AdamW, cosine. Of the others depth, width, heads, context, "
        "batch and steps are the recipe's, the blocks ours (SwiGLU, rotary positions, RMSNorm), its vocabulary has "
        "257 entries in place of 65. Every held-out character is scored once, by everybody; what is published is an "
        "estimate on random windows."
    )
    least = {
        name: min(r["validation_loss"] for r in rows if r["optimizer"] == name) for name in ("recipe", "muon", "adamw")
    }
    return Found(rows=rows, body=body, figures={**least, "published": PUBLISHED})


if __name__ == "__main__":
    main(
        "nanogpt_recipe",
        "nanoGPT's CPU recipe: validation loss {recipe:.3f} here ({published} is published), {adamw:.3f} by our model "
        "and AdamW, {muon:.3f} by our model and Muon",
        measure,
        smoke={"data": TINY["data"], "model": TINY, "steps": 1, "adamw_lr": (1e-3,)},
        threads=None,
    )
