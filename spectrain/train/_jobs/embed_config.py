"""Everything that decides a run of ``spectrain embed``. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from spectrain.train._run.config import RunConfig, fill
from spectrain.train._run.optimizers import OPTIMIZERS

_BASE_LR = {"muon": 0.1, "adamw": 0.1}


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(RunConfig):
    """Learn to find the document that answers a query, and measure it beside BM25. Batches are far larger than memory.
    Afterwards: spectrain embed RUN --query "parse a date" [--top 5]

    Every field is a flag. What is left to be measured (``auto``, ``None``) is filled in before it is
    used and written to the run's ``config.json``; a resumed run replays it.
    """

    job: ClassVar[str] = "embed"

    data: tuple[str, ...] = ()
    """JSON lines with query and document. None: functions of Python's standard library and their docstrings."""
    validation_fraction: float = 0.15
    """Share of the pairs held out for the result, by module or group; half as many judge on the way."""
    vocabulary: int = 8192
    """Tokens of the BPE vocabulary, learned from the training pairs."""
    query_tokens: int = 32
    """A query is cut after so many tokens."""
    document_tokens: int = 128
    """A document is cut after so many tokens."""

    two_towers: bool = False
    """An encoder each for queries and documents, instead of one for both."""
    depth: int = 0
    """Blocks of the encoder; 0 is a bag of tokens, which was the best for its time on two cores."""
    width: int = 192
    """Features of a vector."""
    heads: int | None = None
    """Attention heads. Default: one for 64 features of width."""
    temperature: float = 0.05
    """Of the softmax over the batch's documents."""

    batch_size: int = 1024
    """Pairs that are compared with each other in an optimizer step."""
    micro_batch_size: int | None = None
    """Texts in memory at once; the gradient is the whole batch's all the same. Default: at most 128."""
    eval_interval: int = 20
    """Steps between validations."""
    save_interval: int = 50
    """Steps between checkpoints."""
    warmup: int = 10
    """Steps of linear warm-up; then linearly to zero."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the flag and the cure."""
        super().__post_init__()
        self.require(0 < self.validation_fraction < 0.5, "validation_fraction", "between 0 and 0.5")
        self.require(0 < self.temperature < float("inf"), "temperature", "positive and finite")
        self.require(self.batch_size >= 2, "batch_size", "at least 2: one pair has nothing to be told apart from")
        self.require(0 <= self.depth <= self.at_most("depth"), "depth", f"from 0 to {self.at_most('depth'):,}")

    @classmethod
    def at_least_one(cls) -> tuple[str, ...]:
        """Fields that must be 1 or more."""
        own = ("vocabulary", "query_tokens", "document_tokens", "width", "heads")
        return (*own, *super().at_least_one())

    @property
    def slug(self) -> str:
        """What the name of a new run folder says after the date."""
        return f"embed-{self.optimizer}"

    def derive(self) -> tuple["EmbedConfig", list[str]]:
        """Fill in what follows from other fields, and say why."""
        chunk = max(size for size in range(1, min(128, self.batch_size) + 1) if self.batch_size % size == 0)
        return fill(
            self,
            ("heads", max(1, self.width // 64), "one for 64 features of width"),
            ("micro_batch_size", chunk, "chunks of at most 128 texts: the gradient does not depend on it"),
            ("lr", _BASE_LR[OPTIMIZERS[self.optimizer].like], "best of 4e-3, 3e-2 and 1e-1 on the standard library"),
            *(
                [("max_steps", 80, "some 16 passes over the default pairs: more of them only memorise")]
                if self.unlimited
                else []
            ),
        )

    def products(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """``(rows, inner, columns)`` of the model's typical product, and ``(batch, rows, columns)`` of Muon's."""
        return (self.micro_batch * self.document_tokens, self.width, 3 * self.width), (4, self.width, self.width)
