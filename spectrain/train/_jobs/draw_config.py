"""Everything that decides a run of ``spectrain draw``. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from spectrain.train._run.config import NO_LIMIT, RunConfig, fill
from spectrain.train._run.optimizers import OPTIMIZERS

DEFAULT_STEPS = 2000
"""Where nothing limits a run: drawings are then the same on slow and on fast machines."""
_BASE_LR = {"muon": 4e-3, "adamw": 2e-3}


@dataclass(frozen=True, kw_only=True)
class DrawConfig(RunConfig):
    """Learn to draw pictures from noise in one step (MeanFlow), and measure how well.

    Every field is a flag. What is left to be measured (``auto``, ``None``) is filled in before it is
    used and written to the run's ``config.json``; a resumed run replays it.
    """

    job: ClassVar[str] = "draw"

    data: tuple[str, ...] = ()
    """Pictures to learn from: 'digits', 'fashion-mnist', a folder of PNGs or of MNIST's files. None: digits."""
    objective: Literal["data", "model", "full", "flow", "leaky", "shortcut"] = "model"
    """Average velocities by the published MeanFlow (data), with the model's own velocity (model), with all
    gradients (full), or plain flow matching (flow). Controls: data with all gradients (leaky), and halves of
    intervals beside flow matching (shortcut)."""
    instants: float = 0.25
    """Share of the training points at which the interval is an instant."""
    law: Literal["uniform", "logit-normal"] = "uniform"
    """How the ends of intervals are drawn. The published logit-normal law hardly ever sees the whole interval
    [0, 1], of which a drawing in one step consists."""
    guidance: float = 1.0
    """Classifier-free guidance built into the target; 1: none."""

    depth: int = 3
    """Blocks of the transformer."""
    width: int = 64
    """Features of a patch."""
    heads: int | None = None
    """Attention heads. Default: one for 32 features of width."""
    patch: int | None = None
    """Pixels along a patch. Default: the picture in 16 patches or a few more."""

    batch_size: int = 128
    """Pictures in an optimizer step."""
    micro_batch_size: int | None = None
    """Pictures in memory at once; must divide --batch-size. Default: all of them."""
    validation_fraction: float = 0.15
    """Share of the pictures held out."""
    average: float = 0.1
    """Half-life of the averaged weights that draw and are judged, as a share of the steps taken so far."""
    max_steps: int | None = None
    """Stop after this many optimizer steps. Default: 2,000, where --max-minutes is not given either."""
    max_minutes: float | None = None
    """Train for about this long: after 20 steps the number of steps is fixed, and recorded."""
    eval_interval: int = 500
    """Steps between validations."""
    eval_pictures: int = 500
    """Pictures drawn for a validation on the way; four times as many at the end."""
    many_steps: int = 32
    """Steps of the drawings that one-step drawings are compared with."""
    autocast: Literal["auto", "bfloat16", "off"] = "off"
    """Matrix products of the velocity in bfloat16; its derivative along the path, which is added to it, never is."""
    weight_decay: float = 0.0
    """Decoupled decay, of matrices only."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the flag and the cure."""
        super().__post_init__()
        self.require(0 <= self.instants <= 1, "instants", "between 0 and 1")
        self.require(0 < self.validation_fraction < 1, "validation_fraction", "between 0 and 1")
        self.require(0 < self.average < 1, "average", "between 0 and 1")
        self.require(0 < self.guidance < float("inf"), "guidance", "positive and finite")

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        return ("depth", "width", "heads", "patch", "eval_pictures", "many_steps", *super().at_least_one())

    @property
    def slug(self) -> str:
        """What the name of a new run folder says after the date."""
        return f"draw-{self.objective}"

    def derive(self) -> tuple["DrawConfig", list[str]]:
        """Fill in what follows from other fields, and say why."""
        return fill(
            self,
            ("heads", max(1, self.width // 32), "one for 32 features of width"),
            ("lr", _BASE_LR[OPTIMIZERS[self.optimizer].like], "tried on the digits"),
            *([("max_steps", DEFAULT_STEPS, NO_LIMIT)] if self.unlimited else []),
        )

    def products(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """``(rows, inner, columns)`` of the model's typical product, and ``(batch, rows, columns)`` of Muon's."""
        return (self.micro_batch * 16, self.width, 4 * self.width), (4 * self.depth, self.width, self.width)
