"""What runs of different jobs are measured by, and counted in."""

from collections.abc import Sequence
from dataclasses import dataclass

from spectrain.report._reading.run import Run


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of the validations: its key, its words, and what its axis says where that is more."""

    key: str
    words: str
    axis: str = ""
    falls: bool = True
    """Whether smaller is better."""

    @property
    def title(self) -> str:
        """The words of its axis."""
        return self.axis or self.words


MEASURES = (
    Measure("bits_per_byte", "bits per byte"),
    Measure("one_step_frechet", "Frechet distance in one step"),
    Measure("many_step_frechet", "Frechet distance in many steps"),
    Measure("one_step_accuracy", "recognised in one step", "share recognised, drawn in one step", falls=False),
    Measure("accuracy", "accuracy", "share of pictures that get their class", falls=False),
    Measure("mrr_combined", "MRR with BM25", "mean reciprocal rank, with BM25", falls=False),
    Measure("recall_10_combined", "recall@10 with BM25", falls=False),
    Measure("mrr", "MRR", "mean reciprocal rank", falls=False),
    Measure("recall_10", "recall@10", falls=False),
)
"""In the order in which a page leads with them; the loss of a job comes after all of these."""

_UNITS = ("tokens", "pictures", "pairs", "examples")


def unit(runs: Sequence[Run]) -> str:
    """What the runs count their data in: tokens unless a run says otherwise."""
    seen = {name for run in runs for row in run.steps[:1] for name in _UNITS if name in row}
    return next((name for name in _UNITS if name in seen), "tokens")


def lead(run: Run) -> Measure | None:
    """The measure that a run is known by; None where there is only a loss."""
    return next((measure for measure in MEASURES if run.final(measure.key) is not None), None)
