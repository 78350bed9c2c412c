"""nanoGPT's CPU recipe on tiny Shakespeare: 4 layers, 128 wide, block 64, batch 12, 2000 steps; published loss 1.88.

    python benchmarks/nanogpt_recipe.py --data tinyshakespeare.txt

The same number of characters is seen, by a model of the same depth and width, held out is the last tenth.
The text is ASCII, so bytes are characters, and loss a byte is loss a character.
"""

import argparse
import json
from pathlib import Path

import _record

from spectrain import train
from spectrain.train import TrainConfig

PUBLISHED = 1.88


def config(data: str, optimizer: str, lr: float, seed: int, folder: Path, *, smoke: bool) -> TrainConfig:
    return TrainConfig(
        data=(data,),
        out_dir=str(folder / f"{optimizer}-lr{lr:g}-seed{seed}"),
        resume="auto",
        optimizer=optimizer,
        lr=lr,
        seed=seed,
        depth=4,
        width=128,
        heads=4,
        kv_heads=4,
        tokenizer="bytes",
        block=64,
        batch_size=12,
        max_steps=20 if smoke else 2000,
        warmup=100,
        validation_fraction=0.1,
        eval_interval=250,
        save_interval=500,
        spectrum_interval=0,
        sample_tokens=0,
        autocast="off",
        muon_dtype="float32",
        log_interval=250,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the 1,115,394-byte file")
    parser.add_argument("--out-dir", type=Path, default=Path("runs/nanogpt_recipe"))
    parser.add_argument("--muon-lr", nargs="+", type=float, default=[4e-3])
    parser.add_argument("--adamw-lr", nargs="+", type=float, default=[1e-3, 4e-3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs; writes no record")
    asked = parser.parse_args()
    if asked.data is None:
        print("skipped: give --data tinyshakespeare.txt")
        return
    rows = []
    for seed in asked.seeds:
        for optimizer, rates in (("muon", asked.muon_lr), ("adamw", asked.adamw_lr)):
            for lr in rates:
                one = config(asked.data, optimizer, lr, seed, asked.out_dir, smoke=asked.smoke)
                if not (Path(one.out_dir) / "summary.json").exists():
                    train.train(one)
                summary = json.loads((Path(one.out_dir) / "summary.json").read_text(encoding="utf-8"))
                rows.append({"optimizer": optimizer, "lr": lr, "seed": seed, **summary})
                print(f"{optimizer} lr {lr:g} seed {seed}: validation loss {summary['validation_loss']:.4f}")
    if asked.smoke:
        return
    losses = [row["validation_loss"] for row in rows if row["optimizer"] == "muon"]
    body = _record.table(
        ["optimizer", "lr", "seed", "validation loss", "parameters", "tokens", "seconds"],
        [[r["optimizer"], f"{r['lr']:g}", r["seed"], f"{r['validation_loss']:.4f}", r["parameters"], r["tokens"],
          f"{r['seconds']:.0f}"] for r in rows],
    )  # fmt: skip
    claim = f"nanoGPT's CPU recipe: validation loss {min(losses):.3f} by Muon, published {PUBLISHED} by AdamW"
    notes = (
        "\n\nDepth, width, heads, context, batch and steps are the recipe's. The blocks are ours (SwiGLU, rotary "
        "positions, RMSNorm), the byte vocabulary has 257 entries in place of 65, and every held-out character is "
        "scored once."
    )
    print(_record.write("nanogpt_recipe", claim=claim, body=body + notes, data={"rows": rows, "published": PUBLISHED}))


if __name__ == "__main__":
    main()
