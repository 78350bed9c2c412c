"""How much of the held-out text a validation reads: the first tokens on the way, a bounded amount at the end."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from spectrain import data
from spectrain.train._jobs.samples import Score
from spectrain.train._jobs.text import Text
from spectrain.train.config import TrainConfig


@dataclass(frozen=True)
class HeldOut:
    """The held-out tokens of a run, as its validations read them."""

    text: Text
    config: TrainConfig

    def __len__(self) -> int:
        return len(self.text.validation)

    def count(self, tokens: int | None) -> int:
        """Of the first ``tokens``, or of the last validation: how many there are."""
        if tokens is not None:
            return min(tokens, len(self))
        most, block = self.config.final_eval_tokens, self.config.block
        if isinstance(most, str) or most >= len(self):
            return len(self)
        return max(most - most % block, min(most, block))

    def batches(self, tokens: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets: of the first ``tokens``, or those of the last validation, spread over all."""
        return data.validation_batches(
            self.text.validation[:tokens],
            block=self.config.block,
            batch=self.config.micro_batch,
            most=self.count(tokens),
        )

    def bytes_at_the_end(self) -> Iterator[bytes]:
        """The text that the last validation reads, in parts."""
        for _, targets in self.batches(None):
            yield self.text.tokenizer.to_bytes(targets[targets >= 0].numpy())

    def about(self) -> Iterator[str]:
        """A line that says so where the last validation will not read everything."""
        if self.count(None) < len(self):
            yield (
                f"the last validation reads {self.count(None):,} tokens, spread over the {len(self):,} that are held "
                "out (--final-eval-tokens)"
            )

    def words(self, score: Score) -> str:
        """What was read at the end, behind "all"."""
        if score.tokens == len(self):
            return f"{score.bytes:,} held-out bytes"
        return f"of {score.tokens:,} tokens spread over the {len(self):,} held out ({score.bytes:,} bytes)"
