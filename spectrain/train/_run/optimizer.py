"""The optimizer that a configuration asks for.

What the report shows of the polynomials at work: sampled errors and alternation points.
"""

from typing import Any

import torch

from spectrain import approx, matfun, optim
from spectrain.train._run.config import RunConfig
from spectrain.train._run.job import AbstractJob


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
    """Muon with AdamW for the rest, or AdamW for all; only matrices of linear layers decay."""
    assert config.lr is not None
    betas, scaled = (config.beta1, config.beta2), job.parametrisation()
    groups = None if scaled is None else _scaled_groups(scaled, config)
    if config.optimizer == "muon":
        return optim.Muon(
            job.model if groups is None else groups,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            scale=config.scale,
            adamw_betas=betas,
            adamw_weight_decay=0.0,
            steps=config.muon_steps if config.muon_lower is None else None,
            schedule=None if config.muon_lower is None else muon_schedule(config),
            compute_dtype=config.muon_dtype,
        )
    decayed = job.matrices()
    groups = groups or [
        {"params": [p for p in job.model.parameters() if p in decayed], "weight_decay": config.weight_decay},
        {"params": [p for p in job.model.parameters() if p not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)


def _scaled_groups(scaled: optim.Parametrisation, config: RunConfig) -> list[dict[str, Any]]:
    """Groups whose rate and decay follow from role and width; only hidden matrices decay."""
    assert config.lr is not None
    groups = scaled.groups(
        config.optimizer,
        lr=config.lr,
        weight_decay=config.weight_decay,
        adamw_lr=config.lr / config.scale_ratio,
        adamw_weight_decay=0.0,
        scale=config.scale,
    )
    return [{**group, "lr_factor": group["lr"] / config.lr} for group in groups]


def muon_schedule(config: RunConfig) -> approx.Schedule:
    """The composition of quintics that Muon applies: that of ``msign(steps=)``, or one for another interval."""
    if config.muon_lower is None:
        return matfun.planning.design(config.muon_steps, dtype=getattr(torch, config.muon_dtype))
    return approx.sign_schedule(config.muon_lower, steps=config.muon_steps, dtype=config.muon_dtype)
