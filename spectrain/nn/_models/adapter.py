"""Low-rank adapters beside frozen linear layers (LoRA: Hu and others, arXiv 2106.09685)."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spectrain._arrays.generators import Generator, fresh_generator
from spectrain.nn._numbers import check_sizes


class AdaptedLinear(nn.Linear):
    """``W x + b + (alpha / rank) B A x``: W and b are those of ``base`` and frozen; A and B are trained.

    A is rank x in, drawn evenly from +-1 / sqrt(in); B is out x rank and zero, so the function is that of ``base``.
    Cost beyond the layer: ``rank * (in + out)`` multiply-adds a row. ValueError for a rank below 1.

    >>> base = nn.Linear(4, 3)
    >>> layer = AdaptedLinear(base, rank=2, alpha=4.0, generator=0)
    >>> torch.equal(layer(torch.ones(4)), base(torch.ones(4)))
    True
    """

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float, generator: Generator) -> None:
        nn.Module.__init__(self)  # that of nn.Linear would draw a weight
        check_sizes("AdaptedLinear", rank=rank)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.rank, self.alpha = rank, alpha
        base.requires_grad_(False)
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(base, name))
        like = {"device": base.weight.device, "dtype": base.weight.dtype, "bias": False}
        self.lora_A = nn.utils.skip_init(nn.Linear, base.in_features, rank, **like)
        self.lora_B = nn.utils.skip_init(nn.Linear, rank, base.out_features, **like)
        bound = base.in_features**-0.5
        nn.init.uniform_(self.lora_A.weight, -bound, bound, generator=fresh_generator(generator, "AdaptedLinear"))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Apply the layer and its adapter."""
        added: Tensor = self.lora_B(self.lora_A(x))
        return F.linear(x, self.weight, self.bias) + (self.alpha / self.rank) * added

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer of the same function, formed in float64: W + (alpha / rank) B A."""
        plain = nn.utils.skip_init(
            nn.Linear, self.in_features, self.out_features, bias=self.bias is not None, dtype=self.weight.dtype
        )
        change = self.lora_B.weight.double() @ self.lora_A.weight.double()
        plain.weight.copy_(self.weight.double() + (self.alpha / self.rank) * change)
        if self.bias is not None:
            plain.bias.copy_(self.bias)
        return plain.to(self.weight.device)


def adapt(
    model: nn.Module,
    *,
    rank: int,
    alpha: float | None = None,
    layers: Sequence[str] | None = None,
    generator: Generator = None,
) -> list[str]:
    """Freeze ``model`` and put adapters beside the linear layers in its ``blocks``; their names.

    ``alpha`` is the rank unless given. ``layers`` are the last names of those to be adapted (``"query"``, ``"up"``);
    without it all are. ValueError for a name that no layer has, and for a model that has adapters.

    >>> from spectrain.nn import LanguageModel
    >>> model = LanguageModel(vocabulary=10, width=8, depth=1, heads=2, generator=0)
    >>> adapt(model, rank=2, layers=["query", "value"], generator=0)
    ['blocks.0.attention.query', 'blocks.0.attention.value']
    >>> [name for name, p in model.named_parameters() if p.requires_grad][0]
    'blocks.0.attention.query.lora_A.weight'
    """
    found = [(name, layer) for name, layer in model.named_modules() if name.startswith("blocks.") and _is_linear(layer)]
    if any(isinstance(layer, AdaptedLinear) for layer in model.modules()):
        raise ValueError("adapt: the model has adapters; merge them first.")
    known = {_last(name): None for name, _ in found}
    if odd := [name for name in layers or () if name not in known]:
        raise ValueError(f"adapt: no linear layer of a block is called {odd[0]!r}; there are {', '.join(known)}.")
    draw = fresh_generator(generator, "adapt")
    model.requires_grad_(False)
    names = [name for name, _ in found if layers is None or _last(name) in layers]
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        model.set_submodule(name, AdaptedLinear(layer, rank=rank, alpha=alpha or float(rank), generator=draw))
    return names


def merge(model: nn.Module) -> nn.Module:
    """Put plain layers of the same function, to be trained, in the places of adapted ones; return the model.

    >>> from spectrain.nn import LanguageModel
    >>> model = LanguageModel(vocabulary=10, width=8, depth=1, heads=2, generator=0)
    >>> _ = adapt(model, rank=2, generator=0)
    >>> sum(1 for name, _ in merge(model).named_parameters() if "lora" in name)
    0
    """
    for name, layer in list(adapted(model)):
        model.set_submodule(name, layer.merged())
    return model


def adapted(model: nn.Module) -> Iterator[tuple[str, AdaptedLinear]]:
    """The adapted layers by name."""
    yield from ((name, layer) for name, layer in model.named_modules() if isinstance(layer, AdaptedLinear))


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
