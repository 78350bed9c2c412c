"""What is made smaller as a whole, and how small each is to become."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from spectrain.train._compress import one_layer as factors
from spectrain.train._compress.one_layer import Seen
from spectrain.train._saved.factored import Factored, Selected

Method: TypeAlias = Literal["svd", "id", "cur", "cr"]
Parts: TypeAlias = dict[str, nn.Module]
"""What stands in the place of which layer, by name."""


@dataclass(frozen=True)
class Unit:
    """One linear layer with its rank, or a gated block with its number of neurons.

    ``make(size)`` returns what replaces its layers, and the relative error of what it writes on calibration text.
    """

    name: str
    layers: dict[str, nn.Linear]
    spectrum: Tensor  # singular values of the outputs
    most: int  # the largest size that saves anything
    each: int  # weights of one rank or neuron
    make: Callable[[int], tuple[Parts, float]]

    @property
    def parameters(self) -> int:
        """Weights of the unit as it is."""
        return sum(layer.weight.numel() for layer in self.layers.values())


def units_of(model: nn.Module, seen: dict[str, Seen], method: Method) -> list[Unit]:
    """Split the layers that were watched into units: with ``id`` and ``cr`` gated blocks are cut by neurons."""
    blocks = {} if method in ("svd", "cur") else {n: m for n, m in model.named_modules() if _is_gated(m)}
    units = [_block(name, block, seen[f"{name}.down"], method) for name, block in blocks.items()]
    inside = {f"{name}.{part}" for name in blocks for part in ("gate", "up", "down")}
    for name, what in seen.items():
        layer = model.get_submodule(name)
        if name not in inside and isinstance(layer, nn.Linear) and min(layer.weight.shape) > 1:
            units.append(_layer(name, layer, what, method))
    return units


def _is_gated(module: nn.Module) -> bool:
    return all(isinstance(getattr(module, part, None), nn.Linear) for part in ("gate", "up", "down"))


def _layer(name: str, layer: nn.Linear, seen: Seen, method: Method) -> Unit:
    W = layer.weight.detach()
    outputs, inputs = W.shape
    by = {"svd": factors.by_svd, "id": factors.by_id, "cur": factors.by_cur, "cr": factors.by_cr}[method]

    def make(size: int) -> tuple[Parts, float]:
        made = by(layer, seen, size)
        return {name: made}, seen.error(W, _weight(made, W))

    each = outputs if method == "cr" else inputs + outputs
    most = min((W.numel() - 1) // each, inputs, outputs if method != "cr" else inputs)
    return Unit(name, {name: layer}, factors.output_spectrum(layer, seen), most, each, make)


def _weight(made: nn.Module, W: Tensor) -> Tensor:
    """Return the dense matrix that a replacement stands for."""
    if isinstance(made, Factored):
        return made.up.weight.detach() @ made.down.weight.detach()
    assert isinstance(made, Selected)
    return torch.zeros_like(W).index_copy(1, made.indices, made.take.weight.detach())


def _block(name: str, block: nn.Module, seen: Seen, method: Method) -> Unit:
    layers = {f"{name}.{part}": getattr(block, part) for part in ("gate", "up", "down")}
    gate, up, down = layers.values()

    def make(size: int) -> tuple[Parts, float]:
        S, D = factors.neurons(down, seen, size, method=method)
        parts = (gate.weight[S], up.weight[S], D)
        V = torch.zeros_like(down.weight, dtype=torch.float64).index_copy(1, S, D)
        error = seen.error(down.weight.detach(), V)
        made = (factors.linear(weight.detach(), gate.weight) for weight in parts)
        return dict(zip(layers, made, strict=True)), error

    each = 2 * gate.in_features + down.out_features
    return Unit(name, layers, factors.output_spectrum(down, seen), down.in_features - 1, each, make)


def sizes(units: Sequence[Unit], *, params: float | None, rtol: float | None, shared: bool) -> list[int | None]:
    """Return the size of each unit, None for one that stays as it is.

    ``rtol``: the smallest with that relative error of what the unit writes, by bisection. ``params``: that share of the
    weights, the same of each unit; or, ``shared``, ranks one by one where they explain most of the output for their
    weights, as singular values say.
    """
    if rtol is not None:
        return [_smallest(unit, rtol) for unit in units]
    assert params is not None
    if shared:
        return _by_spectrum(units, params * sum(unit.parameters for unit in units))
    return [max(1, min(unit.most, math.floor(params * unit.parameters / unit.each))) for unit in units]


def _smallest(unit: Unit, rtol: float) -> int | None:
    if unit.make(unit.most)[1] > rtol:
        return None
    low, high = 0, unit.most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if unit.make(middle)[1] <= rtol else (middle, high)
    return high


def _by_spectrum(units: Sequence[Unit], budget: float) -> list[int | None]:
    """Give each unit one rank, then ranks by falling s^2 / (||S||^2 weights) as long as the budget lasts."""
    ranks = [1] * len(units)
    left = budget - sum(unit.each for unit in units)
    gains = []
    for i, unit in enumerate(units):
        share = unit.spectrum.square() / unit.spectrum.square().sum().clamp_min(1e-300) / unit.each
        gains += [(float(gain), i) for gain in share[1 : unit.most]]
    for _, i in sorted(gains, key=lambda pair: -pair[0]):
        if units[i].each > left:
            continue
        ranks[i] += 1
        left -= units[i].each
    return list(ranks)
