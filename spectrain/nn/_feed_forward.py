"""The gated feed-forward block."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.nn._numbers import check_sizes


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))``, without biases.

    Cost: ``6 * width * hidden`` multiply-adds a token, forward. Source: Shazeer, GLU variants improve
    transformers, arXiv 2002.05202.

    >>> import torch
    >>> SwiGLU(8, hidden=16)(torch.zeros(2, 3, 8)).abs().sum().item()
    0.0
    """

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        check_sizes("SwiGLU", width=width, hidden=hidden)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Apply the block to the last dimension."""
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out

    @torch.no_grad()
    def initialise(self, *, generator: torch.Generator) -> None:
        """Draw the weights: normal of standard deviation ``1 / sqrt(fan_in)``, ``down`` zero."""
        for reader in (self.gate, self.up):
            nn.init.normal_(reader.weight, std=reader.in_features**-0.5, generator=generator)
        nn.init.zeros_(self.down.weight)
