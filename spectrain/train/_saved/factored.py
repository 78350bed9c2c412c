"""Linear layers in few parameters, and a model brought into the shape of its compressed self."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain import lowrank


class Factored(nn.Module):
    """``up(down(x))``: a linear layer of rank ``rank``, with rank (in + out) weights.

    >>> Factored(8, 6, rank=2)(torch.zeros(3, 8)).shape
    torch.Size([3, 6])
    """

    def __init__(self, inputs: int, outputs: int, *, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Apply both."""
        out: Tensor = self.up(self.down(x))
        return out


class Selected(nn.Module):
    """``take(x[indices])``: a linear layer that reads some of its inputs, with kept x out weights.

    >>> Selected(8, 6, kept=2)(torch.zeros(3, 8)).shape
    torch.Size([3, 6])
    """

    indices: Tensor

    def __init__(self, inputs: int, outputs: int, *, kept: int) -> None:
        super().__init__()
        self.register_buffer("indices", torch.arange(kept))
        self.take = nn.Linear(kept, outputs, bias=False)
        self.inputs = inputs

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Apply the layer to the chosen inputs."""
        out: Tensor = self.take(x[..., self.indices])
        return out


def restructure(model: nn.Module, shapes: Mapping[str, Mapping[str, int]]) -> None:
    """Give the named linear layers of ``model`` their compressed form, at weights that are still to be loaded.

    ``shapes`` is what ``factors.json`` holds: for each layer ``{"rank": r}``, ``{"kept": k}``, or ``{"inputs": i,
    "outputs": o}`` for a dense layer of another size. Raises ValueError for a layer that is not there.
    """
    for name, shape in shapes.items():
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            raise ValueError(f"factors.json names {name!r}, and the model has no such layer.") from None
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"factors.json names {name!r}, which is a {type(layer).__name__} and no linear layer.")
        replace(model, name, _empty(layer, shape))


def replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` in the place of the submodule ``name``."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)


def _empty(layer: nn.Linear, shape: Mapping[str, int]) -> nn.Module:
    inputs, outputs = layer.in_features, layer.out_features
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation would draw from the global generator
        if "rank" in shape:
            return Factored(inputs, outputs, rank=shape["rank"])
        if "kept" in shape:
            return Selected(inputs, outputs, kept=shape["kept"])
        return nn.Linear(shape["inputs"], shape["outputs"], bias=False)


class Adapter(nn.Module):
    """A frozen linear layer and a trainable correction of low rank beside it: ``base(x) + up(down(x))``."""

    def __init__(self, base: nn.Linear, correction: Factored) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.correction = correction

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Apply both."""
        out: Tensor = self.base(x) + self.correction(x)
        return out


def principal_adapter(layer: nn.Linear, *, rank: int) -> Adapter:
    """Split a linear layer into its ``rank`` leading singular directions, to be trained, and the frozen rest.

    W = up down + rest with up = U sqrt(S), down = sqrt(S) Vh: the layer's function does not change, and training moves
    the directions that carry most of it (PiSSA: Meng, Wang and Zhang, arXiv 2404.02948). LoRA begins with zero instead.

    >>> layer = nn.Linear(6, 4, bias=False)
    >>> x = torch.ones(2, 6)
    >>> torch.allclose(principal_adapter(layer, rank=2)(x), layer(x), atol=1e-6)
    True
    """
    W = layer.weight.detach()
    U, S, Vh = lowrank.svd(W, rank=rank)
    with torch.random.fork_rng(devices=[]):
        correction = Factored(layer.in_features, layer.out_features, rank=rank).to(W)
        rest = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None).to(W)
    with torch.no_grad():
        correction.up.weight.copy_(U * S.sqrt())
        correction.down.weight.copy_(S.sqrt()[:, None] * Vh)
        rest.weight.copy_(W - (U * S) @ Vh)
        if layer.bias is not None:
            rest.bias.copy_(layer.bias)
    return Adapter(rest, correction)
