"""The gradient of a loss over the whole batch, in the memory of a chunk: dropout included."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from spectrain.objectives import _chunks
from spectrain.objectives._batch_norm import BatchNorms, check_exact
from spectrain.objectives._gather import gather
from spectrain.objectives._modules import refuse_batch_statistics, without_sync
from spectrain.objectives._replay import Randomness, Watched, buffers_kept

Encoder = Callable[[Any], Any]


@dataclass
class _Chunk:
    """One chunk of one tower: which examples, the randomness its first pass began with, and where its outputs went."""

    tower: int
    index: Tensor
    randomness: Randomness
    first: tuple[Tensor, ...]


class Encoded(NamedTuple):
    """What an encoder made of a chunk, the randomness before, and whether it drew any."""

    outputs: tuple[Tensor, ...]
    before: Randomness
    drew: bool


class Contrastive:
    """Any loss over the embeddings of a batch, differentiated for the *full* batch chunk by chunk.

    With embeddings h of all examples, d loss / d theta = sum_i <d loss / d h_i, d h_i / d theta>. So:
    embed all chunks without a graph; differentiate the loss with respect to the embeddings; embed each
    chunk again with a graph and send its part of that derivative back. The second pass replays the random
    state of the first, chunk by chunk, so dropout masks are the same and SimCSE works.

    Args:
        encoders: a module or callable for all towers, or a sequence with one for each. An encoder maps
            a chunk of its tower's inputs to a tensor whose first dimension counts examples, or to a tuple
            or list of such tensors. It may draw from the global generators of torch, NumPy and Python, which
            are replayed.
        loss: called with the embeddings of the whole batch, one argument a tower (a tuple for an encoder
            with several outputs), and with the keywords given to :meth:`backward`; returns a scalar. May
            be a module with parameters (a temperature); they get their gradient too.
        chunk: examples in a chunk. Exactly one of ``chunk`` and ``tokens``.
        tokens: budget of a chunk in padded tokens: examples times longest. Needs a list of examples.
        length: the number of tokens of an example, for ``tokens``; default ``len``.
        collate: turns a list of examples into what the encoder takes; default: the list itself.
        batch_norm: ``'refuse'`` batch normalisation in training mode, or use it ``'per chunk'``: each chunk
            its own statistics, running statistics updated once. That is then not the full batch's gradient;
            ``'exact'`` is: statistics of the whole batch of this rank, and their derivative, for two more passes a
            layer (``_batch_norm.py``).
        gather: take embeddings (and tensor keywords) of all ranks of ``group`` into the loss. Each rank
            differentiates its own examples.
        gradients: how gradients are reduced over ranks afterwards: ``'averaged'`` (DDP, FSDP) or ``'summed'``.

    Exact: without dropout the result equals the plain full-batch gradient up to the rounding that permuting
    the batch also causes; with dropout it equals the full-batch gradient under the same masks. See
    :func:`verify`. Memory: one chunk's graph, all embeddings, and what the loss needs
    (:func:`info_nce` works in blocks). Cost: one more forward pass, about 4/3 of a plain step.

    Source: Gao, Zhang, Han, Callan, "Scaling deep contrastive learning batch size under memory limited
    setup" (2021); kexue.fm/archives/8471.

    >>> from spectrain.objectives import info_nce
    >>> model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.1))
    >>> contrastive = Contrastive(model, info_nce, chunk=4)
    >>> loss = contrastive.backward(torch.randn(16, 6), torch.randn(16, 6))
    >>> loss.requires_grad, model[0].weight.grad.shape
    (False, torch.Size([8, 6]))
    """

    def __init__(
        self,
        encoders: Encoder | Sequence[Encoder],
        loss: Callable[..., Tensor],
        *,
        chunk: int | None = None,
        tokens: int | None = None,
        length: Callable[[Any], int] = len,
        collate: Callable[[list[Any]], Any] | None = None,
        batch_norm: Literal["refuse", "per chunk", "exact"] = "refuse",
        gather: bool = False,
        group: dist.ProcessGroup | None = None,
        gradients: Literal["averaged", "summed"] = "averaged",
    ) -> None:
        if (chunk is None) == (tokens is None):
            raise ValueError(
                f"Contrastive needs exactly one of chunk= and tokens=, got chunk={chunk}, tokens={tokens}."
            )
        for name, value in (("chunk", chunk), ("tokens", tokens)):
            if value is not None and value < 1:
                raise ValueError(f"Contrastive: {name} must be at least 1, got {value}.")
        if batch_norm not in ("refuse", "per chunk", "exact"):
            raise ValueError(f"Contrastive: batch_norm is 'refuse', 'per chunk' or 'exact', got {batch_norm!r}.")
        if gradients not in ("averaged", "summed"):
            raise ValueError(f"Contrastive: gradients is 'averaged' or 'summed', got {gradients!r}.")
        self.encoders, self.loss, self.chunk, self.tokens = encoders, loss, chunk, tokens
        self.length, self.collate, self.batch_norm = length, collate, batch_norm
        self.gather, self.group, self.gradients = gather, group, gradients

    def backward(self, *towers: Any, scale: float | int = 1.0, **keywords: Any) -> Tensor:
        """Add the gradient of ``scale * loss`` of the whole batch to every ``p.grad``; return the loss, detached.

        ``towers`` are the inputs of each tower: a tensor, nested tensors with one first dimension (in tuples,
        dictionaries, or a mapping such as ``BatchEncoding``), or a list of examples. Tensors among ``keywords``
        (labels, say) belong to the examples of this rank.

        Raises ``ValueError`` for an empty tower, for encoders that mix or remember examples (see ``batch_norm``),
        and for a loss that is not one finite number; no gradient is touched then. ``RuntimeError`` for an encoder
        whose second pass makes other embeddings than its first.
        """
        encoders = self._encoders(towers)
        if self.batch_norm == "exact":
            return self._exactly(encoders, towers, keywords, scale=scale)
        if self.batch_norm == "refuse":
            refuse_batch_statistics(encoders)
        watched = Watched(encoders)
        chunks, embedded = self._embed(encoders, towers)
        watched.refuse_change()
        loss, pulls = self._differentiate(embedded, keywords, scale=scale)
        after = Randomness(towers)  # what follows draws as after a plain forward pass and its loss
        with buffers_kept(encoders):
            self._replay(encoders, towers, chunks, pulls)
        after.restore()
        return loss

    def _exactly(
        self, encoders: list[Encoder], towers: tuple[Any, ...], keywords: dict[str, Any], *, scale: float | int
    ) -> Tensor:
        """The same, with batch normalisations whose statistics are those of the whole batch of a tower."""
        check_exact(encoders)
        watched = Watched(encoders)
        norms = [BatchNorms(encoder) for encoder in encoders]  # type: ignore[arg-type]
        states: dict[tuple[int, int], Randomness] = {}

        def through(tower: int) -> Encoder:
            def encode(chunk: Any) -> Any:
                norms[tower].begin()
                with norms[tower].given():
                    return encoders[tower](chunk)

            return encode

        def runner(tower: int) -> Callable[[int], None]:
            cuts, encoder = self.cut(towers[tower]), through(tower)

            def run(i: int) -> None:
                again = states.get((tower, i))
                if again is None:  # the first pass, which nobody stops
                    states[tower, i] = again = Randomness(towers[tower])
                self.encode(encoder, towers[tower], cuts[i], again=again)

            return run

        runs = [(norm, runner(tower), len(self.cut(towers[tower]))) for tower, norm in enumerate(norms)]
        for norm, run, count in runs:
            norm.measure(run, count)
        wrapped = [through(tower) for tower in range(len(towers))]
        chunks, embedded = self._embed(wrapped, towers, states=states)
        watched.refuse_change()
        loss, pulls = self._differentiate(embedded, keywords, scale=scale)
        after = Randomness(towers)
        with buffers_kept(encoders):
            for norm in norms:
                norm.fix()
            self._replay(wrapped, towers, chunks, pulls)
            for norm, run, count in reversed(runs):
                norm.send_back(run, count)
        for norm in norms:
            norm.keep()
        after.restore()
        return loss

    def _encoders(self, towers: tuple[Any, ...]) -> list[Encoder]:
        if not towers:
            raise ValueError("Contrastive.backward needs the inputs of at least one tower.")
        if callable(self.encoders):
            return [self.encoders] * len(towers)
        if len(self.encoders) != len(towers):
            raise ValueError(f"Contrastive has {len(self.encoders)} encoders but got {len(towers)} towers.")
        return list(self.encoders)

    def cut(self, inputs: Any) -> list[Tensor]:
        """The chunks of a tower, as indices of its examples."""
        examples = _chunks.batch_size(inputs)
        if self.chunk is not None:
            return _chunks.by_count(examples, chunk=self.chunk)
        assert self.tokens is not None
        if not isinstance(inputs, list):
            raise ValueError("Contrastive: tokens= needs a list of examples; for a tensor give chunk=.")
        return _chunks.by_tokens([self.length(example) for example in inputs], budget=self.tokens)

    def encode(self, encoder: Encoder, inputs: Any, index: Tensor, *, again: Randomness | None = None) -> Encoded:
        """One chunk's embeddings, from the random state ``again``, if given."""
        chunk = _chunks.take(inputs, index)
        collate = self.collate if isinstance(chunk, list) else None
        # From here to the encoder's answer nothing of ours may draw.
        if again is not None:
            again.restore()
        before = Randomness(inputs)
        out = encoder(chunk if collate is None else collate(chunk))
        after = Randomness(inputs)
        outputs = (out,) if isinstance(out, Tensor) else tuple(out)
        for output in outputs:
            if len(output) != len(index):
                raise ValueError(
                    f"Contrastive: an encoder made {len(output)} embeddings of {len(index)} examples; the first "
                    "dimension of its output must count examples."
                )
        return Encoded(outputs, before, not before.same(after))

    @torch.no_grad()
    def _embed(
        self,
        encoders: list[Encoder],
        towers: tuple[Any, ...],
        *,
        states: Mapping[tuple[int, int], Randomness] | None = None,
    ) -> tuple[list[_Chunk], list[tuple[Tensor, ...]]]:
        chunks: list[_Chunk] = []
        embedded: list[tuple[Tensor, ...]] = []
        for tower, (encoder, inputs) in enumerate(zip(encoders, towers, strict=True)):
            whole: tuple[Tensor, ...] = ()
            for i, index in enumerate(self.cut(inputs)):
                again = None if states is None else states.get((tower, i))
                outputs, randomness, _ = self.encode(encoder, inputs, index, again=again)
                # One array for all examples: small ones that stay between a chunk's large ones tear the heap apart.
                whole = whole or tuple(out.new_empty(_chunks.batch_size(inputs), *out.shape[1:]) for out in outputs)
                for place, out in zip(whole, outputs, strict=True):
                    place[index.to(out.device)] = out
                chunks.append(_Chunk(tower, index, randomness, whole))
            embedded.append(whole)
        return chunks, embedded

    def _differentiate(
        self, embedded: list[tuple[Tensor, ...]], keywords: dict[str, Any], *, scale: float | int
    ) -> tuple[Tensor, list[tuple[Tensor | None, ...]]]:
        """The loss, and its derivative with respect to each of our embeddings."""
        world = dist.get_world_size(self.group) if self.gather else 1
        leaves: list[tuple[Tensor, ...]] = []
        begins: list[int] = []
        for outputs in embedded:
            gathered = [gather(output, group=self.group) if self.gather else (output, 0) for output in outputs]
            leaves.append(tuple(whole.detach().requires_grad_() for whole, _ in gathered))
            begins.append(gathered[0][1])
        if self.gather:
            keywords = {
                name: gather(value, group=self.group)[0] if isinstance(value, Tensor) and value.dim() else value
                for name, value in keywords.items()
            }
        with torch.enable_grad():
            loss = self.loss(*(outputs[0] if len(outputs) == 1 else outputs for outputs in leaves), **keywords)
            if loss.numel() != 1 or not torch.isfinite(loss):
                raise ValueError(
                    f"Contrastive: the loss must be one finite number, got {loss.detach().cpu().tolist()}."
                )
            # Summed over ranks, the loss's own parameters would count every rank's copy of one loss.
            share = 1 / world if self.gradients == "summed" else 1.0
            (loss.sum() * (scale * share)).backward()
        back = float(world) if self.gather else 1.0
        pulls = [
            tuple(_own(leaf.grad, begin, len(mine), back) for leaf, mine in zip(outputs, own, strict=True))
            for outputs, own, begin in zip(leaves, embedded, begins, strict=True)
        ]
        return loss.detach().sum(), pulls

    def _replay(
        self,
        encoders: list[Encoder],
        towers: tuple[Any, ...],
        chunks: list[_Chunk],
        pulls: list[tuple[Tensor | None, ...]],
    ) -> None:
        last = {id(encoders[chunk.tower]): i for i, chunk in enumerate(chunks)}
        for i, chunk in enumerate(chunks):
            encoder = encoders[chunk.tower]
            with torch.enable_grad(), without_sync(None if last[id(encoder)] == i else encoder):
                outputs = self.encode(encoder, towers[chunk.tower], chunk.index, again=chunk.randomness).outputs
                _refuse_other(outputs, chunk)
                wanted = [
                    (output, pull[chunk.index.to(pull.device)])
                    for output, pull in zip(outputs, pulls[chunk.tower], strict=True)
                    if output.requires_grad and pull is not None
                ]
                if wanted:
                    torch.autograd.backward([output for output, _ in wanted], [pull for _, pull in wanted])


def _own(grad: Tensor | None, begin: int, count: int, factor: float) -> Tensor | None:
    """This rank's part of a derivative, brought to the scale that reduction undoes."""
    return None if grad is None else grad[begin : begin + count].mul_(factor)


def _refuse_other(outputs: tuple[Tensor, ...], chunk: _Chunk) -> None:
    """The second pass must be the first: the derivative was taken at what the first one made."""
    for output, first in zip(outputs, chunk.first, strict=True):
        before = first[chunk.index.to(first.device)]
        gap, size = (float(part.norm()) for part in ((output.detach() - before).double(), before.double()))
        if not gap <= torch.finfo(output.dtype).eps ** 0.5 * size:
            raise RuntimeError(
                f"Contrastive: an encoder made other embeddings of the same examples in its second pass, {gap:.1e} of "
                f"{size:.1e} away. Global generators (torch, NumPy, Python) are replayed; a generator of its own, or "
                "what it remembers between calls, is not. Gradients of earlier chunks were added: call zero_grad()."
            )
