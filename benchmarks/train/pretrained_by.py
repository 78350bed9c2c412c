"""Muon and AdamW before and after: weights' entropy, decay on and off, and fine-tuning by either: article 10739.

    python -m benchmarks.train.pretrained_by --data FOLDER --tune-data FILE --text NAME

Pre-training on --data (default: the Python standard library), fine-tuning on --tune-data with the same tokenizer, each
by either optimizer; every stage has the best of the same rates on the first seed, fine-tuning for each pair of its own.
The article: Muon's weights have more entropy, which is SVD entropy, over log n; without decay its lead is lost later;
Muon after Muon is best, and the other three show no pattern. Finished runs are kept.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import TINY
from benchmarks._variants import SMALL, Lab, beside, edges, finite, mean

OPTIMIZERS = ("muon", "adamw")
DECAYS = {"": {}, ", no decay": {"weight_decay": 0.0}}


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    tune_data: tuple[str, ...] = (),
    text: str = "tuned",
    steps: int = 320,
    tune_steps: int = 80,
    seeds: tuple[int, ...] = (0, 1, 2),
    rates: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0),
    tune_rates: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0),
    tuned_at: int = 80,
    model: Mapping[str, Any] = SMALL,
) -> Iterator[Found]:
    """Records of what there is so far: after pre-training, and after each pair."""
    first = Lab(runs=runs / text / "first", shared={"data": data, **model}, seeds=seeds, rates=rates)
    before: dict[str, dict[str, list[float]]] = {}
    for optimizer in OPTIMIZERS:
        for words, more in DECAYS.items():
            name = f"{optimizer}{words}"
            settings = {"optimizer": optimizer, "spectrum_interval": steps, **more}
            losses = first.losses(name, steps=steps, tuned_at=tuned_at, **settings)
            places = [_place(first, name, steps, seed, settings) for seed in seeds]
            before[name] = {"losses": losses, **_weights(places)}
    shared = {"data": tune_data or data, **model}
    second = Lab(runs=runs / text / "second", shared=shared, seeds=seeds, rates=tune_rates)
    after: dict[str, list[float]] = {}
    yield _found(first, second, before, after, text, steps, tune_steps)
    for begun in OPTIMIZERS:
        for optimizer in OPTIMIZERS:
            after[f"{optimizer} after {begun}"] = _tuned(first, second, begun, optimizer, steps, tune_steps)
            yield _found(first, second, before, after, text, steps, tune_steps)


def _place(lab: Lab, name: str, steps: int, seed: int, settings: Mapping[str, Any]) -> Path:
    folder = lab.run(name, steps=steps, seed=seed, factor=lab.best[name], **settings)
    assert folder is not None, f"{name} ended in numbers that are none"
    return folder


def _weights(folders: Sequence[Path]) -> dict[str, list[float]]:
    """Mean entropy of all watched weights at the end, and rms of their updates, run by run."""
    found: dict[str, list[float]] = {"entropies": [], "update_rms": []}
    for folder in folders:
        rows = list(map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()))
        spectra = [row for row in rows if row["kind"] == "spectrum"]
        last = [row for row in spectra if row["step"] == spectra[-1]["step"]]
        found["entropies"].append(statistics.fmean(row["weight_entropy"] for row in last))
        found["update_rms"].append(statistics.fmean(row["update_rms"] for row in last))
    return found


def _tuned(first: Lab, second: Lab, begun: str, optimizer: str, steps: int, tune_steps: int) -> list[float]:
    """Losses of fine-tuning, at the rate that is best on the first seed."""
    name = f"{optimizer} after {begun}"

    def loss(factor: float, seed: int) -> float:
        source = _place(first, begun, steps, seed, {"optimizer": begun, "spectrum_interval": steps})
        shared = {"init_from": str(source), "optimizer": optimizer, "vocabulary": 4096}
        return second.loss(name, steps=tune_steps, seed=seed, factor=factor, **shared)

    factor = second.choose(name, lambda x: loss(x, second.seeds[0]))
    return [loss(factor, seed) for seed in second.seeds]


def _found(
    first: Lab, second: Lab, before: Mapping[str, Mapping[str, list[float]]], after: Mapping[str, list[float]],
    text: str, steps: int, tune_steps: int,
) -> Found:  # fmt: skip
    base = before["muon"]["losses"]
    lines = [
        [name, f"{first.best[name]:g}", mean(of["losses"]), beside(of["losses"], base), mean(of["entropies"]),
         f"{statistics.fmean(of['update_rms']):.2g}"]
        for name, of in before.items()
    ]  # fmt: skip
    head = ["pre-training", "rate", "loss", "against muon", "SVD entropy of weights", "rms of the last update"]
    body = f"{steps} steps, {len(first.seeds)} seeds; mean (range), difference by seed ± standard error; rates are "
    body += f"multiples of the default. {edges(first)}\n\n{_record.table(head, lines)}"
    if after:
        best = after["muon after muon"]
        lines = [[name, f"{second.best[name]:g}", mean(of), beside(of, best)] for name, of in after.items()]
        table = _record.table(["fine-tuning", "rate", "loss", "against muon after muon"], lines)
        body += f"\n\n{tune_steps} steps of fine-tuning on {text}. {edges(second)}\n\n{table}"
    rows: list[dict[str, Any]] = [{"run": name, **of} for name, of in before.items()]
    rows += [{"run": name, "losses": finite(of)} for name, of in after.items()]
    entropies = {name: statistics.fmean(of["entropies"]) for name, of in before.items()}
    least = min(after, key=lambda name: sum(after[name])) if after else "none yet"
    figures = {"muon": entropies["muon"], "adamw": entropies["adamw"], "least": least}
    return Found(rows=rows, body=body, figures=figures, part=text)


if __name__ == "__main__":
    main(
        "pretrained_by",
        "SVD entropy of weights after Muon {muon:.3f}, after AdamW {adamw:.3f}; of fine-tuning on {text} the least "
        "loss has {least}",
        measure,
        smoke={
            "model": TINY | {"eval_tokens": 2**40},
            "steps": 2,
            "tune_steps": 2,
            "seeds": (0,),
            "rates": (1.0,),
            "tune_rates": (1.0,),
            "tuned_at": 2,
        },
    )
