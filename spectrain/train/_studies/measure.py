"""Real steps of one member of a family, and the sizes of what must not change with its width."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from spectrain import nn, optim

Row = dict[str, Any]
KEPT = 256
"""Rows of each output that are kept from the start, to see by how much they change."""


class Member(NamedTuple):
    """A model at its initial weights, its optimizer, ``backward(i)`` for the gradients of batch i, and its roles."""

    model: torch.nn.Module
    optimizer: Optimizer
    backward: Callable[[int], object]
    parts: optim.Parametrisation


def measure(member: Member, *, steps: int) -> list[Row]:
    """Take ``steps`` steps; return a row of ``kind``, ``name``, ``role`` and ``value`` for each size.

    Kinds: ``start`` and ``activation``, the mean absolute output of each module that holds parameters on batch 0,
    before and after the steps; ``change``, the mean absolute difference of the two on the first rows; ``logits``, what
    attention's logits can reach, rms(q) rms(k) head_dim scale; ``weight`` and ``update``, the size of a matrix and of
    a step over sqrt(out / in); ``decay``, the share of a weight that a step takes. Values at several steps are
    geometric means. Cost: the steps, and an SVD of each hidden matrix a step.
    """
    roles = {part.name: part for part in member.parts.parts}
    rows = _decay(member, roles)
    rows += [_row("weight", part, size(part.param.detach(), part)) for part in roles.values() if part.role != "vector"]
    before, kept = _look(member)
    rows += [{**row, "kind": "start"} for row in before if row["kind"] == "activation"]
    rows += _steps(member, roles, steps)
    after, now = _look(member)
    changes = {name: float((now[name] - x).abs().mean()) for name, x in kept.items()}
    rows += after + [{"kind": "change", "name": name, "value": value} for name, value in changes.items()]
    member.optimizer.zero_grad()
    return rows


def _row(kind: str, part: Any, value: float) -> Row:
    return {"kind": kind, "name": part.name, "role": part.role, "value": value}


def size(matrix: Tensor, part: Any) -> float:
    """The size of a matrix of a part over sqrt(out / in): 1 where it keeps the rms of what it is multiplied with.

    Hidden: the spectral norm, of the largest of stacked matrices. Where one side is of fixed size, rank and so the
    ratio of Frobenius and spectral norm are bounded, and the former over the root of that side has no drift at small
    widths. A vector: its rms.
    """
    if part.role == "vector":
        return float(matrix.square().mean().sqrt())
    if part.role == "hidden" and part.matrix is not None:
        views = part.matrix.views(matrix.contiguous())
        return max(_norm(view) / math.sqrt(view.shape[0] / view.shape[1]) for view in views)
    rows = part.in_ == 1 or part.matrix is None
    return float(matrix.square().mean().sqrt()) * (1.0 if rows and part.role != "output" else _fixed(part))


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.float(), ord=2))


def _fixed(part: Any) -> float:
    """The Frobenius norm of entries of 1, over sqrt(fixed side) and sqrt(out / in)."""
    fixed = part.out if part.role == "output" else part.in_
    return math.sqrt(part.out * part.in_ / fixed) / math.sqrt(part.out / part.in_)


def _look(member: Member) -> tuple[list[Row], dict[str, Tensor]]:
    """Mean absolute outputs on batch 0, and the first rows of each."""
    names = [
        name for name, module in member.model.named_modules() if name and any(True for _ in module.parameters(False))
    ]
    kept: dict[str, Tensor] = {}
    with ExitStack() as stack:
        seen = stack.enter_context(nn.activations.statistics(member.model, names, gram_limit=0))
        outputs = stack.enter_context(nn.capture(member.model, names, last=1))
        reach = stack.enter_context(_logits(member.model))
        member.backward(0)
    for name, found in outputs.items():
        kept[name] = found[-1].flatten(0, -2)[:KEPT].float().clone()
    rows: list[Row] = [{"kind": "activation", "name": n, "value": s.mean_absolute} for n, s in seen.items()]
    return rows + [{"kind": "logits", "name": name, "value": value()} for name, value in reach.items()], kept


@contextmanager
def _logits(model: torch.nn.Module) -> Iterator[dict[str, Callable[[], float]]]:
    """What the logits of each attention module with visible queries and keys, and a ``scale``, can reach."""
    modules = dict(model.named_modules())
    found = [
        name
        for name, module in modules.items()
        if isinstance(getattr(module, "scale", None), float) and {f"{name}.queries", f"{name}.keys"} <= modules.keys()
    ]
    if not found:
        yield {}
        return
    with nn.activations.statistics(model, [f"{n}.{part}" for n in found for part in ("queries", "keys")]) as seen:

        def reach(name: str) -> float:
            queries, keys = seen[f"{name}.queries"], seen[f"{name}.keys"]
            return queries.rms * keys.rms * len(queries.singular_values()) * float(modules[name].scale)

        yield {name: partial(reach, name) for name in found}


def _steps(member: Member, roles: dict[str, Any], steps: int) -> list[Row]:
    """The sizes of all updates, as geometric means over the steps."""
    logs: dict[str, list[float]] = {name: [] for name in roles}
    for i in range(steps):
        before = {name: part.param.detach().clone() for name, part in roles.items()}
        member.optimizer.zero_grad()
        member.backward(i)
        member.optimizer.step()
        for name, part in roles.items():
            moved = size(part.param.detach() - before[name], part)
            if moved > 0:
                logs[name].append(math.log(moved))
    return [_row("update", roles[n], math.exp(sum(found) / len(found))) for n, found in logs.items() if found]


def _decay(member: Member, roles: dict[str, Any]) -> list[Row]:
    """The share that a step with zero gradients takes, seen on a copy: weight decay as it acts, whatever its kind."""
    model, optimizer = copy.deepcopy((member.model, member.optimizer))
    params = dict(model.named_parameters())
    for p in params.values():
        p.grad = torch.zeros_like(p)
    before = {name: params[name].detach().clone() for name in roles if name in params}
    optimizer.step()
    rows = []
    for name, old in before.items():
        whole = float(old.double().square().sum())
        if whole > 0:
            left = float((params[name].detach().double() * old.double()).sum())
            rows.append(_row("decay", roles[name], max(0.0, 1 - left / whole)))
    return rows
