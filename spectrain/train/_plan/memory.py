"""Bytes that a rank holds, part by part."""

from typing import NamedTuple

from torch import nn

from spectrain.train._jobs.averages import copies
from spectrain.train._mesh.layout import Layout
from spectrain.train._plan.pieces import Pieces
from spectrain.train.config import TrainConfig

WIDE = 4
"""Bytes of a number in float32, in which weights, gradients and optimizer state are kept, gathered and reduced."""


class Sizes(NamedTuple):
    """Numbers of a model's weights: of one block as one of the ranks that share its matrices has it, of all else; and
    of what one rank keeps, in matrices that Muon moves and in what AdamW moves."""

    block: int
    root: int
    matrices: int
    rest: int

    @property
    def own(self) -> int:
        """All that one rank keeps."""
        return self.matrices + self.rest


def sizes(model: nn.Module, stand: Layout) -> Sizes:
    """Count the weights of a :class:`LanguageModel`.

    ``fully_shard`` cuts the first dimension as ``torch.chunk`` does: the first rank has ceil(n / shards) of n rows.
    """
    block, root, matrices, rest = 0, 0, 0, 0
    for name, p in model.named_parameters():
        inside = name.startswith("blocks.")
        matrix = inside and p.ndim == 2
        rows, columns = p.shape[0], p.numel() // p.shape[0]
        if matrix and stand.tensor > 1:
            first = not name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            rows, columns = (rows // stand.tensor, columns) if first else (rows, columns // stand.tensor)
        own = -(-rows // stand.shards) * columns
        block += rows * columns * name.startswith("blocks.0.")
        root += rows * columns * (not inside)
        matrices += own * matrix
        rest += own * (not matrix)
    return Sizes(block, root, matrices, rest)


def memory(config: TrainConfig, found: Sizes, stand: Layout, work: Pieces, *, micro_batches: int) -> dict[str, float]:
    r"""Return the bytes of a rank at the fullest moment of a step, by part.

    With n numbers of its own (of m matrices and r others), depth blocks of b numbers and R numbers outside of blocks:

    ==================  ==========================================================================================
    weights             4 n
    gradients           4 n; with several micro-batches over ranks 4 (depth b + R), which meet at the last one only
    optimizer           Muon: 4 m of momentum and 8 r of AdamW's moments; ``adamw``: 8 n
    averages            4 n for ``--average``, 16 n for ``--decay-estimate``
    gathered            over ranks: weights of two blocks (one computes, the next is gathered) and of what is outside;
                        gradients of one block, once more on its way to be summed, and of what is outside
    activations         depth x what autograd keeps of a block, and the most that a block or the loss needs besides;
                        ``--recompute``: depth x a block's input, and all of one block or of the loss
    step                instead of the last two, after the backward pass: Muon's direction and update of all matrices of
                        this rank, what its buckets hold at once, and four copies of the largest batch in msign
    ==================  ==========================================================================================

    The rule for activations is that of Korthikanti et al., arXiv 2205.05198, section 4; the bytes are torch's own
    (:func:`trace`). What torch, its libraries and the program themselves take is not in it, nor memory that an
    allocator holds without use.
    """
    alone = stand.ranks == 1
    full = config.depth * found.block + found.root
    apart = not alone and micro_batches > 1
    adamw = config.optimizer == "adamw"
    blocks = min(2, config.depth)
    parts = {
        "weights": WIDE * found.own,
        "gradients": WIDE * (full if apart else found.own),
        "optimizer": WIDE * (2 * found.own if adamw else found.matrices + 2 * found.rest),
        "averages": WIDE * copies(config) * found.own,
        "gathered": 0 if alone else WIDE * (2 * blocks * found.block + (1 if apart else 2) * found.root),
        "activations": _activations(config, work),
        "step": 0 if adamw else 2 * WIDE * found.matrices,
    }
    return {name: float(size) for name, size in parts.items()}


def fullest(parts: dict[str, float]) -> float:
    """The bytes of all parts that are there at once."""
    kept = sum(parts[name] for name in ("weights", "gradients", "optimizer", "averages"))
    return kept + max(parts["gathered"] + parts["activations"], parts["step"])


def _activations(config: TrainConfig, work: Pieces) -> int:
    start, block, finish = work
    if config.recompute:
        return start.saved + config.depth * block.given + max(block.peak, finish.peak)
    return start.saved + config.depth * block.saved + max(block.peak - block.saved, finish.peak)
