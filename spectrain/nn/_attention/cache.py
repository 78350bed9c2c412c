"""What decoding keeps of the tokens it has seen."""

import torch
from torch import Tensor


class Cache:
    """Tensors of seen tokens, ``(batch, heads, tokens, numbers)`` each, that grow at their end.

    Room doubles when it is used up, so that a token costs no copy of all before it. ``seen`` counts all tokens, also
    those that a window has let go of; ``stored`` those that are still held. With ``by_coordinate`` the first tensor,
    the keys, is held in float32 on a processor with its tokens side by side, a row for each number: where each head
    has keys of its own, one query reads them faster so (:func:`spectrain.nn._attention.fused.fused`).
    """

    def __init__(self, *, by_coordinate: bool = False) -> None:
        self.seen = 0
        self.by_coordinate = by_coordinate
        self.stored = 0
        self._room: list[Tensor] = []
        self._documents: Tensor | None = None

    def append(self, parts: tuple[Tensor, ...], *, window: int | None = None) -> tuple[Tensor, ...]:
        """Add tokens; return all that are held. Without gradient what is returned are views of one room.

        Of tokens that no later query sees through ``window``, half a window may be held on, never more than needed
        for appending to stay cheap.
        """
        if not self._room:
            self._room = [self._new_room(i, part, 0) for i, part in enumerate(parts)]
        if parts[0].shape[0] != self._room[0].shape[0]:
            raise ValueError(
                f"Cache: it holds a batch of {self._room[0].shape[0]}, got {parts[0].shape[0]} sequences; "
                "begin a new cache for another batch."
            )
        self._forget(window)
        new = parts[0].shape[2]
        if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
            self._room = [torch.cat((r[:, :, : self.stored], p), dim=2) for r, p in zip(self._room, parts, strict=True)]
        else:
            self._make_room(self.stored + new)
            for room, part in zip(self._room, parts, strict=True):
                room.narrow(2, self.stored, new).copy_(part)
        self.stored += new
        self.seen += new
        return tuple([room.narrow(2, 0, self.stored) for room in self._room])

    @property
    def numbers_per_token(self) -> int:
        """Numbers held for each token of a sequence."""
        return sum(room.shape[1] * room.shape[3] for room in self._room)

    def documents(self, new: Tensor | None, *, batch: int, length: int) -> Tensor | None:
        """Document numbers of all tokens held, after ``append``; None where none were ever given, which means one."""
        if new is None and self._documents is None:
            return None
        if new is None:
            assert self._documents is not None  # a continuation belongs to the document before it
            new = self._documents[:, -1:].expand(batch, length)
        if self._documents is None:
            self._documents = new.new_zeros(batch, self.stored - length)
        self._documents = torch.cat((self._documents, new), dim=1)[:, -self.stored :]
        return self._documents

    def _forget(self, window: int | None) -> None:
        if window is not None and self.stored > 2 * window:
            self._room = [room[:, :, self.stored - window : self.stored].clone() for room in self._room]
            self.stored = window

    def _make_room(self, tokens: int) -> None:
        room = self._room[0].shape[2]
        if tokens <= room:
            return
        for i, old in enumerate(self._room):
            grown = self._new_room(i, old, max(tokens, 2 * room))
            grown[:, :, : self.stored] = old[:, :, : self.stored].detach()
            self._room[i] = grown

    def _new_room(self, i: int, like: Tensor, tokens: int) -> Tensor:
        batch, heads, _, numbers = like.shape
        if i == 0 and self.by_coordinate and like.is_cpu and like.dtype == torch.float32:
            return like.new_empty(batch, heads, numbers, tokens).mT
        return like.new_empty(batch, heads, tokens, numbers)
