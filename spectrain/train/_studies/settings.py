"""What a comparison tunes: the ladders of each optimizer, and what a controlled comparison holds fixed."""

from collections.abc import Iterable, Sequence

from spectrain.train._run.config import under
from spectrain.train._run.optimizers import OPTIMIZERS
from spectrain.train._studies.descent import Ladder, Point
from spectrain.train.config import RATIOS, TrainConfig

BETAS = {"beta1": Ladder((0.0, 0.6, 0.8, 0.9, 0.95, 0.98)), "beta2": Ladder((0.9, 0.95, 0.98, 0.99, 0.999))}
OWN = {"momentum": Ladder((0.0, 0.6, 0.8, 0.9, 0.95, 0.98))}
SCHEDULE = {
    "warmup": Ladder((20, 60, 120)),
    "weight_decay": Ladder((0.0, 0.01, 0.03, 0.1, 0.3, 1.0)),
    "final_lr": Ladder((0.0, 0.1, 0.3)),
}
SHORT = {
    "lr": "lr", "embedding_lr": "e", "head_lr": "h", "vector_lr": "v", "warmup": "w", "weight_decay": "wd",
    "final_lr": "to", "beta1": "beta1_", "beta2": "beta2_", "momentum": "m",
}  # fmt: skip
"""What the name of a run's folder calls each setting."""


def free_rates(base: TrainConfig) -> tuple[str, ...]:
    """The rates beside that of the matrices that a configuration leaves open.

    None with adapters, beside which nothing moves; not a tied head's, which is the embedding's.

    >>> free_rates(TrainConfig(tied=True))
    ('embedding_lr', 'vector_lr')
    """
    return () if base.adapters else tuple(name for name in RATIOS if not (base.tied and name == "head_lr"))


def ladders(optimizer: str, base: TrainConfig, only: Sequence[str] | None = None) -> dict[str, Ladder]:
    """The settings of an optimizer that are tuned, those that matter most first; as many for each of them.

    ``only`` names some of them. Rates that ``base`` does not leave open are left out.

    Rates go on beyond what was tried by factors of two. Of AdamW both betas are tuned, of the others what only they
    have and the first beta of the AdamW beside them.
    """
    free = (name for name in free_rates(base) if name in ("embedding_lr", "head_lr"))
    rates = {name: Ladder((1.0,), factor=2.0) for name in ("lr", *free)}
    own = {name: OWN[name] for name in OPTIMIZERS[optimizer].own}
    every = {**rates, **SCHEDULE, **own, **{name: BETAS[name] for name in list(BETAS)[len(own) :]}}
    return {name: ladder for name, ladder in every.items() if only is None or name in only}


def check_tunable(optimizers: Iterable[str], base: TrainConfig, only: Sequence[str] | None = None) -> None:
    """Refuse a setting that none of the optimizers tunes, and values that the rest of ``base`` does not allow."""
    known = {name: None for optimizer in optimizers for name in ladders(optimizer, base)}
    if odd := [name for name in only or () if name not in known]:
        raise ValueError(f"--settings {odd[0]}: these optimizers and flags tune {', '.join(known)}.")
    for optimizer in optimizers:
        for name, ladder in ladders(optimizer, base, only).items():
            for value in ladder.values:
                try:
                    under(optimizer, base, **{name: value})
                except ValueError as error:
                    said = f"--tune would try --{name.replace('_', '-')} {value:g}, and {str(error).removesuffix('.')}"
                    raise ValueError(f"{said}. Say by --settings what is to be tuned instead.") from None


def check_once(flag: str, values: Sequence[float | int]) -> None:
    """Refuse a run that would count twice: the same seed again makes an interval narrower and teaches nothing."""
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"{flag} has {twice[0]:g} twice; give each once.")


def check_used(optimizers: Iterable[str], base: TrainConfig) -> None:
    """Refuse a setting that differs from its default and that none of the optimizers has."""
    dropped = [base.dropped(optimizer) for optimizer in optimizers]
    for name, default in dropped[0].items():
        if getattr(base, name) != default and all(name in others for others in dropped):
            raise ValueError(f"--{name.replace('_', '-')} must be left out: none of these optimizers knows it.")


def start(optimizer: str, base: TrainConfig) -> Point:
    """Where tuning begins: the defaults of ``spectrain train``."""
    full, _ = under(optimizer, base, lr=None).derive()
    found = {name: getattr(full, name, None) for name in ladders(optimizer, base)}
    return {name: 1.0 if value is None else value for name, value in found.items()}


def hold_the_rest(yardstick: Point, lr: float | int, rates: Sequence[str] = RATIOS) -> Point:
    """The yardstick's settings under another rate of the matrices: what ``rates`` say keeps its own."""
    kept = {name: yardstick.get(name, 1.0) * yardstick["lr"] / lr for name in rates}
    return {**yardstick, **kept, "lr": lr}
