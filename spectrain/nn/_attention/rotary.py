"""Rotary position embedding: positions as rotations of pairs of coordinates."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.nn._attention.scaling import Scaling
from spectrain.nn._eager import may_keep
from spectrain.nn._numbers import check_positive, check_sizes


class Turns:
    """Cosines and sines of positions, each ``(..., length, dim / 2)``."""

    def __init__(self, angle: Tensor) -> None:
        self.cos, self.sin = angle.cos(), angle.sin()
        self._factors: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What multiplies pairs ``(..., length, parts, 2, dim / 2)``, and what multiplies pairs the other way round."""
        if dtype not in self._factors:
            make = _lasting(_factors) if may_keep() and torch.is_inference_mode_enabled() else _factors
            self._factors[dtype] = make(self.cos, self.sin, dtype)
        return self._factors[dtype]


def _factors(cos: Tensor, sin: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    cos, sin = (t.to(dtype)[..., None, None, :] for t in (cos, sin))
    return cos, torch.cat((-sin, sin), dim=-2)


class Rotary(nn.Module):
    r"""Rotate each pair ``(x_i, x_{i + d/2})`` of a head by the angle ``position / base^(2i/d)``.

    For queries and keys turned this way, ``q_m . k_n`` depends on positions only through
    ``m - n``. Shapes: ``(..., length, dim)`` in and out; the output keeps the input's dtype. Angles
    are computed in float64 each time and are no buffer, so that a model moved to bfloat16 or made on
    the meta device turns by the same angles. ``parts`` splits the coordinates into so many heads side
    by side, each with all the frequencies. ``scaling`` changes the frequencies; its magnitude is not applied here.

    Raises ``ValueError`` for a ``dim`` that is no number of pairs, and a ``base`` that is not positive and finite.

    Source: Su et al., RoFormer, arXiv 2104.09864 (kexue.fm/archives/8265).

    >>> x = torch.randn(2, 5, 8)
    >>> y = Rotary(8)(x)
    >>> torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))    # rotations keep lengths
    >>> torch.testing.assert_close(y[:, 0], x[:, 0])                  # position 0 is left alone
    """

    def __init__(self, dim: int, *, base: float = 10_000.0, parts: int = 1, scaling: Scaling | None = None) -> None:
        super().__init__()
        check_sizes("Rotary", parts=parts)
        if dim < 0 or dim % (2 * parts):
            whole = "dim must be even" if parts == 1 else f"dim must be even and divide into {parts} parts"
            raise ValueError(f"Rotary turns pairs of coordinates, so {whole}, got {dim}.")
        check_positive("Rotary", base=base)
        self.dim, self.base, self.parts, self.scaling = dim, base, parts, scaling

    def turns(self, start: int, length: int, *, device: torch.device) -> Turns:
        """The rotations of ``length`` positions from ``start`` on, to be used for queries and keys alike."""
        if length > 1:
            return self.turns_at(torch.arange(start, start + length, device=device))
        find = _kept_turns if device.type == "cpu" and may_keep() else _turns
        return find(self.dim // self.parts, self.base, self.scaling, device, start)

    def turns_at(self, positions: Tensor) -> Turns:
        """The rotations of ``positions``, of any shape."""
        frequencies = self.frequencies(positions.device)
        return Turns(positions.to(frequencies.dtype).unsqueeze(-1) * frequencies)

    def frequencies(self, device: torch.device) -> Tensor:
        """Radians a position, one for each pair."""
        find = _kept if device.type == "cpu" and may_keep() else _frequencies
        return find(self.dim // self.parts, self.base, self.scaling, device)

    def turn(self, x: Tensor, turns: Turns, *, back: bool = False, fresh: bool = False) -> Tensor:
        """Rotate the last ``dim`` coordinates of ``x`` by ``turns``, or back, and leave those before alone.

        ``fresh`` says that nobody else holds ``x``: a single row may be turned in place.
        """
        if not self.dim:
            return x
        if x.shape[-2] == 1 and not torch.is_grad_enabled():
            return self._turn_row(x if fresh else x.clone(), turns, back=back)
        still, moving = x.split((x.shape[-1] - self.dim, self.dim), dim=-1)
        first, second = moving.unflatten(-1, (self.parts, 2, -1)).unbind(-2)
        cos, sin = (t.to(x.dtype).unsqueeze(-2) for t in (turns.cos, -turns.sin if back else turns.sin))
        turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-2).flatten(-3)
        return turned if still.shape[-1] == 0 else torch.cat((still, turned), dim=-1)

    def _turn_row(self, x: Tensor, turns: Turns, *, back: bool) -> Tensor:
        """In place, by a third of the operations, which are all that one row costs."""
        cos, sin = turns.factors(x.dtype)
        pairs = x.narrow(-1, x.shape[-1] - self.dim, self.dim).unflatten(-1, (self.parts, 2, -1))
        swapped = pairs.flip(-2)
        pairs.mul_(cos).addcmul_(swapped, sin, value=-1 if back else 1)
        return x

    def forward(self, x: Float[Tensor, "*batch length dim"], *, start: int = 0) -> Float[Tensor, "*batch length dim"]:
        """Rotate ``x``, whose first row stands at position ``start``."""
        return self.turn(x, self.turns(start, x.shape[-2], device=x.device))


def _frequencies(size: int, base: float, scaling: Scaling | None, device: torch.device) -> Tensor:
    wide = torch.float64 if device.type != "mps" else torch.float32
    exponent = torch.arange(0, size, 2, dtype=wide, device=device) / max(1, size)
    plain = base**-exponent
    return plain if scaling is None or not size else scaling.change(plain, base=base)


def _turns(size: int, base: float, scaling: Scaling | None, device: torch.device, start: int) -> Turns:
    find = _kept if device.type == "cpu" and may_keep() else _frequencies
    return Turns(find(size, base, scaling, device).unsqueeze(0) * start)


_lasting = torch.inference_mode(False)  # what is kept must serve in every mode
_kept = functools.lru_cache(maxsize=64)(_lasting(_frequencies))  # a token that is decoded would make them again,
_kept_turns = functools.lru_cache(maxsize=8)(_lasting(_turns))  # and their cosines, in every block
