"""The router of a mixture of experts: scores select, gates weigh, and the two may differ."""

import math
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spectrain.nn._modes import Activation, Select

ACTIVATIONS = ("softmax", "sigmoid", "relu")


class Routing(NamedTuple):
    """Where tokens go: one row a token, one column an expert."""

    logits: Float[Tensor, "tokens experts"]
    scores: Float[Tensor, "tokens experts"]
    """What selection compares, before the bias."""
    chosen: Bool[Tensor, "tokens experts"]
    weights: Float[Tensor, "tokens experts"]
    """Factor of each expert's output; zero where it is not chosen."""
    counted: Bool[Tensor, " tokens"] | None = None
    """Which tokens are any at all; None: all, without padding."""

    @property
    def sound(self) -> Bool[Tensor, " tokens"]:
        """Which tokens count: those with finite scores that are no padding. What others chose says nothing."""
        finite = self.scores.isfinite().all(dim=-1)
        return finite if self.counted is None else finite & self.counted

    @property
    def loads(self) -> Int[Tensor, " experts"]:
        """How many sound tokens each expert takes."""
        return (self.chosen & self.sound[:, None]).sum(dim=0)


class Router(nn.Module):
    """Scores ``selection(z / temperature)`` and gates ``activation(z / temperature)`` of logits ``z = x W^T``.

    Experts are chosen by ``score + bias``: the ``top_k`` largest, or all above zero (``select="threshold"``, article
    10815). The bias moves selection alone; weights come from the gates (article 10757). ``renormalise`` divides the
    gates of the chosen experts by their sum. Computed in float32 or wider, also under autocast.

    >>> router = Router(8, experts=4, top_k=2, activation="sigmoid")
    >>> router.initialise(generator=torch.Generator().manual_seed(0))
    >>> router(torch.ones(1, 8), torch.tensor([0.0, 9.0, 0.0, 9.0])).chosen.tolist()
    [[False, True, False, True]]
    """

    logical_matrices: ClassVar[dict[str, dict[str, Any]]] = {"weight": {}}
    width_roles: ClassVar[dict[str, str]] = {"weight": "output"}  # to a number of experts, which stays

    def __init__(
        self,
        width: int,
        *,
        experts: int,
        top_k: int,
        activation: Activation = "softmax",
        selection: Activation | None = None,
        select: Select = "top_k",
        temperature: float = 1.0,
        renormalise: bool = False,
    ) -> None:
        super().__init__()
        selection = activation if selection is None else selection
        for name, value in (("activation", activation), ("selection", selection)):
            if value not in ACTIVATIONS:
                raise ValueError(f"MoE: {name} must be one of {', '.join(ACTIVATIONS)}, got {value!r}.")
        if select not in ("top_k", "threshold"):
            raise ValueError(f"MoE: select must be 'top_k' or 'threshold', got {select!r}.")
        if not 1 <= top_k <= experts:
            raise ValueError(f"MoE: top_k must be from 1 to the number of experts, {experts}, got {top_k}.")
        if not 0 < temperature < math.inf:
            raise ValueError(f"MoE: temperature must be positive and finite, got {temperature}.")
        self.top_k, self.temperature, self.renormalise = top_k, temperature, renormalise
        self.activation, self.selection, self.select = activation, selection, select
        self.weight = nn.Parameter(torch.empty(experts, width))

    def forward(
        self,
        x: Float[Tensor, "tokens width"],
        bias: Float[Tensor, " experts"],
        *,
        counted: Bool[Tensor, " tokens"] | None = None,
    ) -> Routing:
        """Route each token; those that are not ``counted`` too, but nothing is learned from where they go."""
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            logits = x.to(dtype) @ self.weight.to(dtype).T
            gates = activate(logits / self.temperature, self.activation)
            scores = gates
            if self.selection != self.activation:
                scores = activate(logits / self.temperature, self.selection)
            chosen = self.choose((scores + bias.to(dtype)).detach())
            weights = gates * chosen
            if self.renormalise:
                weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
        return Routing(logits, scores, chosen, weights, counted)

    def choose(self, biased: Float[Tensor, "tokens experts"]) -> Bool[Tensor, "tokens experts"]:
        """Which experts each token takes."""
        if self.select == "threshold":
            return biased > 0
        best = biased.topk(self.top_k, dim=-1, sorted=False).indices
        return torch.zeros_like(biased, dtype=torch.bool).scatter_(-1, best, True)

    def initial_bias(self, *, deviation: float = 1.0, share: float | None = None) -> float:
        """The bias an expert starts from: 0 for top-k; for a threshold, minus the score that k of n exceed.

        An expert that is to take the ``share`` of all assignments (None: 1 / n) takes k times that of the tokens.

        Logits are taken as normal of mean 0 and ``deviation``: ``-selection(deviation * Phi^-1(1 - k / n))``, the
        denominator of softmax from the quantiles at ``i / (n + 1)`` (article 11626, kexue.fm/archives/11626).

        >>> Router(8, experts=4, top_k=2, activation="sigmoid", select="threshold").initial_bias()
        -0.5
        """
        if self.select == "top_k":
            return 0.0
        n = len(self.weight)
        quantiles = [
            1 - self.top_k * (1 / n if share is None else share),
            *((n + 1 - i) / (n + 1) for i in range(1, n + 1)),
        ]
        logits = torch.special.ndtri(torch.tensor(quantiles, dtype=torch.float64)) * deviation / self.temperature
        if self.selection == "softmax":
            return -float(logits[0].exp() / logits[1:].exp().sum())
        return -float(activate(logits[:1], self.selection))

    @torch.no_grad()
    def initialise(self, *, generator: torch.Generator) -> None:
        """Draw the weights: normal of standard deviation ``1 / sqrt(width)``, so that logits have about 1."""
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5, generator=generator)

    def extra_repr(self) -> str:
        """What is chosen and how."""
        experts, width = self.weight.shape
        return f"{width}, experts={experts}, {self.select}, k={self.top_k}, {self.selection} -> {self.activation}"


def activate(logits: Tensor, activation: str) -> Tensor:
    """Apply a router's activation over the last dimension."""
    if activation == "softmax":
        return logits.softmax(dim=-1)
    return logits.sigmoid() if activation == "sigmoid" else logits.relu()
