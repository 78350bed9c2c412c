"""Loss against training compute over a family of depths: the picture of a scaling law, at the size of one machine."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from spectrain._files.write import write_json
from spectrain.train._jobs.model import build_model
from spectrain.train._run.claim import claimed
from spectrain.train._run.progress import Progress
from spectrain.train._studies.compare import BASE, DEFAULT_STEPS, Runs, begun, with_fixed_choices
from spectrain.train._studies.ratio import Row
from spectrain.train._studies.settings import check_once, check_tunable, ladders, start
from spectrain.train.config import EVERY_TOKEN, TrainConfig

Array = npt.NDArray[np.float64]
_DRAWS = 4000


def compare_depths(
    base: TrainConfig,
    *,
    depths: Sequence[int],
    optimizers: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    tune: int,
    settings: Sequence[str] = ("lr",),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train models of several depths, each on tokens in proportion to its weights, and fit loss against compute.

    The tokens of ``base`` (``--max-tokens`` or ``--max-steps``) are those of ``base.depth``; a model with twice the
    weights gets twice as many. At each depth each optimizer is tuned on the first seed over ``settings``, in at most
    ``tune`` runs, from the defaults of that depth: a line through settings that suit one depth says how they age, not
    how the optimizer scales. The fit is loss = exp(a) C^-b, C the floating-point operations of training (Kaplan et al.
    2020; section 3.2 of Moonlight, arXiv 2502.16982), for each optimizer. Written to ``compare.json`` in ``folder``;
    finished runs are kept.

    Raises ``ValueError`` for fewer than three depths, since two points make a line of any two numbers, and for a
    ``tune`` too small to try each setting once.
    """
    if len(set(depths)) < 3:
        raise ValueError(
            f"a line needs at least three depths to be judged by, got --depths {' '.join(map(str, depths))}."
        )
    if base.max_minutes is not None:
        raise ValueError("--depths gives each model its share of the tokens: give --max-steps or --max-tokens.")
    check_once("--seeds", seeds)
    check_tunable(optimizers, base, settings)
    least = 1 + max(len(ladders(name, base, settings)) for name in optimizers)
    if tune < least:
        raise ValueError(
            f"--depths compares optimizers that are tuned at each depth: give --tune {least} or more, got {tune}."
        )
    with claimed(folder), begun(folder):
        rows = list(_at_depths(base, depths, optimizers, seeds, folder, tune, settings, progress))
        result = {"rows": rows, "scaling": scaling(rows), "tuned_settings": list(settings), "budget": tune}
        write_json(folder / "compare.json", json.loads(json.dumps(result), parse_constant=lambda _: None))
        return result


def _at_depths(
    base: TrainConfig,
    depths: Sequence[int],
    optimizers: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    tune: int,
    settings: Sequence[str],
    progress: Progress | None,
) -> Iterator[Row]:
    """One row for each depth, optimizer and seed: the best that tuning found."""
    steps = min(base.limits(), default=DEFAULT_STEPS)
    base = with_fixed_choices(
        dataclasses.replace(base, max_steps=steps, max_tokens=None, eval_tokens=EVERY_TOKEN), folder / BASE
    )
    whole, _ = weights_and_operations(base)
    for depth in sorted(set(depths)):
        sized = dataclasses.replace(base, depth=depth)
        weights, each = weights_and_operations(sized)
        sized = dataclasses.replace(sized, max_steps=max(1, round(steps * weights / whole)))
        runs = Runs(sized, folder, progress, prefix=f"d{depth}-")
        for optimizer in optimizers:
            tried = ladders(optimizer, sized, settings)
            found = runs.tune(optimizer, tried, start(optimizer, sized), seed=seeds[0], budget=tune)
            for seed in seeds:
                row = runs.row(optimizer, found.point, seed)
                yield {**row, "depth": depth, "weights": weights, "flops": each * row["tokens"],
                       "edge": list(found.edge), "open": list(found.open)}  # fmt: skip


def weights_and_operations(config: TrainConfig) -> tuple[int, int]:
    """Weights that are multiplied with (all but the embedding), and operations to train on one token.

    6 for each weight (forward 2, backward 4), and 6 block width for causal attention in each block, half of whose
    products are masked.
    """
    full, _ = config.derive()
    assert full.width
    model = build_model(full, vocabulary=256 if full.tokenizer == "bytes" else full.vocabulary)
    weights = sum(p.numel() for p in model.parameters()) - (0 if full.tied else model.embedding.weight.numel())
    return weights, 6 * weights + 6 * full.depth * full.block * full.width


def scaling(rows: Sequence[Mapping[str, Any]], *, level: float = 0.95) -> dict[str, Any]:
    """Fit log loss = a - b log C for each optimizer, with intervals, and the compute that Muon saves.

    Intervals of a and b are Student's. ``saved`` compares the two C at which the lines of AdamW and Muon have the
    lowest loss that both reach *within the compute that was spent*, with the quantiles of their ratio when both lines
    are drawn from their sampling distributions. Where their losses do not overlap there is no ``saved``: it would be
    read off where nothing was measured.

    >>> rows = [{"optimizer": o, "flops": c, "final_loss": k * c ** -0.05} for c in (1e12, 1e13, 1e14)
    ...         for o, k in (("adamw", 10.0), ("muon", 9.5))]
    >>> found = scaling(rows)
    >>> round(found["fits"]["adamw"]["b"], 6), round(found["saved"]["ratio"], 3)
    (0.05, 2.79)
    """
    fits, spent = {}, {}
    for optimizer in dict.fromkeys(str(row["optimizer"]) for row in rows):
        good = [r for r in rows if r["optimizer"] == optimizer and r["flops"] > 0 and math.isfinite(r["final_loss"])]
        if len({row["flops"] for row in good}) < 3:
            continue
        flops = [float(r["flops"]) for r in good]
        fits[optimizer] = _fit(flops, [r["final_loss"] for r in good], level)
        spent[optimizer] = (math.log(min(flops)), math.log(max(flops)))
    result: dict[str, Any] = {"fits": fits, "level": level}
    if {"adamw", "muon"} <= fits.keys() and (saved := _saving(fits, spent, level)):
        result["saved"] = saved
    return result


def _fit(flops: Sequence[float], losses: Sequence[float], level: float) -> dict[str, Any]:
    """Least squares in logarithms, about the middle of the data, where the two coefficients are independent."""
    x, y = np.log(flops), np.log(losses)
    middle = float(x.mean())
    line = stats.linregress(x - middle, y)
    rest = y - line.intercept - line.slope * (x - middle)
    noise = math.sqrt(float(rest @ rest) / (len(x) - 2))
    wide = float(stats.t.ppf(0.5 + level / 2, len(x) - 2))
    return {
        "log_loss": float(line.intercept), "log_flops": middle, "b": float(-line.slope), "points": len(x),
        "log_loss_half": wide * noise / math.sqrt(len(x)), "b_half": wide * float(line.stderr),
        "log_loss_error": noise / math.sqrt(len(x)), "b_error": float(line.stderr), "noise": noise,
    }  # fmt: skip


def _saving(
    fits: Mapping[str, Mapping[str, Any]], spent: Mapping[str, tuple[float, float]], level: float
) -> dict[str, float] | None:
    """AdamW's compute over Muon's at the lowest log loss that both lines have between their ends."""

    def loss(name: str, at: float) -> float:
        return float(fits[name]["log_loss"] - fits[name]["b"] * (at - fits[name]["log_flops"]))

    both = ("adamw", "muon")
    highest, lowest = (pick(loss(name, spent[name][end]) for name in both) for pick, end in ((min, 0), (max, 1)))
    if lowest > highest:
        return None
    draw = np.random.Generator(np.random.Philox(0))

    def compute(name: str, a: Array, b: Array) -> Array:
        return np.asarray(fits[name]["log_flops"] + (a - lowest) / b)

    lines = []
    for name in both:
        fit, t = fits[name], draw.standard_t(fits[name]["points"] - 2, size=(2, _DRAWS))
        lines.append(compute(name, fit["log_loss"] + fit["log_loss_error"] * t[0], fit["b"] + fit["b_error"] * t[1]))
    # a slope drawn near zero says nothing
    low, high = np.quantile(np.exp(np.clip(lines[0] - lines[1], -600, 600)), [0.5 - level / 2, 0.5 + level / 2])
    slow, fast = (
        float(compute(name, np.asarray(fits[name]["log_loss"]), np.asarray(fits[name]["b"]))) for name in both
    )
    return {"ratio": math.exp(slow - fast), "low": float(low), "high": float(high), "at_flops": math.exp(slow)}
