"""Everything that decides a run of a job of one's own. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from spectrain.train._run.config import DEFAULT_MINUTES, NO_LIMIT, RunConfig, fill

_TYPICAL = 256


@dataclass(frozen=True, kw_only=True)
class JobConfig(RunConfig):
    """How ``train.train(config, job=job)`` trains a :class:`Job`: steps, optimizer, intervals, machine, folder.

    The fields are the flags of the command, as ``docs/train.md`` explains them, but those of language models. ``lr``
    has to be given: nobody has tuned it for this model. Under the default ``scale`` Muon takes learning rates of
    AdamW's size. ``data`` is what the job has, and is left out here. Raises ``ValueError`` naming the field.

    >>> JobConfig(lr=1e-3, max_steps=100, batch_size=30, micro_batch_size=15).micro_batch
    15
    """

    job: ClassVar[str] = "own"
    maker: ClassVar[str] = "train.JobConfig"

    autocast: Literal["bfloat16", "off"] = "off"
    """Products of the model in bfloat16, where torch's autocast puts them."""
    batch_size: int = 32
    """Examples in an optimizer step."""
    weight_decay: float = 0.1
    """Decoupled decay, of matrices only."""
    eval_interval: int = 50
    """Steps between validations on the first ``eval_examples`` held-out examples; the last one takes all."""
    eval_examples: int = 1000
    """Examples of a validation on the way."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the field and the cure."""
        super().__post_init__()
        self.require(not self.data, "data", "left out: the Job has the data")

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        return ("eval_examples", *super().at_least_one())

    def derive(self) -> tuple["JobConfig", list[str]]:
        """Fill in what follows from other fields, and say why; ``ValueError`` where no learning rate is given."""
        if self.lr is None:
            raise ValueError(
                "train.JobConfig needs lr: it is not known for a model of yours. Try 1e-3, and a third and three times "
                "that; under the default scale Muon takes rates of AdamW's size."
            )
        return fill(self, *([("max_minutes", DEFAULT_MINUTES, NO_LIMIT)] if self.unlimited else []))

    def products(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Products to measure precisions by. The model is not known yet: of a usual size."""
        return (_TYPICAL, _TYPICAL, _TYPICAL), (4, _TYPICAL, _TYPICAL)
