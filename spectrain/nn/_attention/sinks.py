"""Sliding windows with attention sinks: the first tokens of a document stay visible, and near."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spectrain.nn._attention.cache import Cache
from spectrain.nn._attention.choice import Choice
from spectrain.nn._attention.heads import Heads
from spectrain.nn._attention.kind import Kind
from spectrain.nn._attention.rotary import Turns
from spectrain.nn._attention.shape import AttentionShape
from spectrain.nn._attention.visibility import Visibility

if TYPE_CHECKING:
    from spectrain.nn._attention.attention import Attention

PUBLISHED = 4
"""Sinks that suffice, section 3.1 of StreamingLLM."""


@dataclass(frozen=True)
class Sinks(Heads):
    """Token t of a document sees its first ``sinks`` tokens and the last ``window``, t included.

    A sink stands where it stands in a cache that holds no more than that: it is seen from the place
    ``min(t, sinks + window - 1)``, all others from t. No distance is beyond ``sinks + window - 1``, so that text may go
    on past any length of training. A document is a stretch of equal numbers in ``documents``: one that comes again is
    another, since of the first nothing need be held.

    Cost besides that of a window: where there are more than ``sinks + window`` tokens, queries and keys have
    ``rotary_dim`` more coordinates. Cached are keys and values of the sinks and up to two windows.

    Source: Xiao et al., Efficient streaming language models with attention sinks, arXiv 2309.17453, section 3.2; here
    by a mask in training too, so that training, prefill and decoding are one function.
    """

    sinks: int = PUBLISHED

    @property
    def foreign(self) -> str:  # type: ignore[override]
        """All of it."""
        return f"sinks={self.sinks}"

    @property
    def no_latent(self) -> str:  # type: ignore[override]
        """A sink is turned from two places."""
        return f"with sinks={self.sinks} keys are seen from a place of their own, which a latent's are not."

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, object]) -> Kind | None:
        """With ``sinks=``."""
        sinks = sizes["sinks"]
        return cls(sinks) if isinstance(sinks, int) else None

    def check(self, shape: AttentionShape, *, window: int | None) -> None:
        """Sinks of a window."""
        if window is None:
            raise ValueError(f"Attention: sinks={self.sinks} needs window=, the tokens seen besides them.")

    def reach(self, window: int | None) -> int | None:
        """Sinks and window."""
        return None if window is None else self.sinks + window

    def empty_cache(self, shape: AttentionShape) -> Cache:
        """A cache that keeps sinks."""
        return SinkCache(self.sinks)

    def see(
        self, block: "Attention", kept: tuple[Tensor, ...], cache: Cache | None, documents: Tensor | None
    ) -> tuple[tuple[Tensor, ...], Visibility]:
        """The rule above; where all that came before is within it, a query sees all."""
        length, window, device = kept[0].shape[2], block.window, kept[0].device
        assert window is not None
        if cache is None:
            marks = _marks(None, documents, length, device)
        else:
            if not isinstance(cache, SinkCache) or cache.sinks != self.sinks:
                raise ValueError(f"Attention: the cache keeps no {self.sinks} sinks; take this block's empty_cache().")
            kept = cache.append(kept, window=window)
            marks = cache.mark(documents, length, device)
        stored = kept[0].shape[2]
        whole = documents is None if cache is None else cache.whole and cache.seen == stored
        if whole and stored <= self.sinks + window and length in (1, stored):
            return kept, Visibility(length, stored, device, window if window >= stored else None)
        _, run, place = marks
        own = place[:, stored - length :]
        sink = (place >= 0) & (place < self.sinks)
        shift = (self.sinks + window - 1 - own).clamp(max=0)
        return kept, Placed(length, stored, device, window, sink=sink, shift=shift, run=run, place=place)

    def attend(
        self,
        block: "Attention",
        q: Tensor,
        kept: tuple[Tensor, ...],
        visible: Visibility,
        *,
        turns: Turns,
        absorbed: bool | None,
    ) -> Tensor:
        """Rotated coordinates stand twice: turned from t they meet those of the window, from the other place sinks."""
        dim = block.shape.rotary_dim
        if isinstance(visible, Placed) and dim:
            key, sink = kept[0], visible.sink[:, None, :, None]
            still, moving = key.split((key.shape[-1] - dim, dim), dim=-1)
            key = torch.cat((still, moving.masked_fill(sink, 0), moving.masked_fill(~sink, 0)), dim=-1)
            moved = block.rotary.turn(q, block.rotary.turns_at(visible.shift.unsqueeze(1)))
            q, kept = torch.cat((q, moved[..., -dim:]), dim=-1), (key, *kept[1:])
        return super().attend(block, q, kept, visible, turns=turns, absorbed=absorbed)


@dataclass(frozen=True, kw_only=True)
class Placed(Visibility):
    """With the keys that are sinks and how far from its own place each query sees them, ``(batch or 1, stored)``.

    ``run`` numbers the stretch that a key is of, ``place`` its place there.
    """

    sink: Tensor
    shift: Tensor
    run: Tensor
    place: Tensor

    @property
    def narrow(self) -> bool:
        """Sinks are seen from any distance."""
        return False

    @property
    def whole(self) -> bool:
        """Never: what needs no mask is a plain `Visibility`."""
        return False

    @property
    def repeats(self) -> bool:
        """Sinks stand where they stand."""
        return False

    def mask(self, start: int, stop: int, first: int, last: int) -> Tensor:
        """The rule of :class:`Sinks`."""
        assert self.window is not None
        past = self.stored - self.length
        run, place, sink = (mark[:, None, first:last] for mark in (self.run, self.place, self.sink))
        own_run, own = (mark[:, past + start : past + stop, None] for mark in (self.run, self.place))
        back = own - place
        return ((own_run == run) & (back >= 0) & ((back < self.window) | sink)).unsqueeze(1)


class SinkCache(Cache):
    """A cache that keeps the first tokens of the document that goes on, whatever a window lets go of."""

    def __init__(self, sinks: int) -> None:
        super().__init__()
        self.sinks = sinks
        self.whole = True  # no documents were ever given: all tokens are of one
        self._marks: Tensor | None = None

    def mark(self, documents: Tensor | None, length: int, device: torch.device) -> Tensor:
        """What :func:`_marks` says of all tokens held, after ``append``."""
        self.whole &= documents is None
        new = _marks(self._marks, documents, length, device)
        if self._marks is not None:
            new = torch.cat((self._marks.expand(-1, new.shape[1], -1), new), dim=2)
        self._marks = new
        return new

    def _forget(self, window: int | None) -> None:
        if window is None or self._marks is None or self.stored <= self.sinks + 2 * window:
            return
        (_, run, place), recent = self._marks, self.stored - window
        sink = (run == run[:, -1:]) & (place >= 0) & (place < self.sinks)
        # Sinks come first by their place. A document may have fewer before its window: what fills up is marked -1,
        # a document that no query is of.
        chosen = torch.where(sink, place, self.sinks)[:, :recent].topk(self.sinks, largest=False).indices
        missing = ~sink.gather(1, chosen)
        index = torch.cat((chosen, torch.arange(recent, self.stored, device=run.device).expand(len(run), -1)), dim=1)
        self._marks = self._marks.gather(2, index.expand(3, -1, -1))
        self._marks[1:, :, : self.sinks] = self._marks[1:, :, : self.sinks].masked_fill(missing, -1)
        for i, room in enumerate(self._room):
            batch, heads, _, numbers = room.shape
            self._room[i] = room.gather(2, index[:, None, :, None].expand(batch, heads, -1, numbers))
        self.stored = index.shape[1]


def _marks(before: Tensor | None, documents: Tensor | None, length: int, device: torch.device) -> Tensor:
    """Of ``length`` tokens that follow those of ``before``: document number, stretch and place in it.

    ``(3, batch or 1, length)``; without ``documents`` the one before goes on.
    """
    if before is None:
        first = torch.zeros(1, 1, dtype=torch.long, device=device) if documents is None else documents[:, :1].long()
        before = torch.stack((first, torch.zeros_like(first), torch.full_like(first, -1)))
    last = before[..., -1:]
    if documents is not None:
        last = last.expand(-1, len(documents), -1)
    numbers = last[0].expand(-1, length) if documents is None else documents.long()
    begins = numbers != torch.cat((last[0], numbers[:, :-1]), dim=1)
    index = torch.arange(length, device=device)
    start = torch.where(begins, index, -1 - last[2]).cummax(dim=1).values
    return torch.stack((numbers, last[1] + begins.cumsum(1), index - start))


sinks = Choice(
    kind=Sinks,
    sizes=("sinks",),
    defaults=lambda width, heads, block: [
        ("sinks", PUBLISHED, "as published, so many suffice"),
        ("window", max(1, block // 4), "a quarter of the block, so that most tokens see sinks and window only"),
    ],
)
