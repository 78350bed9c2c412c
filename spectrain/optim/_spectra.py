"""What the matrices look like: singular values of weight, momentum and update."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from spectrain.optim._layout.held import Here
from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._layout.spread import whole
from spectrain.optim._routing.explain import Row
from spectrain.optim._routing.route import divide
from spectrain.optim._step.bound import target
from spectrain.optim._step.settings import Settings
from spectrain.optim._step.update import updates_here
from spectrain.optim._variants.variant import Turn

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class Move(NamedTuple):
    """What the last step did to one parameter; ``polar_error`` only where msign was used."""

    momentum: Tensor
    update: Tensor
    polar_error: float | None


@torch.no_grad()
def spectra(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    names: Sequence[str] | None = None,
    rules: Mapping[str, Any] | None = None,
    heads: Sequence[str] | None = None,
    quantiles: Sequence[float | int] = QUANTILES,
) -> list[Row]:
    r"""Describe each matrix parameter that ``optimizer`` has moved: plain rows, ready for JSON.

    The matrices are those that ``Muon`` orthogonalises; for ``torch.optim.AdamW`` and ``Adam``, beside which one wants
    to see the same figures, those that ``route(model, rules=rules, heads=heads)`` would give to Muon. A row holds
    ``name``; ``quantiles``, the levels asked for; ``weight``, ``momentum`` and ``update``, the quantiles of the
    singular values of its logical matrices taken together; ``weight_stable_rank``, ``momentum_stable_rank`` and
    ``update_stable_rank``, ||X||_F^2 / ||X||_2^2, the mean over the matrices; ``weight_entropy`` and the others, the
    mean entropy of the squared singular values as shares of their sum, over log n: 1 where all n are alike (article
    10739, kexue.fm/archives/10739); ``weight_rms``, ``update_rms``; ``weight_norm_ratio``, the largest singular value
    over sqrt(out / in), the unit of Muon's ``bound``, of the matrix where that is most; ``update_to_weight`` =
    ||update||_F / ||weight||_F; and for Muon ``polar_error`` = ||msign - U V^T||_F / ||U V^T||_F of the msign in use (U
    V^T from an SVD in float64).

    ``update`` is what the last step subtracted, decay apart. Muon's Nesterov average needs the gradient of
    that step: call this before ``zero_grad``; afterwards the momentum itself stands in for the average.
    Cost: four singular value decompositions and one msign a matrix; nothing is changed. Sharded parameters are
    gathered one after the other: every rank calls it. FloatingPointError for what is not finite, by name.

    >>> from spectrain.optim import Muon
    >>> model = nn.Linear(3, 3, bias=False)
    >>> optimizer = Muon(model, lr=0.1, scale="none", compute_dtype="float32")
    >>> model.weight.grad = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    >>> optimizer.step()
    >>> row, = spectra(model, optimizer)
    >>> row["name"], round(row["update"][0], 2), round(row["momentum_stable_rank"], 3)
    ('weight', 0.1, 1.556)
    """
    return [
        _row(name, whole(p), Settings.of(group).matrix, move, list(quantiles))
        for name, p, group in _matrices(model, optimizer, {"rules": rules, "heads": heads})
        if (names is None or name in names) and (move := _move(p, group, _whole_state(optimizer, p)))
    ]


def _matrices(
    model: nn.Module, optimizer: Optimizer, said: dict[str, Any]
) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
    """Name, parameter and group of every matrix; another optimizer gets the layouts of ``route``."""
    owner = {p: group for group in optimizer.param_groups for p in group["params"]}
    names = {p: name for name, p in model.named_parameters()}
    if all("algorithm" in group for group in optimizer.param_groups):
        yield from ((names[p], p, group) for p, group in owner.items() if group["algorithm"] == "muon" and p in names)
        return
    for routed in divide(model, **said)[0]:
        if routed["algorithm"] == "muon":
            yield from (
                (name, p, {**owner[p], "matrix": routed["matrix"]}) for name, p in routed["params"] if p in owner
            )


def _whole_state(optimizer: Optimizer, p: Tensor) -> dict[str, Any]:
    return {key: whole(value) for key, value in optimizer.state.get(p, {}).items()}


def _move(p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Move | None:
    """The last step of one parameter, from the optimizer's state; None where there was none."""
    if "exp_avg" in state:
        return Move(state["exp_avg"], _adam_update(group, state), None)
    if "momentum_buffer" not in state:
        return None
    momentum, settings = state["momentum_buffer"], Settings.of(group)
    average = momentum
    if settings.nesterov and p.grad is not None:
        average = torch.lerp(whole(p.grad).to(momentum.dtype), momentum, settings.momentum)
    variant, held = settings.rule, Here([settings.matrix], [p.shape])
    if variant.before is not None:
        (average,) = variant.before(Turn(held, [average], [], [state], [settings.beta2], advance=False))
    (sign,) = updates_here([average], [replace(settings, scale="none")])
    (scaled,) = updates_here([average], [settings])
    if variant.after is not None:
        variant.after(Turn(held, [scaled], [], [state], [settings.beta2], advance=False))
    layout = settings.matrix
    error = _polar_error(layout.views(average.contiguous()), layout.views(sign.contiguous()))
    return Move(momentum, scaled * float(settings.lr), error)


def _adam_update(group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    """The last update of torch's Adam and AdamW."""
    beta1, beta2 = group["betas"]
    count = float(state["step"])
    mean = state["exp_avg"] / (1 - beta1**count)
    scale = (state["exp_avg_sq"] / (1 - beta2**count)).sqrt() + group["eps"]
    update: Tensor = float(group["lr"]) * mean / scale
    return update


def _row(name: str, p: Tensor, layout: Matrix, move: Move, quantiles: list[float | int]) -> Row:
    row: Row = {"name": name, "quantiles": quantiles}
    for kind, tensor in (("weight", p), ("momentum", move.momentum), ("update", move.update)):
        if not bool(tensor.isfinite().all()):
            wrong = int((~tensor.isfinite()).sum())
            raise FloatingPointError(f"{kind} {name} is not finite at {wrong} of {tensor.numel()} entries")
        values = [torch.linalg.svdvals(m.to(torch.float64)) for m in layout.views(tensor.contiguous())]
        squares = torch.stack([s.square().sum() for s in values])
        tops = torch.stack([s[0] for s in values]).square()
        points = torch.tensor(quantiles, dtype=torch.float64, device=tops.device)
        row[kind] = torch.quantile(torch.cat(values), points).tolist()
        row[f"{kind}_stable_rank"] = float(torch.where(tops > 0, squares / tops, 0.0).mean())
        row[f"{kind}_entropy"] = sum(map(_entropy, values)) / len(values)
        row[f"{kind}_rms"] = float((squares.sum() / tensor.numel()).sqrt())
        if kind == "weight":
            units = [target(1.0, *shape) for shape in layout.shapes(p.shape)]
            row["weight_norm_ratio"] = max(float(s[0]) / unit for s, unit in zip(values, units, strict=True))
    row["update_to_weight"] = row["update_rms"] / row["weight_rms"] if row["weight_rms"] else None
    return row if move.polar_error is None else {**row, "polar_error": move.polar_error}


def _entropy(values: Tensor) -> float:
    """Of the shares of squared singular values, over its most; 1 of a single one, 0 of zeros."""
    total = values.square().sum()
    if len(values) == 1 or not total:
        return float(total > 0)
    shares = values.square() / total
    return float(torch.special.entr(shares).sum()) / math.log(len(values))


def _polar_error(arguments: list[Tensor], signs: list[Tensor]) -> float:
    """Relative Frobenius error of msign over several matrices; 0 for zero matrices."""
    error, size = 0.0, 0.0
    for argument, sign in zip(arguments, signs, strict=True):
        U, S, Vh = torch.linalg.svd(argument.to(torch.float64), full_matrices=False)
        kept = (S[0] * max(argument.shape) * torch.finfo(argument.dtype).eps < S).to(S.dtype)
        error += float((sign.to(torch.float64) - (U * kept) @ Vh).square().sum())
        size += float(kept.sum())
    return (error / size) ** 0.5 if size else 0.0
