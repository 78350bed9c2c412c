"""The pieces of a step that need whole matrices, for parameters of this rank and for those shared with others."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectrain._arrays.finite import NotFiniteError
from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._ranks.sharded import Sharded
from spectrain.optim._step.decay import leading
from spectrain.optim._step.lines import line_squares, lines, run_along, scale_lines
from spectrain.optim._step.update import assembled, msign_all, orthogonal_pieces, scaled
from spectrain.optim._step.variants import line_rates

Plans = Sequence[tuple[Sharded, list[int]]]


def orthogonalized_over(
    names: Sequence[str],
    averages: Sequence[Tensor],
    groups: Sequence[dict[str, Any]],
    params: Sequence[Tensor],
    plans: Plans,
) -> tuple[list[Tensor], str]:
    """Return this rank's part of factor * msign for every parameter; all matrices it works on in one call of msign.

    Also why msign refused, in words ("": it did not), where other ranks wait for what it has to give: nothing is to be
    written then.
    """
    own = alone(len(params), plans)
    pieces = orthogonal_pieces([averages[i] for i in own], [groups[i] for i in own])
    inside, whose = [groups[i] for i in own], [names[i] for i in own]
    for plan, members in plans:
        matrices = plan.gather([averages[i].contiguous() for i in members])
        pieces += [[matrix] for matrix in matrices]
        owners = [plan.members[plan.sites[n].member] for n in plan.mine]
        inside += [owner.group for owner in owners]
        whose += [owner.name for owner in owners]
    signs, trouble = _signs(whose, pieces, inside, waited_for=bool(plans)) if pieces else ([], "")
    found: dict[int, Tensor] = {}
    for i, update in zip(
        own, scaled(signs[: len(own)], [groups[i] for i in own], [params[i] for i in own]), strict=True
    ):
        found[i] = assembled(Matrix.from_dict(groups[i]["matrix"]), averages[i], update)
    start = len(own)
    for plan, members in plans:
        stop = start + len(plan.mine)
        back = plan.scatter([sign for (sign,) in signs[start:stop]], [averages[i] for i in members])
        found |= dict(zip(members, back, strict=True))
        start = stop
    return [found[i] for i in range(len(params))], trouble


def _signs(
    names: Sequence[str], pieces: list[list[Tensor]], groups: Sequence[dict[str, Any]], *, waited_for: bool
) -> tuple[list[list[Tensor]], str]:
    """msign of all matrices, or NaN for those that are not finite and zero for the rest.

    Whoever looks at the updates then knows their names, and other ranks, which wait for these, get them. Where msign
    fails otherwise, as where it cannot prove a tolerance, all are zero and the words say of what: raised here, unless
    others wait.
    """
    try:
        return msign_all(pieces, groups), ""
    except NotFiniteError:
        return [
            [torch.where(X.isfinite().all(), torch.zeros_like(X), torch.nan) for X in piece] for piece in pieces
        ], ""
    except (ValueError, RuntimeError) as error:
        trouble = _by_name(names, pieces, groups) or f"Muon: {error}"
        if not waited_for:
            raise type(error)(trouble) from error
        return [[torch.zeros_like(X) for X in piece] for piece in pieces], trouble


def _by_name(names: Sequence[str], pieces: list[list[Tensor]], groups: Sequence[dict[str, Any]]) -> str:
    """What msign has against each parameter by itself, in words."""
    said = []
    for name, piece, group in zip(names, pieces, groups, strict=True):
        try:
            msign_all([piece], [group])
        except (ValueError, RuntimeError) as error:
            said.append(f"{name}: {error}")
    words = "These weights were not changed; the momentum has taken in the gradients."
    return f"Muon: {'; '.join(said)}. {words}" if said else ""


def normalise_lines(
    updates: Sequence[Tensor],
    groups: Sequence[dict[str, Any]],
    states: Sequence[dict[str, Any]],
    plans: Plans,
) -> None:
    """Scale the lines of updates with ``variant="normuon"``, in place; the averages in ``states`` advance."""
    wanted = [group["variant"] == "normuon" for group in groups]
    for i in alone(len(updates), plans):
        if wanted[i]:
            views = Matrix.from_dict(groups[i]["matrix"]).views(updates[i])
            shapes = [(view.shape[0], view.shape[1]) for view in views]
            rates = _rates(torch.cat([line_squares(view) for view in views]), shapes, groups[i], states[i])
            for view, rate in zip(views, rates.split(lines(shapes)), strict=True):
                scale_lines(view, rate)
    for plan, members in plans:
        if not any(wanted[i] for i in members):
            continue
        squares_of = line_squares_over(plan, [updates[i] for i in members])
        rates_of = [
            _rates(s, plan.logical_shapes(m), groups[i], states[i]) if wanted[i] else torch.ones_like(s)
            for m, (i, s) in enumerate(zip(members, squares_of, strict=True))
        ]
        scale_lines_over(plan, [updates[i] for i in members], rates_of)


def _rates(squares: Tensor, shapes: Sequence[tuple[int, int]], group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    """Line factors of one parameter, from the sums of squares of the lines of its matrices."""
    widths = torch.cat([squares.new_full((max(shape),), min(shape)) for shape in shapes])
    return line_rates(state["line_second_moment"], squares, widths, lines(shapes), beta2=group["beta2"])


def row_normalised(averages: list[Tensor], plans: Plans) -> list[Tensor]:
    """Return each row divided by its norm, also where a row is cut between ranks; zero stays zero."""
    found = [_unit_rows(a) for a in averages]
    for plan, members in plans:
        shares = [averages[i].clone() for i in members]
        plan.scale_rows(shares, [torch.where(s > 0, s.rsqrt(), 0.0) for s in plan.row_squares(shares)])
        for i, share in zip(members, shares, strict=True):
            found[i] = share
    return found


def _unit_rows(a: Tensor) -> Tensor:
    """Each row over its norm; over its largest entry first, since squares of tiny and of huge ones are 0 and inf."""
    near = torch.where(a == 0, a, a / a.abs().amax(-1, keepdim=True))
    return torch.where(a == 0, a, near / torch.linalg.vector_norm(near, dim=-1, keepdim=True))


def leading_over(weights: Sequence[Tensor], groups: Sequence[dict[str, Any]], plans: Plans) -> list[Tensor | None]:
    """Return this rank's part of sigma_1 u_1 v_1^T of each logical matrix, where ``decay="spectral"`` asks for it."""
    found: list[Tensor | None] = [None] * len(weights)
    for i in alone(len(weights), plans):
        if groups[i]["decay"] == "spectral":
            layout = Matrix.from_dict(groups[i]["matrix"])
            whole = weights[i].contiguous()
            found[i] = assembled(layout, whole, [leading(view) for view in layout.views(whole)])
    for plan, members in plans:
        if any(groups[i]["decay"] == "spectral" for i in members):
            parts = plan.leading([weights[i].contiguous() for i in members])
            for i, part in zip(members, parts, strict=True):
                found[i] = part if groups[i]["decay"] == "spectral" else None
    return found


def alone(count: int, plans: Plans) -> list[int]:
    """Indices that no plan has."""
    shared = {i for _, members in plans for i in members}
    return [i for i in range(count) if i not in shared]


def line_squares_over(plan: Sharded, updates: Sequence[Tensor]) -> list[Tensor]:
    """Return for each parameter of a plan the sums of squares of all lines of its matrices, on every rank."""
    sums = []
    for n, (view, across) in enumerate(zip(plan._cut(updates), _ways(plan), strict=True)):
        work, position = plan.works[n], plan.team.position
        whole = view.new_zeros(max(work.shape))
        if view.numel() and work.copies[position] == 0:
            whole[plan._sides(n)[1 - across]] = _as_used(plan, n, view).square().sum(across)
        sums.append(whole)
    total = plan.team.reduce(torch.cat(sums), "sum").split([len(whole) for whole in sums])
    return [torch.cat(found) for found in plan._by_member(total)]


def scale_lines_over(plan: Sharded, updates: Sequence[Tensor], rates: Sequence[Tensor]) -> None:
    """Multiply this rank's part of each line by its factor, in place; ``rates`` are whole, one tensor a parameter."""
    per_matrix = [r for m, rate in enumerate(rates) for r in rate.split(lines(plan.logical_shapes(m)))]
    for n, (view, rate, across) in enumerate(zip(plan._cut(updates), per_matrix, _ways(plan), strict=True)):
        if view.numel():
            own = rate[plan._sides(n)[1 - across]]
            _as_used(plan, n, view).mul_(own.unsqueeze(across))


def _ways(plan: Sharded) -> list[int]:
    """The dimension that the lines of each matrix of a plan run along."""
    return [run_along(*shape) for m in range(len(plan.members)) for shape in plan.logical_shapes(m)]


def _as_used(plan: Sharded, n: int, view: Tensor) -> Tensor:
    """A stored part as out x in."""
    return view.mT if plan._transposed(n) else view
