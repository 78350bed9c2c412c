"""Everything that decides a run of ``spectrain classify``. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from spectrain.train._run.config import NO_LIMIT, RunConfig, fill
from spectrain.train._run.optimizers import OPTIMIZERS

DEFAULT_STEPS = 300
"""Where nothing limits a run."""
_BASE_LR = {"muon": 5e-3, "adamw": 5e-3}


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(RunConfig):
    """Learn to tell the classes of pictures, and measure how well on held-out ones, with an interval.

    Every field is a flag. What is left to be measured (``auto``, ``None``) is filled in before it is
    used and written to the run's ``config.json``; a resumed run replays it.
    """

    job: ClassVar[str] = "classify"

    data: tuple[str, ...] = ()
    """Pictures with labels: 'digits', 'fashion-mnist', a folder of PNGs in a subfolder for each class or of MNIST's
    files, a file .npz with images and labels. None: digits."""
    validation_fraction: float = 0.15
    """Share of each class that is held out."""

    depth: int = 2
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
    max_steps: int | None = None
    """Stop after this many optimizer steps. Default: 300, where --max-minutes is not given either."""
    max_minutes: float | None = None
    """Train for about this long: after 20 steps the number of steps is fixed, and recorded."""
    eval_interval: int = 50
    """Steps between validations on the first --eval-pictures held-out pictures; the last one takes all."""
    eval_pictures: int = 1000
    """Pictures of a validation on the way."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the flag and the cure."""
        super().__post_init__()
        self.require(0 < self.validation_fraction < 1, "validation_fraction", "between 0 and 1")

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        return ("depth", "width", "heads", "patch", "eval_pictures", *super().at_least_one())

    def derive(self) -> tuple["ClassifyConfig", list[str]]:
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
