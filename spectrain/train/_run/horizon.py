"""How many steps a run has, and the learning rate and decay at each."""

import functools
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectrain._files.read import NOT_FINITE, read_object, read_rows
from spectrain._files.write import write_json
from spectrain.optim.schedules import Factors, Refined, UniformMemory, WarmupDecay
from spectrain.train._run.config import RunConfig
from spectrain.train._run.folder import RunFolder

CALIBRATION = 20
"""Steps after which --max-minutes is turned into a number of steps."""

# Validation, spectra, samples and checkpoints on the way, as a share of the steps' own time.
_OVERHEAD = 1.12


def known_steps(config: RunConfig) -> int | None:
    """The number of steps, where no clock is needed to tell it."""
    if config.horizon is not None:
        return config.horizon
    return None if by_clock(config) else min(config.limits())


def by_clock(config: RunConfig) -> bool:
    """Whether a clock decides the number of steps: not where another limit comes before it can."""
    limits = config.limits() + ([] if config.horizon is None else [config.horizon])
    return config.max_minutes is not None and min(limits, default=CALIBRATION + 1) > CALIBRATION


def steps_by_clock(config: RunConfig, *, step_seconds: float, elapsed: float) -> int:
    """Fix the number of steps after :data:`CALIBRATION` of them took ``elapsed`` seconds in all."""
    assert config.max_minutes is not None
    left = 60 * config.max_minutes - elapsed
    affordable = CALIBRATION + max(1, math.floor(left / (step_seconds * _OVERHEAD)))
    return min([affordable, *config.limits()])


FALLS: dict[str, dict[str, Any]] = {"cosine": {"tail": "cosine"}, "wsd": {"decay": 0.2, "tail": "1-sqrt"}}
"""How a rate falls where it is no line: arguments of ``WarmupDecay``."""


def factors(config: RunConfig, step: int, *, steps: int | None) -> Factors:
    """What a step's learning rate and weight decay are multiplied by, as ``--schedule`` says."""
    if config.schedule.startswith("uniform"):
        assert config.lr is not None
        warmup = config.warmup if steps is None else min(config.warmup, steps // 2)
        joint = config.schedule == "uniform-joint"
        return UniformMemory(lr=config.lr, weight_decay=config.weight_decay, joint=joint, warmup=warmup)(step)
    if config.schedule == "refined":
        assert steps is not None
        kept = RunFolder(Path(config.out_dir)).schedule
        return _refined(kept, kept.stat().st_mtime_ns, steps)(step)
    fall = FALLS.get(config.schedule)
    clock = by_clock(config)
    return Factors(
        learning_rate_factor(
            step, warmup=config.warmup, steps=steps, clock=clock, final=config.final_lr or 0.0, fall=fall
        ),
        1.0,
    )


def short_peak(config: RunConfig) -> int | None:
    """How many steps are at the peak rate, where ``--decay-estimate`` needs more: never judged. Else None."""
    wanted, steps = getattr(config, "decay_estimate", None), config.horizon
    if wanted is None or steps is None:
        return None
    held = (step for step in range(steps) if factors(config, step, steps=steps).lr == 1.0)
    there = sum(1 for _ in itertools.islice(held, wanted))
    return there if there < wanted else None


@functools.lru_cache(maxsize=4)
def _refined(kept: Path, written: int, steps: int) -> Refined:
    """The schedule of a run, made once of the norms that it keeps: its table is as long as the run.

    ``written``: when, for another run in a folder of the same name has others.
    """
    return Refined(norms=read_object(kept, what="the gradient norms that this run follows")["norms"], steps=steps)


def gradient_norms(source: str | None) -> tuple[float, ...]:
    """The gradient norm of each step that the run ``source`` has logged.

    Raises ``ValueError`` where there is no such run, or a step of it without a norm that a rate can follow.
    """
    metrics = RunFolder(Path(source or "")).metrics
    if not metrics.is_file():
        raise ValueError(f"--schedule-from {source} is not a run folder: it has no metrics.jsonl.")
    rows = read_rows(metrics, what="the metrics.jsonl of --schedule-from", constants=NOT_FINITE)
    norms = tuple(_norm(row, source) for row in rows if row.get("kind") == "step")
    if not norms:
        raise ValueError(f"--schedule-from {source} has not logged any step; give a run that has.")
    return norms


def _norm(row: Mapping[str, Any], source: str | None) -> float:
    norm = row.get("grad_norm")
    if isinstance(norm, bool) or not isinstance(norm, int | float) or not 0 < norm < math.inf:
        raise ValueError(
            f"--schedule-from {source} has the gradient norm {norm} at step {row.get('step')}; give a run whose norms "
            "are all positive and finite."
        )
    return float(norm)


def check_source(config: RunConfig) -> None:
    """Refuse a refined schedule whose norms cannot be taken: before anything is read or written."""
    if config.schedule == "refined":
        gradient_norms(config.schedule_from)


def keep_norms(config: RunConfig, folder: RunFolder) -> None:
    """Write the norms that a refined schedule follows into the run, which from then on stands by itself."""
    if config.schedule == "refined":
        write_json(folder.schedule, {"norms": list(gradient_norms(config.schedule_from))})


def learning_rate_factor(
    step: int,
    *,
    warmup: int,
    steps: int | None,
    clock: bool,
    final: float = 0.0,
    fall: Mapping[str, Any] | None = None,
) -> float:
    """Linear warm-up to 1, then to ``final`` just after the last step: in a line, or as ``fall`` says.

    ``step`` counts from 0. While ``steps`` is unknown the factor is what it will be once it is known:
    under a ``clock`` the decay never starts before the calibration ends, and a warm-up that would take
    more than half of the steps ends there, at the rate it has reached.

    >>> [round(learning_rate_factor(t, warmup=2, steps=6, clock=False), 2) for t in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if steps is None:
        return min(1.0, (step + 1) / max(1, warmup))
    start = min(max(warmup, CALIBRATION if clock else 0), steps // 2)
    start = max(start, CALIBRATION) if clock else start
    ramp = warmup if clock else min(warmup, start)
    peak = min(1.0, start / ramp) if ramp else 1.0
    if step < start:
        return min(1.0, (step + 1) / max(1, ramp))
    if fall is not None:
        return peak * WarmupDecay(steps=max(1, steps - start), final=final, **fall)(step - start).lr
    left = (steps - step) / max(1, steps - start)
    return peak * left if final == 0 else peak * (final + (1 - final) * left)
