"""The pieces of a step that need whole matrices, for parameters of this rank and for those shared with others."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain._arrays.finite import NotFiniteError
from spectrain.optim._layout.held import AbstractHeld, Here
from spectrain.optim._ranks.lines import Shared
from spectrain.optim._ranks.sharded import Sharded
from spectrain.optim._step.decay import leading_part
from spectrain.optim._step.settings import Settings
from spectrain.optim._step.update import apply_factors, assemble, logical_matrices, msign_all
from spectrain.optim._variants.variant import Turn, Variant
from spectrain.optim._variants.variants import VARIANTS

Plans = Sequence[tuple[Sharded, list[int]]]


def updates_over(
    names: Sequence[str],
    averages: Sequence[Tensor],
    settings: Sequence[Settings],
    params: Sequence[Tensor],
    plans: Plans,
) -> tuple[list[Tensor], str]:
    """Return this rank's part of factor * msign for every parameter; all matrices it works on in one call of msign.

    Also why msign refused, in words ("": it did not), where other ranks wait for what it has to give: nothing is to be
    written then.
    """
    own = alone(len(params), plans)
    pieces = logical_matrices([averages[i] for i in own], [settings[i] for i in own])
    inside, whose = [settings[i] for i in own], [names[i] for i in own]
    for plan, members in plans:
        matrices = plan.gather([averages[i].contiguous() for i in members])
        pieces += [[matrix] for matrix in matrices]
        owners = [plan.members[plan.sites[n].member] for n in plan.mine]
        inside += [owner.settings for owner in owners]
        whose += [owner.name for owner in owners]
    signs, trouble = _signs(whose, pieces, inside, waited_for=bool(plans)) if pieces else ([], "")
    found: dict[int, Tensor] = {}
    for i, update in zip(own, apply_factors(signs[: len(own)], [settings[i] for i in own]), strict=True):
        found[i] = assemble(settings[i].matrix, averages[i], update)
    start = len(own)
    for plan, members in plans:
        stop = start + len(plan.mine)
        back = plan.scatter([sign for (sign,) in signs[start:stop]], [averages[i] for i in members])
        found |= dict(zip(members, back, strict=True))
        start = stop
    return [found[i] for i in range(len(params))], trouble


def _signs(
    names: Sequence[str], pieces: list[list[Tensor]], settings: Sequence[Settings], *, waited_for: bool
) -> tuple[list[list[Tensor]], str]:
    """msign of all matrices, or NaN for those that are not finite and zero for the rest.

    Whoever looks at the updates then knows their names, and other ranks, which wait for these, get them. Where msign
    fails otherwise, as where it cannot prove a tolerance, all are zero and the words say of what: raised here, unless
    others wait.
    """
    try:
        return msign_all(pieces, settings), ""
    except NotFiniteError:
        return [
            [torch.where(X.isfinite().all(), torch.zeros_like(X), torch.nan) for X in piece] for piece in pieces
        ], ""
    except (ValueError, RuntimeError) as error:
        trouble = _by_name(names, pieces, settings) or f"Muon: {error}"
        if not waited_for:
            raise type(error)(trouble) from error
        return [[torch.zeros_like(X) for X in piece] for piece in pieces], trouble


def _by_name(names: Sequence[str], pieces: list[list[Tensor]], settings: Sequence[Settings]) -> str:
    """What msign has against each parameter by itself, in words."""
    said = []
    for name, piece, its in zip(names, pieces, settings, strict=True):
        try:
            msign_all([piece], [its])
        except (ValueError, RuntimeError) as error:
            said.append(f"{name}: {error}")
    words = "These weights were not changed; the momentum has taken in the gradients."
    return f"Muon: {'; '.join(said)}. {words}" if said else ""


class Share(NamedTuple):
    """Parameters that one variant moves and that lie alike: on this rank alone, or with one team."""

    variant: Variant
    held: AbstractHeld
    indices: list[int]


def shares(settings: Sequence[Settings], params: Sequence[Tensor], plans: Plans) -> list[Share]:
    """Return all parameters in shares, in one order on all ranks: what a variant reduces over ranks comes in it."""
    found, rules, own = [], [said.rule for said in settings], alone(len(params), plans)
    for variant in VARIANTS:
        mine = [i for i in own if rules[i] is variant]
        if mine:
            found.append(
                Share(variant, Here([settings[i].matrix for i in mine], [params[i].shape for i in mine]), mine)
            )
        for plan, members in plans:
            places = [place for place, i in enumerate(members) if rules[i] is variant]
            if places:
                found.append(Share(variant, Shared(plan, places), [members[place] for place in places]))
    return found


def before(
    found: Sequence[Share],
    averages: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[Mapping[str, Tensor]],
    settings: Sequence[Settings],
) -> list[Tensor]:
    """Return what msign is taken of, after each variant has had its turn at the momentum averages."""
    directions = list(averages)
    for variant, held, indices in found:
        if variant.before is not None:
            turn = Turn(
                held,
                [averages[i] for i in indices],
                [grads[i] for i in indices],
                [states[i] for i in indices],
                [settings[i].beta2 for i in indices],
            )
            for i, direction in zip(indices, variant.before(turn), strict=True):
                directions[i] = direction
    return directions


def after(
    found: Sequence[Share],
    updates: Sequence[Tensor],
    states: Sequence[Mapping[str, Tensor]],
    settings: Sequence[Settings],
) -> None:
    """Let each variant change updates in place."""
    for variant, held, indices in found:
        if variant.after is not None:
            beta2 = [settings[i].beta2 for i in indices]
            variant.after(Turn(held, [updates[i] for i in indices], [], [states[i] for i in indices], beta2))


def leading_parts_over(weights: Sequence[Tensor], settings: Sequence[Settings], plans: Plans) -> list[Tensor | None]:
    """Return this rank's part of sigma_1 u_1 v_1^T of each logical matrix, where ``decay="spectral"`` asks for it."""
    found: list[Tensor | None] = [None] * len(weights)
    for i in alone(len(weights), plans):
        if settings[i].decay == "spectral":
            layout = settings[i].matrix
            whole = weights[i].contiguous()
            tops = torch.empty_like(whole)
            torch._foreach_copy_(layout.views(tops), [leading_part(view) for view in layout.views(whole)])
            found[i] = tops
    for plan, members in plans:
        if any(settings[i].decay == "spectral" for i in members):
            parts = plan.leading_parts([weights[i].contiguous() for i in members])
            for i, part in zip(members, parts, strict=True):
                found[i] = part if settings[i].decay == "spectral" else None
    return found


def alone(count: int, plans: Plans) -> list[int]:
    """Indices that no plan has."""
    shared = {i for _, members in plans for i in members}
    return [i for i in range(count) if i not in shared]
