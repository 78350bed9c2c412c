"""The optimizer that a configuration asks for, and what the report shows of its polynomials at work."""

import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from spectrain import approx, optim
from spectrain.train._run.config import RunConfig
from spectrain.train._run.job import AbstractJob
from spectrain.train._run.optimizers import OPTIMIZERS
from spectrain.train._run.updates import Groups


def polynomials(schedule: approx.Schedule, *, name: str) -> dict[str, Any]:
    """The content of ``polynomials.json``: a schedule, and for each step its error curve and alternation points.

    >>> step = polynomials(approx.sign_schedule(0.1, steps=1), name="one")["schedules"][0]["steps"][0]
    >>> sorted(step)
    ['coefficients', 'curve', 'error', 'interval', 'powers', 'reference']
    """
    facts = {key: getattr(schedule, key) for key in ("interval", "error", "reached", "products", "dtype", "target")}
    steps = [
        {
            "powers": curve.powers,
            "coefficients": curve.coefficients,
            "interval": curve.interval,
            "error": max(map(abs, curve.heights)),
            "curve": {"x": curve.x, "error": curve.error},
            "reference": curve.points,
        }
        for curve in approx.curves.step_curves(schedule)
    ]
    return {"schedules": [{"name": name, **facts, "steps": steps}]}


def build_optimizer(config: RunConfig, job: AbstractJob[Any]) -> torch.optim.Optimizer:
    """What ``--optimizer`` names for the matrices, with AdamW for the rest; only matrices decay."""
    make = pkgutil.resolve_name(OPTIMIZERS[config.optimizer].make)
    optimizer: torch.optim.Optimizer = make(*parameter_groups(config, job), config)
    return optimizer


def parameter_groups(config: RunConfig, job: AbstractJob[Any]) -> tuple[Groups, Groups]:
    """Groups of the matrices, and of all else, which every optimizer leaves to AdamW.

    Where a parameter's rate is another multiple of ``--lr`` (:meth:`AbstractJob.rates`) its group says so.
    """
    assert config.lr is not None
    scaled = job.parametrisation()
    if scaled is not None:
        groups = _groups_by_role(scaled, config)
        return [g for g in groups if "matrix" in g], [g for g in groups if "matrix" not in g]
    if config.optimizer == "adamw":
        decayed = job.matrices()
        matrices: Groups = [{"params": [p for p in job.model.parameters() if p in decayed]}]
        rest: Groups = [{"params": [p for p in job.model.parameters() if p not in decayed]}]
    else:
        routes = optim.route(job.model, rules=job.rules(), heads=job.heads())
        matrices = [group for group in routes if group["algorithm"] == "muon"]
        rest = [group for group in routes if group["algorithm"] != "muon"]
    return matrices, [part for group in rest for part in _by_rate(group, job.rates(), config.lr)]


def _by_rate(group: dict[str, Any], rates: Mapping[torch.nn.Parameter, float], lr: float) -> Iterator[dict[str, Any]]:
    """The parts of a group that have one rate each, in order."""
    each = [rates.get(p[1] if isinstance(p, tuple) else p, 1.0) for p in group["params"]]
    for rate in dict.fromkeys(each):
        mine = [i for i, found in enumerate(each) if found == rate]
        own = {} if rate == 1.0 else {"lr": lr * rate, "lr_factor": rate}
        yield group | own | {key: [group[key][i] for i in mine] for key in ("params", "reasons") if key in group}


def _groups_by_role(scaled: optim.Parametrisation, config: RunConfig) -> list[dict[str, Any]]:
    """Groups whose rate and decay follow from role and width; only hidden matrices decay."""
    assert config.lr is not None
    groups = scaled.groups(
        "adamw" if config.optimizer == "adamw" else "muon",
        lr=config.lr,
        weight_decay=config.weight_decay,
        adamw_lr=config.lr / config.scale_ratio,
        adamw_weight_decay=0.0,
        scale=config.scale,
    )
    return [{**group, "lr_factor": group["lr"] / config.lr} for group in groups]
