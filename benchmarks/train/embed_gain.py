"""What learning adds to BM25 when functions are searched by their docstrings: three seeds, whole modules held out."""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import _record

from spectrain import train
from spectrain.train._jobs.embed_config import EmbedConfig


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-steps", type=int, default=80)
    parser.add_argument("--smoke", action="store_true", help="one seed, four steps, no record")
    asked = parser.parse_args()
    seeds, steps = ([0], 4) if asked.smoke else (asked.seeds, asked.max_steps)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            run = Path(folder) / str(seed)
            config = EmbedConfig(seed=seed, max_steps=steps, out_dir=str(run), spectrum_interval=0, eval_interval=1000)
            train.train(config)
            found.append({"seed": seed, **json.loads((run / "summary.json").read_text(encoding="utf-8"))})
    rows = [
        [
            row["seed"],
            *(f"{row[f'{key}{kind}']:.3f}" for key in ("mrr", "recall_10") for kind in ("_bm25", "", "_combined")),
        ]
        for row in found
    ]
    gains = {key: [row[f"{key}_combined"] - row[f"{key}_bm25"] for row in found] for key in ("mrr", "recall_10")}
    head = ["seed", "MRR BM25", "MRR learned", "MRR both", "recall@10 BM25", "recall@10 learned", "recall@10 both"]
    words = "; ".join(f"{key}: {statistics.fmean(v):+.3f} (least {min(v):+.3f})" for key, v in gains.items())
    body = f"{_record.table(head, rows)}\n\nGain of both over BM25 alone: {words}. Asked: +0.03 in each."
    print(body)
    if not asked.smoke:
        _record.write(
            "embed_gain", claim="Search by docstring: learned, BM25, and both", body=body, data={"runs": found}
        )


if __name__ == "__main__":
    main()
