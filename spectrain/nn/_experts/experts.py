"""Experts: gated feed-forward blocks of one shape, stacked and computed together."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spectrain.nn._experts import products
from spectrain.nn._experts.sum import experts_sum


class Experts(nn.Module):
    """``count`` SwiGLU blocks, expert e being ``down[e] @ (silu(gate[e] @ x) * (up[e] @ x))``.

    Weights are stacked as ``(count, out, in)`` and say so to an optimizer in ``logical_matrices``. ``normalised``
    divides each expert's output by its root mean square, so that the expert gives a direction and its weight the length
    (article 10699, kexue.fm/archives/10699).

    >>> experts = Experts(4, width=8, hidden=16)
    >>> experts.initialise(generator=torch.Generator().manual_seed(0))
    >>> chosen = torch.tensor([[True, False, False, True]])
    >>> experts(torch.ones(1, 8), chosen, torch.ones(1, 4)).shape
    torch.Size([1, 8])
    >>> experts
    Experts(4, width=8, hidden=16, products=grouped_mm)
    """

    logical_matrices: ClassVar[dict[str, dict[str, Any]]] = {name: {"batch": 1} for name in ("gate", "up", "down")}

    def __init__(self, count: int, *, width: int, hidden: int, normalised: bool = False) -> None:
        super().__init__()
        self.normalised = normalised
        self.gate = nn.Parameter(torch.empty(count, hidden, width))
        self.up = nn.Parameter(torch.empty(count, hidden, width))
        self.down = nn.Parameter(torch.empty(count, width, hidden))

    def forward(
        self,
        x: Float[Tensor, "tokens width"],
        chosen: Bool[Tensor, "tokens count"],
        weights: Float[Tensor, "tokens count"],
        *,
        pairs: int | None = None,
    ) -> Float[Tensor, "tokens width"]:
        """Sum, for each token, its chosen experts' outputs times their weights.

        Pairs of token and expert are laid out expert by expert, so that each expert multiplies a block of rows;
        ``pairs`` is their number where it is known beforehand, so that shapes do not depend on values.
        Cost: ``6 width hidden`` multiply-adds a pair; memory for the backward pass: ``2 hidden`` numbers a pair.
        """
        return self.mix(x, chosen, weights, (self.gate, self.up, self.down), pairs=pairs)

    def mix(
        self,
        x: Float[Tensor, "tokens width"],
        chosen: Bool[Tensor, "tokens count"],
        weights: Float[Tensor, "tokens count"],
        matrices: tuple[Tensor, Tensor, Tensor],
        *,
        pairs: int | None = None,
    ) -> Float[Tensor, "tokens width"]:
        """The same by the gate, up and down matrices of ``count`` experts that are given, as of one rank of several."""
        gate, up, down = matrices
        by_expert = chosen.T.reshape(-1)
        size = int(by_expert.sum()) if pairs is None else pairs
        pair = torch.nonzero_static(by_expert, size=size).squeeze(1)
        dtype = self._dtype(x)
        weight = weights.T.reshape(-1).index_select(0, pair).unsqueeze(1).to(dtype)
        ends = chosen.sum(dim=0).cumsum(dim=0)
        both = torch.cat((gate.to(dtype), up.to(dtype)), dim=1)
        return experts_sum(x.to(dtype), pair % len(x), weight, ends, both, down.to(dtype), normalised=self.normalised)

    def _dtype(self, x: Tensor) -> torch.dtype:
        """What autocast asks for, since products of our own are unknown to it; else that of the input."""
        if torch.is_autocast_enabled(x.device.type):
            return torch.get_autocast_dtype(x.device.type)
        return x.dtype

    @torch.no_grad()
    def initialise(self, *, generator: torch.Generator) -> None:
        """Draw the weights as those of :class:`SwiGLU`: ``down`` zero, unless outputs are normalised."""
        for matrix in (self.gate, self.up):
            nn.init.normal_(matrix, std=matrix.shape[2] ** -0.5, generator=generator)
        if self.normalised:  # a direction has no derivative at zero
            nn.init.normal_(self.down, std=self.down.shape[2] ** -0.5, generator=generator)
        else:
            nn.init.zeros_(self.down)

    def __repr__(self) -> str:
        count, hidden, width = self.gate.shape
        path = products.path(self.gate.dtype, width, hidden)
        return f"Experts({count}, width={width}, hidden={hidden}, products={path})"
