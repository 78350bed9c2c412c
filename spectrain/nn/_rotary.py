"""Rotary position embedding: positions as rotations of pairs of coordinates."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Rotary(nn.Module):
    r"""Rotate each pair ``(x_i, x_{i + d/2})`` of a head by the angle ``position / base^(2i/d)``.

    For queries and keys turned this way, ``q_m . k_n`` depends on positions only through
    ``m - n``. Shapes: ``(..., length, dim)`` in and out; the output keeps the input's dtype, the
    angles are computed in float32.

    Source: Su et al., RoFormer, arXiv 2104.09864 (kexue.fm/archives/8265).

    >>> x = torch.randn(2, 5, 8)
    >>> y = Rotary(8)(x)
    >>> torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))    # rotations keep lengths
    >>> torch.testing.assert_close(y[:, 0], x[:, 0])                  # position 0 is left alone
    """

    inverse_period: Tensor

    def __init__(self, dim: int, *, base: float = 10_000.0) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"Rotary turns pairs of coordinates, so dim must be even, got {dim}.")
        exponent = torch.arange(0, dim, 2, dtype=torch.float32) / dim
        self.register_buffer("inverse_period", base**-exponent, persistent=False)

    def forward(self, x: Float[Tensor, "*batch length dim"], *, start: int = 0) -> Float[Tensor, "*batch length dim"]:
        """Rotate ``x``, whose first row stands at position ``start``."""
        positions = torch.arange(start, start + x.shape[-2], device=x.device, dtype=torch.float32)
        angle = torch.outer(positions, self.inverse_period)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
