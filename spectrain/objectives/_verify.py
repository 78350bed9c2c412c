"""A proof on the user's own model and data: chunked and whole gradients are the same."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spectrain.objectives import _chunks
from spectrain.objectives._contrastive import Contrastive
from spectrain.objectives._modules import modules
from spectrain.objectives._replay import Randomness, buffers_kept


@dataclass(frozen=True)
class Verification:
    """How far the chunked gradient is from the whole one, beside what rounding alone does."""

    difference: float
    """``|chunked - whole| / |whole|`` over all parameters."""
    yardstick: float
    """The same between two whole gradients whose examples were summed in another order."""
    worst: str
    """The parameter that differs most."""
    mixing: float = 0.0
    """How far an example's embedding moves, relative to its length, when the others of the batch are replaced."""

    @property
    def holds(self) -> bool:
        """Whether the difference is at most four times the yardstick, and examples do not see each other."""
        return self.difference <= 4 * self.yardstick and self.mixing <= 16 * self.yardstick

    def __str__(self) -> str:
        """One line for people."""
        verdict = "the same gradient" if self.holds else "NOT the same gradient"
        mixed = f"; an example's embedding depends on the others, by {self.mixing:.1e}" if self.mixing else ""
        return (
            f"{verdict}: relative difference {self.difference:.1e}, rounding alone {self.yardstick:.1e}; "
            f"largest in {self.worst}{mixed}"
        )


def verify(contrastive: Contrastive, *towers: Any, **keywords: Any) -> Verification:
    """Compare ``contrastive.backward`` with one graph over the whole batch.

    Encoders that draw nothing at random get the whole batch in one call. Those that do cannot be given the masks of
    the chunks there: their graph is made of the chunks, under the same masks, and whether an example's embedding
    depends on the others (batch normalisation) is looked at apart: the whole batch against copies of one example,
    from the same random state.

    Gradients, buffers and the random state are put back as they were. Memory: that of the whole batch, so give
    a batch that fits. The yardstick is what summing the examples in another order changes, at least one
    roundoff of the parameters' dtype.

    Raises ``ValueError`` under ``gather=True`` (verify on one rank) and without any trainable parameter.

    >>> from spectrain.objectives import info_nce
    >>> model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.1)).double()
    >>> x, y = torch.randn(2, 16, 6, dtype=torch.float64)
    >>> verify(Contrastive(model, info_nce, chunk=4), x, y).holds
    True
    """
    if contrastive.gather:
        raise ValueError("verify compares on one rank; make a Contrastive with gather=False for it.")
    encoders = contrastive._encoders(towers)
    owners = list(modules([*encoders, contrastive.loss]))
    named = {f"{name}": p for module in owners for name, p in module.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError(
            "verify: no encoder is a module with trainable parameters, so there is no gradient to compare."
        )
    kept, start = {name: p.grad for name, p in named.items()}, Randomness(towers)
    try:
        found = []
        for run in (contrastive.backward, _Whole(contrastive), _Whole(contrastive, backwards=True)):
            start.restore()
            for p in named.values():
                p.grad = None
            with buffers_kept(owners):
                run(*towers, **keywords)
                mixing = getattr(run, "mixing", 0.0)
            found.append({name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named.items()})
    finally:
        start.restore()
        for name, p in named.items():
            p.grad = kept[name]
    chunked, whole, reordered = found
    roundoff = max(torch.finfo(p.dtype).eps for p in named.values())
    gaps = {name: float((chunked[name] - whole[name]).double().norm()) for name in named}
    return Verification(
        difference=_relative(chunked, whole),
        yardstick=max(_relative(reordered, whole), roundoff),
        worst=max(gaps, key=lambda name: gaps[name]),
        mixing=mixing,
    )


class _Whole:
    """The whole batch in one graph; ``backwards`` sums its chunks and its rows in the opposite order."""

    def __init__(self, contrastive: Contrastive, *, backwards: bool = False) -> None:
        self.contrastive, self.backwards, self.mixing = contrastive, backwards, 0.0

    def __call__(self, *towers: Any, **keywords: Any) -> None:
        encoders = self.contrastive._encoders(towers)
        chunks, _ = self.contrastive._embed(encoders, towers)
        arguments = []
        for tower, (encoder, inputs) in enumerate(zip(encoders, towers, strict=True)):
            every = self._turned(torch.arange(_chunks.batch_size(inputs)))
            outputs, before, drew = self.contrastive.encode(encoder, inputs, every)
            if drew:
                self.mixing = max(self.mixing, self._mixing(encoder, inputs, before))
                outputs = self._of_chunks(encoder, inputs, [chunk for chunk in chunks if chunk.tower == tower])
            arguments.append(outputs[0] if len(outputs) == 1 else outputs)
        turned = {name: self._turned(value) if isinstance(value, Tensor) else value for name, value in keywords.items()}
        self.contrastive.loss(*arguments, **turned).sum().backward()

    def _of_chunks(self, encoder: Any, inputs: Any, chunks: list[Any]) -> tuple[Tensor, ...]:
        parts: dict[int, Any] = {}
        for i in reversed(range(len(chunks))) if self.backwards else range(len(chunks)):
            chunk = chunks[i]
            parts[i] = self.contrastive.encode(encoder, inputs, chunk.index, again=chunk.randomness).outputs
        outputs = _in_order([parts[i] for i in range(len(chunks))], [chunk.index for chunk in chunks])
        return tuple(self._turned(output) for output in outputs)

    @torch.no_grad()
    def _mixing(self, encoder: Any, inputs: Any, start: Randomness) -> float:
        """The longest example's embedding in the whole batch, and in a batch of its copies, under the same masks."""
        examples = _chunks.batch_size(inputs)
        lengths = [_length(self.contrastive, example) for example in inputs] if isinstance(inputs, list) else [0]
        place = max(range(len(lengths)), key=lambda i: lengths[i])
        found = []
        for index in (torch.arange(examples), torch.full((examples,), place)):
            outputs = self.contrastive.encode(encoder, inputs, index, again=start).outputs
            found.append([out[place].double() for out in outputs])
        gaps = [(float((a - b).norm()), float(a.norm())) for a, b in zip(*found, strict=True)]
        return max(gap / size if size else float(gap > 0) for gap, size in gaps)

    def _turned(self, rows: Tensor) -> Tensor:
        return rows.flip(0) if self.backwards and rows.dim() else rows


def _length(contrastive: Contrastive, example: Any) -> int:
    try:
        return contrastive.length(example)
    except TypeError:  # examples without a length are not padded
        return 0


def _in_order(parts: list[tuple[Tensor, ...]], own: list[Tensor]) -> tuple[Tensor, ...]:
    """The outputs of all chunks of a tower, example by example in the order of the inputs."""
    order = torch.cat(own).argsort()
    return tuple(torch.cat(output)[order.to(output[0].device)] for output in zip(*parts, strict=True))


def _relative(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    gap, size = (sum(float(x.double().square().sum()) for x in parts) for parts in (_minus(a, b), b.values()))
    return float("inf") if size == 0 and gap > 0 else (gap / size) ** 0.5 if size else 0.0


def _minus(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[Tensor]:
    return [a[name] - b[name] for name in b]
