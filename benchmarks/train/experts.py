"""Experts at equal cost: how many are shared, how wide, balanced by what and towards what: article 10945 and others.

    python -m benchmarks.train.experts --data FILE --text NAME

Every token computes as many hidden features in all: --hidden is divided by --moe-top-k and --moe-shared together, and
routed and shared experts together are as many. Every variant has the best of the same rates on the first seed. The
articles: shared experts help; finer ones help; whether a uniform load is best is left open. Finished runs are kept.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import TINY, summary
from benchmarks._variants import SMALL, Lab, beside, edges, mean

BASE = {"moe_experts": 16, "moe_top_k": 4, "moe_shared": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "16 of which 4, 2 shared, by signs": {},
    "1 shared": {"moe_experts": 17, "moe_top_k": 5, "moe_shared": 1},
    "none shared": {"moe_experts": 18, "moe_top_k": 6, "moe_shared": 0},
    "half as wide": {"moe_experts": 32, "moe_top_k": 8, "moe_shared": 4},
    "twice as wide": {"moe_experts": 8, "moe_top_k": 2, "moe_shared": 1},
    "by rms": {"moe_balance": "rms"},
    "by quantiles": {"moe_balance": "quantile"},
    "auxiliary loss alone": {"moe_balance": "none", "moe_penalty": 0.01},
    "no balance": {"moe_balance": "none"},
    "a threshold": {"moe_select": "threshold", "moe_balance": "quantile"},
    "shares by i^-0.25": {"moe_skew": 0.25},
    "shares by i^-0.5": {"moe_skew": 0.5},
    "dense": {"moe_experts": None},
}
"""What differs from BASE."""


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    text: str = "stdlib",
    steps: int = 320,
    seeds: tuple[int, ...] = (0, 1, 2),
    rates: tuple[float, ...] = (1.0, 2.0, 4.0),
    variants: tuple[str, ...] = tuple(VARIANTS),
    tuned_at: int = 80,
    hidden: int = 384,
    model: Mapping[str, Any] = SMALL,
) -> Iterator[Found]:
    """A record after every variant, of all so far; rates are chosen after ``tuned_at`` steps."""
    lab = Lab(runs=runs / text, shared={"data": data, **model}, seeds=seeds, rates=rates)
    found: dict[str, dict[str, list[float]]] = {}
    for name in variants:
        own = {**BASE, **VARIANTS[name]}
        own = (own if own["moe_experts"] else {}) | {"hidden": hidden}
        losses = lab.losses(name, steps=steps, tuned_at=tuned_at, **own)
        found[name] = {"losses": losses, "violations": _violations(lab, name, steps, own)}
        yield _found(lab, found, text, steps)


def _violations(lab: Lab, name: str, steps: int, settings: Mapping[str, Any]) -> list[float]:
    """MaxVio of held-out text at the end, of every seed that ended well."""
    folders = [lab.run(name, steps=steps, seed=s, factor=lab.best[name], **settings) for s in lab.seeds]
    rows = [summary(folder) for folder in folders if folder is not None]
    return [row["moe_max_violation"] for row in rows if "moe_max_violation" in row]


def _found(lab: Lab, found: Mapping[str, Mapping[str, list[float]]], text: str, steps: int) -> Found:
    base = next(iter(found.values()))["losses"]
    lines = [
        [name, f"{lab.best[name]:g}", mean(of["losses"]), beside(of["losses"], base),
         mean(of["violations"]) if of["violations"] else "-"]
        for name, of in found.items()
    ]  # fmt: skip
    rows = [{"variant": name, "rate": lab.best[name], **of} for name, of in found.items()]
    head = ["variant", "rate", "loss", "against the first", "MaxVio of held-out text"]
    body = (
        f"{steps} steps on {text}, {len(lab.seeds)} seeds: mean (range) of nats a token of all held-out text, the mean "
        f"difference by seed ± its standard error. Rates are multiples of the default, the best on the first seed. "
        f"{edges(lab)}\n\n{_record.table(head, lines)}"
    )
    means = {name: sum(of["losses"]) / len(lab.seeds) for name, of in found.items()}
    least = min(means, key=lambda name: means[name])
    return Found(rows=rows, body=body, figures={"least": least, "loss": means[least]}, part=text)


if __name__ == "__main__":
    main(
        "experts",
        "Experts at equal cost on {text}, {steps} steps: the least loss is {loss:.4f}, of: {least}",
        measure,
        smoke={
            "model": TINY | {"eval_tokens": 2**40},
            "steps": 2,
            "seeds": (0,),
            "rates": (1.0,),
            "hidden": 48,
            "tuned_at": 2,
            "variants": ("16 of which 4, 2 shared, by signs", "a threshold", "dense"),
        },
    )
