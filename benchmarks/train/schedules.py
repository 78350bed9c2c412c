"""Which schedule is best where a run ends, and where it is stopped: articles 11459, 11494, 11530.

    python -m benchmarks.train.schedules --data FILE --text NAME

linear, cosine, wsd and refined know their end: a run for each stopping point (refined: from the gradient norms of the
linear run of the same length and seed). uniform and uniform-joint do not, nor does a constant rate, which is judged
raw, averaged (--average) and by the estimate of its decay (--decay-estimate): one run, read at each point. Every
schedule has the best of the same rates, chosen on the first seed at the first point. Finished runs in --runs are kept.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._runs import TINY
from benchmarks._variants import RATES, SMALL, Lab, beside, edges, judged, mean
from spectrain.train import TrainConfig

ENDING = {
    "linear": {},
    "linear, to nothing": {"final_lr": 0.0},
    "cosine": {"schedule": "cosine"},
    "wsd": {"schedule": "wsd"},
    "refined": {"schedule": "refined"},
}
"""Schedules that know their end."""
ENDLESS = {
    "uniform": ({"schedule": "uniform"}, {"uniform": "loss"}),
    "uniform-joint": ({"schedule": "uniform-joint"}, {"uniform-joint": "loss"}),
    "constant": (
        {"final_lr": 1.0, "average": 0.1},
        {"constant": "loss", "constant, averaged": "average_loss", "constant, decay estimated": "decayed_loss"},
    ),
}
"""Those that do not: settings, and what is read of the run under which name."""


def measure(
    *,
    runs: Path,
    data: tuple[str, ...] = (),
    text: str = "stdlib",
    stops: tuple[int, ...] = (160, 320, 640),
    seeds: tuple[int, ...] = (0, 1, 2),
    rates: tuple[float, ...] = RATES,
    schedules: tuple[str, ...] = (*ENDING, *ENDLESS),
    model: Mapping[str, Any] = SMALL,
) -> Iterator[Found]:
    """A record after every schedule, of all so far; ``text`` names the data."""
    lab = Lab(runs=runs / text, shared={"data": data, **model}, seeds=seeds, rates=rates)
    found: dict[str, dict[int, list[float]]] = {}
    for name, settings in ENDING.items():
        if name != "linear" and name not in schedules:  # what all others stand beside
            continue
        found[name] = {stop: _ending(lab, name, settings, stop, stops[0]) for stop in stops}
        yield _found(lab, found, text, stops)
    for name in [name for name in ENDLESS if name in schedules]:
        settings, read = ENDLESS[name]
        found |= _endless(lab, name, settings, read, stops)
        yield _found(lab, found, text, stops)


def _ending(lab: Lab, name: str, settings: Mapping[str, Any], stop: int, first: int) -> list[float]:
    """Losses after ``stop`` steps of the schedule for as many."""
    if name != "refined":
        return lab.losses(name, steps=stop, tuned_at=first, **settings)

    def loss(factor: float, steps: int, seed: int) -> float:
        source = lab.run("linear", steps=steps, seed=seed, factor=lab.best["linear"])
        return lab.loss(name, steps=steps, seed=seed, factor=factor, **settings, schedule_from=str(source))

    factor = lab.choose(name, lambda x: loss(x, first, lab.seeds[0]))
    return [loss(factor, stop, seed) for seed in lab.seeds]


def _endless(
    lab: Lab, name: str, settings: Mapping[str, Any], read: Mapping[str, str], stops: tuple[int, ...]
) -> dict[str, dict[int, list[float]]]:
    """Losses at every stop of one run to the last; the rate is that whose raw loss is best at the first."""
    settings = {**settings, "eval_interval": stops[0]}
    if name == "constant":
        settings["decay_estimate"] = max(1, stops[0] // 5)

    def folder(factor: float, steps: int, seed: int) -> Path:
        path = lab.run(name, steps=steps, seed=seed, factor=factor, **settings)
        assert path is not None, f"{name} at {factor:g} of the rate ended in numbers that are none"
        return path

    chief = next(iter(read.values()))
    factor = lab.choose(name, lambda x: judged(folder(x, stops[0], lab.seeds[0]), stops[0])[chief])
    folders = [folder(factor, stops[-1], seed) for seed in lab.seeds]
    return {
        row: {stop: [judged(path, stop).get(key, float("inf")) for path in folders] for stop in stops}
        for row, key in read.items()
    }


def _found(lab: Lab, found: Mapping[str, Mapping[int, list[float]]], text: str, stops: tuple[int, ...]) -> Found:
    """One row a schedule, beside the linear one by seed."""
    base = found["linear"]
    rows = [{"schedule": name, "step": stop, "losses": of[stop]} for name, of in found.items() for stop in stops]
    lines = [
        [name, *(f"{mean(of[stop])}; {beside(of[stop], base[stop])}" for stop in stops)] for name, of in found.items()
    ]
    shape = TrainConfig(**{**lab.shared, "max_steps": stops[0]})
    chosen = ", ".join(f"{name} {x:g}" for name, x in lab.best.items())
    body = (
        f"Nats a token of all held-out text ({text}), {len(lab.seeds)} seeds: mean (range); mean difference from "
        f"linear by seed ± its standard error.\n\n{_record.table(['schedule', *(f'{s} steps' for s in stops)], lines)}"
        f"\n\nSteps of {shape.tokens_per_step:,} tokens at depth {shape.depth}. Multiples of the default rate, the "
        f"best of {', '.join(f'{x:g}' for x in lab.rates)} after {stops[0]} steps on the first seed: {chosen}. "
        f"{edges(lab)}linear and cosine end at a tenth of the rate where nothing else is said."
    )
    last = {name: sum(of[stops[-1]]) / len(lab.seeds) for name, of in found.items()}
    said = min(last, key=lambda name: last[name])
    return Found(rows=rows, body=body, figures={"best": said, "loss": last[said]}, part=text)


if __name__ == "__main__":
    main(
        "schedules",
        "Schedules at their end and stopped early, on {text}: the least loss at the last point is that of {best}, "
        "{loss:.4f} nats a token",
        measure,
        smoke={"model": TINY | {"eval_tokens": 2**40}, "stops": (6, 12), "seeds": (0,), "rates": (1.0,)},
    )
