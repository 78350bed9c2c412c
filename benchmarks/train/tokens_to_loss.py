"""How many tokens does Muon need to reach the best tuned AdamW's validation loss?

    python -m benchmarks.train.tokens_to_loss                       # on the standard library's source, depth 4
    python -m benchmarks.train.tokens_to_loss --data FILE --text x  # on other text

On the first seed AdamW is tuned by coordinate descent over learning rate, weight decay and both betas, and Muon over
its learning rate alone; then the best of each on all seeds. Finished runs in --runs are kept, so that an interrupted
benchmark goes on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import FIXED, TINY
from spectrain import train
from spectrain.train import TrainConfig
from spectrain.train.config import default_lr
from spectrain.train.internal import ratio_in_words

MODEL = {
    "depth": 4, "eval_interval": 10, "eval_tokens": 2**15, "save_interval": 100, "log_interval": 100,
}  # fmt: skip


def _tokens(tokens: float | None) -> str:
    return "not reached" if tokens is None else f"{tokens:.0f}"


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    text: str = "stdlib",
    steps: int = 160,
    tune: int = 24,
    seeds: tuple[int, ...] = (0, 1, 2),
    model: Mapping[str, Any] = MODEL,
) -> Found:
    """``tune``: runs of AdamW on the first seed, at most; ``text`` names the data in the record."""
    config = TrainConfig(**{**FIXED, "data": data, **model, "max_steps": steps})
    grid = {name: [default_lr(name, config.depth)] for name in ("adamw", "muon")}
    result = train.compare(config, grid=grid, seeds=seeds, folder=runs, tune=tune)
    rows, ratios = result["rows"], list(result["ratio_by_seed"].values())
    body = _record.table(
        ["optimizer", "lr", "decay", "betas", "seed", "final loss", "bits/byte", "tokens", "tokens to AdamW's best",
         "seconds"],
        [
            [row["optimizer"], f"{row['lr']:g}", f"{row.get('weight_decay', config.weight_decay):g}",
             f"{row.get('beta1', config.beta1):g}, {row.get('beta2', config.beta2):g}", row["seed"],
             f"{row['final_loss']:.4f}",
             f"{row['final_bits_per_byte']:.4f}", row["tokens"], _tokens(row["tokens_to_target"]),
             f"{row['seconds']:.0f}"]
            for row in rows
        ],
    )  # fmt: skip
    body += (
        f"\n\nRatio by seed: {', '.join('not reached' if ratio is None else f'{ratio:.3f}' for ratio in ratios)}. No "
        "seed is left out of the mean; where one is not reached, its tokens count as a lower bound. "
        f"AdamW was tuned on the first seed by coordinate descent over learning rate, decay and betas (at most {tune} "
        "runs), Muon over its learning rate; the best of each ran on the other seeds. The target of a seed is the "
        "lowest final validation loss of AdamW; tokens to it are read off Muon's validation curve, linear between "
        f"validations {config.eval_interval} steps apart, in a run of the same length. Other settings are the "
        "defaults of `spectrain train`."
    )
    data_ = {"ratios": ratios, "at_least": result["ratio_at_least"], "not_reached": result["not_reached"]}
    return Found(rows=rows, body=body, figures={"ratio": ratio_in_words(result)}, data=data_, part=text)


if __name__ == "__main__":
    main(
        "tokens_to_loss",
        "Tokens of Muon to the best tuned AdamW's loss, over AdamW's: {ratio}",
        measure,
        smoke={"model": TINY | {"eval_interval": 1}, "steps": 2, "tune": 2, "seeds": (0,)},
        threads=None,
    )
