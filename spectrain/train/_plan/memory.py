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
    of what one rank keeps: in matrices that Muon moves, in what AdamW moves, and of all that in one block."""

    block: int
    root: int
    matrices: int
    rest: int
    own_block: int

    @property
    def own(self) -> int:
        """All that one rank keeps."""
        return self.matrices + self.rest


def sizes(model: nn.Module, stand: Layout) -> Sizes:
    """Count the weights of a :class:`LanguageModel`.

    ``fully_shard`` cuts the first dimension as ``torch.chunk`` does: the first rank has ceil(n / shards) of n rows.
    """
    block, root, matrices, rest, own_block = 0, 0, 0, 0, 0
    for name, p in model.named_parameters():
        inside = name.startswith("blocks.")
        matrix = inside and p.ndim == 2
        rows, columns = p.shape[0], p.numel() // p.shape[0]
        if matrix and stand.tensor > 1:
            first = not name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            rows, columns = (rows // stand.tensor, columns) if first else (rows, columns // stand.tensor)
        own = -(-rows // stand.shards) * columns
        block += rows * columns * name.startswith("blocks.0.")
        own_block += own * name.startswith("blocks.0.")
        root += rows * columns * (not inside)
        matrices += own * matrix
        rest += own * (not matrix)
    return Sizes(block, root, matrices, rest, own_block)


PARTS = ("weights", "optimizer", "averages", "gradients", "gathered", "activations", "step")
"""What is told apart: weights, optimizer state, averages and gradients; what ``fully_shard`` holds to gather weights
and to sum gradients; what the way there keeps and the way back needs; what Muon's step needs."""

Moments = dict[str, dict[str, float]]
"""Bytes of each part at each moment of a step that can be the fullest."""
_Bytes = dict[str, int]


def moments(
    config: TrainConfig, found: Sizes, stand: Layout, work: Pieces, *, micro_batches: int, staged: bool = False
) -> Moments:
    r"""Return the bytes of a rank, part by part, at the moments of a step of which one is the fullest.

    At every moment there are 4 n of weights, n being the numbers of this rank; of m matrices among them and r others
    Muon keeps 4 m + 8 r, AdamW 8 n; averages are 4 n for ``--average`` and 16 n for ``--decay-estimate``. With b bytes
    of a block, R of all outside of blocks, of which the head's gradient is H, each a rank's shard being b' and R', and
    S shards (S b' is b, or more where rows do not divide):

    ==================  ==========================================================================================
    the loss            activations of all blocks, and the most that norm, head and loss need;
                        over ranks R gathered
    block i, back       activations of blocks 1 to i, and the most that a block needs, its gradients among it; H, and
                        gradients of the blocks above. Over ranks those are shards, and gathered are R + b, S b' of
                        block i - 1 on its way (S > 1), S b' of block i + 1 that was just summed
    block i, summed     over ranks, as the last but block i's activations: its gradients b and their copy S b', or
                        that and what comes of it, b' (2 b' where S = 1, which is copied instead of sent)
    the embedding, back all gradients, R of them whole over ranks, and gathered R, and S b' of block 1
    the rest, summed    over ranks: all gradients, and R with its copy S R', or that and R'
    the step            all gradients; Muon's direction and update of all matrices of this rank, what its buckets hold
                        at once, and four copies of the largest batch in msign
    ==================  ==========================================================================================

    ``--recompute`` keeps a block's input instead of its activations, and has all of one block at once. Several
    micro-batches over ranks add up whole gradients, depth b + R, until the last one. ``staged``: gloo gathers into a
    copy of its own, S b' more until block i - 1 has come, which may be before block i has computed or after. What gloo
    needs to sum is a part of a message, and is left out.

    The rule for activations is that of Korthikanti et al., arXiv 2205.05198, section 4; the bytes of a block are
    torch's own (:func:`trace`), those of ``fully_shard`` what it allocates: a test counts them on two and four ranks.
    Bytes are those that are in use. What torch, its libraries and the program themselves take is not in it, nor memory
    that the allocator holds without use, which on a processor is much where matrices are small (docs/plan.md).
    """
    apart = micro_batches > 1
    adamw = config.optimizer == "adamw"
    kept = {
        "weights": WIDE * found.own,
        "optimizer": WIDE * (2 * found.own if adamw else found.matrices + 2 * found.rest),
        "averages": WIDE * copies(config) * found.own,
    }
    seen = _alone(config, found, work, apart) if stand.ranks == 1 else _over(config, found, stand, work, apart, staged)
    every = {**seen, "the step": {"gradients": WIDE * found.own, "step": 0 if adamw else 2 * WIDE * found.matrices}}
    return {moment: {part: float((kept | parts).get(part, 0)) for part in PARTS} for moment, parts in every.items()}


def fullest(found: Moments) -> str:
    """The moment at which most bytes are in use."""
    return max(found, key=lambda moment: sum(found[moment].values()))


def _alone(config: TrainConfig, found: Sizes, work: Pieces, apart: bool) -> dict[str, _Bytes]:
    """Moments of one process; with several micro-batches all gradients are there from the second one on."""
    whole, block, head = WIDE * found.own, work.block.gradients, work.finish.gradients
    seen: dict[str, _Bytes] = {}
    for i in range(config.depth):
        above = head + (config.depth - 1 - i) * block
        seen[f"block {i + 1}, back"] = {"gradients": whole if apart else above, "activations": _back(config, work, i)}
    last = {"gradients": whole if apart else head + config.depth * block, "activations": work.start.peak}
    return {"the loss": _loss(config, work, whole * apart), **seen, "the embedding, back": last}


def _over(
    config: TrainConfig, found: Sizes, stand: Layout, work: Pieces, apart: bool, staged: bool
) -> dict[str, _Bytes]:
    """Moments of a rank among several."""
    block, root, own = WIDE * found.block, WIDE * found.root, WIDE * found.own_block
    copy, head, depth = stand.shards * own, work.finish.gradients, config.depth
    own_root = WIDE * found.own - depth * own
    whole = depth * block + root
    shared = work.block.given if stand.tensor > 1 else 0
    summed = 2 * own if stand.shards == 1 else own
    seen: dict[str, _Bytes] = {"the loss": {**_loss(config, work, whole * apart), "gathered": root}}
    for i in range(depth):
        before = copy if i and stand.shards > 1 else 0  # the next one on the way back is on its way
        gradients = whole if apart else head + (depth - 1 - i) * own
        seen[f"block {i + 1}, back"] = {
            "gradients": gradients,
            "gathered": root + block + (1 + staged) * before + (copy if i + 1 < depth else 0),
            "activations": _back(config, work, i) + shared,
        }
        seen[f"block {i + 1}, summed"] = {
            "gradients": gradients,
            "gathered": root + before + max(block + copy, copy + summed),
            "activations": work.start.saved + i * _kept(config, work) + work.block.given,
        }
    seen["the embedding, back"] = {
        "gradients": whole if apart else head + depth * own,
        "gathered": root + copy,
        "activations": work.start.peak,
    }
    seen["the rest, summed"] = {
        "gradients": depth * own,
        "gathered": stand.shards * own_root + max(root, (1 + (stand.shards == 1)) * own_root),
    }
    return seen


def _kept(config: TrainConfig, work: Pieces) -> int:
    """Bytes that the way there keeps of a block, its input among them."""
    return work.block.given + (0 if config.recompute else work.block.saved)


def _loss(config: TrainConfig, work: Pieces, gradients: int) -> _Bytes:
    kept = work.start.saved + config.depth * _kept(config, work)
    return {"gradients": gradients, "activations": kept + work.finish.peak}


def _back(config: TrainConfig, work: Pieces, i: int) -> int:
    """Activations while block ``i`` computes on the way back, all that it needs itself among them."""
    return work.start.saved + i * _kept(config, work) + work.block.given + work.block.peak
