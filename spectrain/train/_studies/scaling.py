"""Loss against training compute over a family of depths: the picture of a scaling law, at the size of one machine."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from spectrain._files.write import write_json
from spectrain.train._jobs.language import build_model
from spectrain.train._run.claim import claimed
from spectrain.train._run.progress import Progress
from spectrain.train._studies.compare import DEFAULT_STEPS, run_or_read, with_fixed_choices
from spectrain.train._studies.ratio import Row
from spectrain.train.config import TrainConfig

Array = npt.NDArray[np.float64]
_DRAWS = 4000


def compare_depths(
    base: TrainConfig,
    *,
    depths: Sequence[int],
    optimizers: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train models of several depths, each on tokens in proportion to its weights, and fit loss against compute.

    The tokens of ``base`` (``--max-tokens`` or ``--max-steps``) are those of ``base.depth``; a model with twice the
    weights gets twice as many. Learning rates follow depth and optimizer unless ``base.lr`` is given. The fit is
    loss = exp(a) C^-b, C the floating-point operations of training (Kaplan et al. 2020; section 3.2 of Moonlight,
    arXiv 2502.16982), for each optimizer. Written to ``compare.json`` in ``folder``; finished runs are kept.

    Raises ``ValueError`` for fewer than three depths: two points make a line of any two numbers.
    """
    if len(set(depths)) < 3:
        raise ValueError(
            f"a line needs at least three depths to be judged by, got --depths {' '.join(map(str, depths))}."
        )
    if base.max_minutes is not None:
        raise ValueError("--depths gives each model its share of the tokens: give --max-steps or --max-tokens.")
    with claimed(folder):
        return _compare(base, depths, optimizers, seeds, folder, progress)


def _compare(
    base: TrainConfig,
    depths: Sequence[int],
    optimizers: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    progress: Progress | None,
) -> dict[str, Any]:
    steps = min(base.limits(), default=DEFAULT_STEPS)
    base = with_fixed_choices(dataclasses.replace(base, max_steps=steps, max_tokens=None), folder / "base.json")
    whole, _ = weights_and_operations(base)
    rows: list[Row] = []
    for depth in sorted(set(depths)):
        sized = dataclasses.replace(base, depth=depth)
        weights, each = weights_and_operations(sized)
        sized = dataclasses.replace(sized, max_steps=max(1, round(steps * weights / whole)))
        for optimizer in optimizers:
            for seed in seeds:
                name = f"{optimizer}-d{depth}-seed{seed}"
                one = dataclasses.replace(
                    sized, optimizer=optimizer, seed=seed, out_dir=str(folder / name), resume="auto"
                )  # fmt: skip
                found = run_or_read(one, folder / name, progress)
                rows.append({"optimizer": optimizer, "depth": depth, "seed": seed, "weights": weights,
                             "flops": each * found["tokens"], **found})  # fmt: skip
    result = {"rows": rows, "scaling": scaling(rows)}
    write_json(folder / "compare.json", json.loads(json.dumps(result), parse_constant=lambda _: None))
    return result


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

    Intervals of a and b are Student's; ``saved`` is AdamW's largest C over the C at which Muon's line has AdamW's
    fitted loss there, with the quantiles of that ratio when both lines are drawn from their sampling distributions.

    >>> rows = [{"optimizer": o, "flops": c, "final_loss": k * c ** -0.05} for c in (1e12, 1e13, 1e14)
    ...         for o, k in (("adamw", 10.0), ("muon", 9.5))]
    >>> found = scaling(rows)
    >>> round(found["fits"]["adamw"]["b"], 6), round(found["saved"]["ratio"], 3)
    (0.05, 2.79)
    """
    fits = {}
    for optimizer in dict.fromkeys(str(row["optimizer"]) for row in rows):
        good = [r for r in rows if r["optimizer"] == optimizer and r["flops"] > 0 and math.isfinite(r["final_loss"])]
        if len({row["flops"] for row in good}) < 3:
            continue
        fits[optimizer] = _fit([float(r["flops"]) for r in good], [r["final_loss"] for r in good], level)
    result: dict[str, Any] = {"fits": fits, "level": level}
    if {"adamw", "muon"} <= fits.keys():
        at = max(row["flops"] for row in rows if row["optimizer"] == "adamw")
        result["saved"] = {"at_flops": at, **_saving(fits["adamw"], fits["muon"], math.log(at), level)}
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


def _saving(slow: Mapping[str, Any], fast: Mapping[str, Any], at: float, level: float) -> dict[str, float]:
    draw = np.random.Generator(np.random.Philox(0))
    lines = []
    for fit in (slow, fast):
        t = draw.standard_t(fit["points"] - 2, size=(2, _DRAWS))
        lines += [fit["log_loss"] + fit["log_loss_error"] * t[0], fit["b"] + fit["b_error"] * t[1]]

    def ratio(a_slow: Array, b_slow: Array, a_fast: Array, b_fast: Array) -> Array:
        target = a_slow - b_slow * (at - slow["log_flops"])
        log_ratio = at - fast["log_flops"] - (a_fast - target) / b_fast
        return np.asarray(np.exp(np.clip(log_ratio, -600, 600)))  # a slope drawn near zero says nothing

    low, high = np.quantile(ratio(*lines), [0.5 - level / 2, 0.5 + level / 2])
    best = ratio(*(np.asarray(fit[name]) for fit in (slow, fast) for name in ("log_loss", "b")))
    return {"ratio": float(best), "low": float(low), "high": float(high)}
