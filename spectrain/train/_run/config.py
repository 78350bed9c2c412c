"""What every run has, whatever it learns: folder, limits, optimizer, intervals, machine. Standard library only."""

import dataclasses
import importlib.util
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeVar

from spectrain.train._mesh.layout import Layout
from spectrain.train._run.optimizers import OPTIMIZERS, TORCH_SCALES

DEFAULT_MINUTES = 3.5
MOST_STEPS = 99_999_999
"""Names of checkpoints have eight digits, and a step takes a millisecond at least: a day."""
NO_LIMIT = "no --max-steps, --max-tokens or --max-minutes was given"


class Wish(NamedTuple):
    """What a configuration says of several processes."""

    mesh: str | None
    tensor: int
    timeout: float
    experts: int = 1


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The part of a configuration that all jobs share; each job adds its own fields.

    Every field is a flag. What is left to be measured (``auto``, ``None``) is filled in before it is
    used and written to the run's ``config.json``; a resumed run replays it.
    """

    job: ClassVar[str]
    """The verb of the command that starts such a run, or else a name for it."""
    maker: ClassVar[str] = ""
    """What makes such a configuration where the command does not."""

    added: ClassVar[Mapping[str, object]] = {}
    """Fields that a ``config.json`` of an earlier version lacks, with what they were then, where that is no default."""

    data: tuple[str, ...] = ()
    """What to learn from: files, folders, globs."""
    out_dir: str = ""
    """The run folder. Empty: a new one in runs/, named by date, job and optimizer."""
    resume: str = "never"
    """'auto': go on from the newest checkpoint in --out-dir, or start when there is none; 'never'."""
    seed: int = 0
    """Decides weights, batches and samples."""

    batch_size: int = 16
    """Examples in an optimizer step."""
    micro_batch_size: int | None = None
    """Examples in memory at once; must divide --batch-size. Default: all of them."""

    max_steps: int | None = None
    """Stop after this many optimizer steps."""
    max_minutes: float | None = None
    """Train for about this long: after 20 steps the number of steps is fixed, and recorded. Default 3.5
    where no --max-* is given."""

    optimizer: str = "muon"
    """What moves the matrices: muon, normuon, muoneq, adamw, torch-muon (torch.optim.Muon), soap (an extra). AdamW
    moves the rest under each of them."""
    lr: float | None = None
    """Peak learning rate. Default: follows depth and optimizer."""
    weight_decay: float = 0.1
    """Decoupled decay, of matrices only."""
    decay: Literal["decoupled", "cautious", "spectral"] = "decoupled"
    """How our Muon's matrices decay: all of a matrix, only entries that the update shrinks too, or only its largest
    singular value."""
    momentum: float = 0.95
    """Muon's momentum."""
    beta1: float = 0.9
    """AdamW's first beta."""
    beta2: float = 0.95
    """AdamW's second beta."""
    scale: Literal["match_rms_adamw", "original", "spectral", "none"] = "match_rms_adamw"
    """Muon's factor on the learning rate."""
    muon_steps: int = 5
    """Quintic steps of Muon's matrix sign, optimal for its dtype and certified; those of 3 to 8 are at hand."""
    muon_lower: float | None = None
    """Smallest singular value, relative to the largest, that those steps are designed for. Default: that of
    optim.Muon, where the smallest directions are finished besides; with a number they are not."""
    bound: float | None = None
    """Keep each singular value of our Muon's matrices within this many times sqrt(out / in), by the least change
    that does. Default: no bound."""
    bound_by: Literal["post-clip", "pre-decay"] = "post-clip"
    """With --bound: clip what is above it after each update, or shrink the largest singular values before each."""
    clip: float = 1.0
    """Largest global gradient norm for the parameters on AdamW; Muon's are left alone. 0: no clipping."""
    warmup: int = 20
    """Steps of linear warm-up."""
    schedule: Literal["linear", "cosine", "wsd", "uniform", "uniform-joint", "refined"] = "linear"
    """After warm-up: to --final-lr in a line, by a cosine, or constant and down in the last fifth; 'uniform': the rate
    under which every update weighs the same in the weights, wherever the run ends; 'uniform-joint': the decay along;
    'refined': from the gradient norms of the run in --schedule-from, its warm-up included."""
    schedule_from: str | None = None
    """With --schedule refined: a run of any length whose gradient norms are taken."""
    final_lr: float | None = None
    """Where the learning rate ends, as a share of --lr. Default: 0.1 for language models, else 0; 0 where the schedule
    decides it."""

    eval_interval: int = 50
    """Steps between validations."""
    save_interval: int = 100
    """Steps between checkpoints."""
    keep_last: int = 2
    """Checkpoints kept."""
    log_interval: int = 10
    """Steps between lines on a screen that is not a terminal."""
    logger: tuple[str, ...] = ()
    """What else hears the metrics: tensorboard, wandb (offline), mlflow; each is an extra. None: metrics.jsonl."""
    spectrum_interval: int = 100
    """Steps between singular-value spectra of the first and last block; 0: none."""

    device: str = "auto"
    """'auto' takes CUDA where there is one, else the CPU."""
    threads: int | None = None
    """CPU threads. Default: as many as torch takes."""
    autocast: Literal["auto", "bfloat16", "off"] = "auto"
    """Matrix products in bfloat16. 'auto' measures which is faster."""
    muon_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of Muon's iteration. 'auto' measures which is faster."""
    horizon: int | None = None
    """Steps of the schedule; set by the run, from --max-*."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the flag and the cure."""
        for name in self.at_least_one():
            value, most = getattr(self, name), self.at_most(name)
            self.require(value is None or value >= 1, name, "at least 1")
            self.require(value is None or value <= most, name, f"at most {most:,}")
        for name in ("warmup", "weight_decay", "clip", "spectrum_interval", "seed"):
            self.require(getattr(self, name) >= 0, name, "0 or more")
        for name in ("warmup", "spectrum_interval"):
            self.require(getattr(self, name) <= MOST_STEPS, name, f"at most {MOST_STEPS:,}")
        self.require(self.weight_decay < float("inf"), "weight_decay", "finite")
        self.require(self.seed < 2**63, "seed", "below 2**63")
        self.require(self.optimizer in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}")
        package = OPTIMIZERS[self.optimizer].package
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(f"--optimizer {self.optimizer} needs {package}; pip install 'spectrain[peers]'.")
        self.require(self.final_lr is None or 0 <= self.final_lr <= 1, "final_lr", "from 0 to 1")
        self._check_schedule()
        for name in ("momentum", "beta1", "beta2"):
            self.require(0 <= getattr(self, name) < 1, name, "at least 0 and below 1")
        for name in ("lr", "max_minutes"):
            value = getattr(self, name)
            self.require(value is None or 0 < value < float("inf"), name, "positive and finite")
        self._check_bound()
        self._check_known()
        self.require(self.muon_lower is None or 0 < self.muon_lower < 1, "muon_lower", "between 0 and 1")
        for name, kind in typing.get_type_hints(type(self)).items():
            if typing.get_origin(kind) is Literal:
                choices = typing.get_args(kind)
                self.require(getattr(self, name) in choices, name, f"one of {', '.join(choices)}")
        most = 4 * (os.cpu_count() or 1)
        self.require(self.threads is None or self.threads <= most, "threads", f"at most {most} on this machine")
        self.require(self.resume in ("auto", "never"), "resume", "'auto' or 'never'")
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"--micro-batch-size must divide --batch-size {self.batch_size}, got {self.micro_batch}; "
                f"try {max(d for d in range(1, self.micro_batch + 1) if self.batch_size % d == 0)}."
            )

    def _check_schedule(self) -> None:
        """Refuse what a schedule without an end, or with norms of another run, cannot be given."""
        words, refined = f"--schedule {self.schedule}", self.schedule == "refined"
        alone = refined == (self.schedule_from is not None)
        self.require(alone, "schedule_from", "given with --schedule refined, and only there")
        if self.schedule.startswith("uniform"):
            self.require(not self.final_lr, "final_lr", f"left out with {words}, which has no end")
            self.require(self.weight_decay > 0, "weight_decay", f"positive with {words}")
            self.require(self.decay == "decoupled", "decay", f"decoupled with {words}: all of a weight has to fade")
            most = 1 / self.weight_decay
            kept = self.lr is None or self.lr < most
            self.require(kept, "lr", f"below 1 / --weight-decay = {most:.4g} with {words}: a step would leave nothing")
        elif refined:
            self.require(not self.final_lr, "final_lr", f"left out with {words}, which ends at 0")
            usual = type(self).warmup
            self.require(self.warmup == usual, "warmup", f"left out with {words}, whose norms say how it begins")
        else:
            return
        self.require(self.max_minutes is None, "max_minutes", f"left out with {words}: give --max-steps")

    def _check_bound(self) -> None:
        """Refuse a bound that is none, and one that nobody would hold."""
        bound = self.bound
        self.require(bound is None or 0 < bound < float("inf"), "bound", "positive and finite")
        self.require(bound is not None or self.bound_by == "post-clip", "bound_by", "left out without --bound")

    def _check_known(self) -> None:
        """Refuse what the optimizer has not and would drop."""
        if self.optimizer == "torch-muon":
            known = ", ".join(TORCH_SCALES)
            self.require(self.scale in TORCH_SCALES, "scale", f"one of {known} with --optimizer torch-muon")
        for name, default in self.dropped(self.optimizer).items():
            others = ", ".join(other for other, facts in OPTIMIZERS.items() if name not in facts.without)
            words = f"left out with --optimizer {self.optimizer}: {others} know it"
            self.require(getattr(self, name) == default, name, words)

    def dropped(self, optimizer: str) -> dict[str, object]:
        """The settings that an optimizer has not, with their defaults; with muP ``scale`` decides rates of every one.

        >>> list(RunConfig().dropped("torch-muon"))
        ['muon_lower', 'decay', 'bound', 'bound_by']
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        without = OPTIMIZERS[optimizer].without
        own = [name for name in without if name in defaults]  # a job may lack one
        return {name: defaults[name] for name in own if name != "scale" or not self.by_width}

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more; a job adds its own."""
        return ("batch_size", "micro_batch_size", "max_steps", "horizon", "muon_steps", "threads",
                "eval_interval", "save_interval", "keep_last", "log_interval")  # fmt: skip

    @classmethod
    def at_most(cls, name: str) -> int:
        """The largest value of a field of :meth:`at_least_one`: beyond it a run never ends or no memory holds it."""
        if name in ("max_steps", "horizon") or name.endswith("_interval"):
            return MOST_STEPS
        return {"depth": 10_000, "muon_steps": 60, "max_tokens": 10**15, "eval_tokens": 10**15}.get(name, 2**24)

    @classmethod
    def command(cls) -> str:
        """What starts such a run, as a user writes it."""
        return cls.maker or f"spectrain {cls.job}"

    def require(self, holds: bool, name: str, wanted: str) -> None:
        """Raise ``ValueError`` about the flag of a field unless it ``holds``."""
        if not holds:
            raise ValueError(f"--{name.replace('_', '-')} must be {wanted}, got {getattr(self, name)!r}.")

    @property
    def micro_batch(self) -> int:
        """Examples in memory at once."""
        return self.batch_size if self.micro_batch_size is None else self.micro_batch_size

    @property
    def wish(self) -> "Wish | None":
        """How several processes are to do this together; None: this job is one process."""
        return None

    def check_ranks(self, stand: Layout) -> None:
        """Refuse sizes that do not divide among so many ranks."""
        if self.batch_size % stand.parts:
            raise ValueError(
                f"--batch-size {self.batch_size} does not divide among {stand.parts} ranks; give a multiple of "
                f"{stand.parts}."
            )

    @property
    def slug(self) -> str:
        """What the name of a new run folder says after the date."""
        return f"{self.job}-{self.optimizer}"

    def limits(self) -> list[int]:
        """Every limit on the number of steps that needs no clock."""
        return [] if self.max_steps is None else [self.max_steps]

    @property
    def unlimited(self) -> bool:
        """Whether nothing says how long the run is."""
        return not self.limits() and self.max_minutes is None and self.horizon is None

    @property
    def by_width(self) -> bool:
        """Whether rates follow from widths (muP)."""
        return False

    @property
    def scale_ratio(self) -> float:
        """With a parametrisation by width: Muon's learning rate over AdamW's, which ``--scale`` decides."""
        return 1.0

    def derive(self) -> tuple["RunConfig", list[str]]:
        """Fill in what follows from other fields, and say why: the full configuration, a line for each choice."""
        raise TypeError(f"{type(self).__name__} does not say what follows from its fields; each job's does.")

    def products(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """``(rows, inner, columns)`` of the model's typical product, and ``(batch, rows, columns)`` of Muon's."""
        raise TypeError(f"{type(self).__name__} does not say which products it computes; each job's does.")


Config = TypeVar("Config", bound=RunConfig)


def under(optimizer: str, config: Config, **changes: object) -> Config:
    """The same run under another optimizer: what that one has not is left at its default."""
    kept = config.dropped(optimizer) | {"optimizer": optimizer} | changes
    return dataclasses.replace(config, **kept)  # type: ignore[arg-type]


def fill(config: Config, *choices: tuple[str, object, str]) -> tuple[Config, list[str]]:
    """Put ``(field, value, reason)`` in where the field is ``None``; return the reasons that were needed."""
    needed = [choice for choice in choices if getattr(config, choice[0]) is None]
    full = dataclasses.replace(config, **{name: value for name, value, _ in needed})  # type: ignore[arg-type]
    return full, [f"{name} = {value}: {reason}" for name, value, reason in needed]
