"""What a step does to matrices, and to what moves entry by entry or row by row, here or with other ranks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectrain.optim._layout.held import unit_rows
from spectrain.optim._ranks.over import after, before, leading_parts_over, shares, updates_over
from spectrain.optim._ranks.teams import Company
from spectrain.optim._ranks.written import check_updates
from spectrain.optim._step.portions import Live
from spectrain.optim._step.squares import limit_squares
from spectrain.optim._step.update import apply, momentum_average

States = list[dict[str, Any]]


def move_matrices(live: Sequence[Live], states: Sequence[States], company: Company | None) -> None:
    """Move matrices, with msign of as many as possible in one call; nothing is written where an update has no sense."""
    names = [name for part in live for name in part.names]
    params = [p for part in live for p in part.params]
    settings = [part.settings for part in live for _ in part.params]
    plans = [] if company is None else company.plans(names, params, settings)
    found, of_all = shares(settings, params, plans), [state for own in states for state in own]
    averages, grads = _averages(live, states)
    directions = before(found, averages, grads, of_all, settings)
    updates, trouble = updates_over(names, directions, settings, plans)
    after(found, updates, of_all, settings)
    check_updates(names, updates, settings, params, plans, trouble)
    tops = leading_parts_over([w for part in live for w in part.weights], settings, plans)
    start = 0
    for part in live:
        stop = start + len(part.params)
        apply(part.weights, updates[start:stop], part.settings, tops[start:stop])
        start = stop


def move_entrywise(part: Live, states: States, company: Company | None) -> None:
    """Move parameters by the sign of the momentum, or by its rows normalised."""
    settings, by_rows = [part.settings] * len(part.params), part.settings.algorithm == "rows"
    plans = company.plans(part.names, part.params, settings) if company is not None and by_rows else []
    found = shares(settings, part.params, plans)
    averages, grads = _averages([part], [states])
    updates = before(found, averages, grads, states, settings)
    if by_rows:
        for _, held, indices in found:
            for i, unit in zip(indices, unit_rows(held, [updates[i] for i in indices]), strict=True):
                updates[i] = unit
    else:
        updates = list(torch._foreach_sign(updates))
    torch._foreach_mul_(updates, [part.settings.factors(p.shape)[0] for p in part.params])
    apply(part.weights, updates, part.settings)


def _averages(live: Sequence[Live], states: Sequence[States]) -> tuple[list[Tensor], list[Tensor]]:
    """The momentum averages, after taking in the gradients, and the gradients in their dtype."""
    averages: list[Tensor] = []
    grads: list[Tensor] = []
    for part, own in zip(live, states, strict=True):
        said, buffers = part.settings, [state["momentum_buffer"] for state in own]
        wide = [g.to(b.dtype) for g, b in zip(part.grads, buffers, strict=True)]
        wide = limit_squares(wide, said) if said.rule.squares else wide
        averages += momentum_average(buffers, wide, momentum=said.momentum, nesterov=said.nesterov)
        grads += wide
    return averages, grads
