"""The pieces of a step that need whole matrices, for parameters of this rank and for those shared with others."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain._arrays.finite import NotFiniteError
from spectrain.optim._layout.held import AbstractHeld, Here
from spectrain.optim._ranks.buckets import Batch
from spectrain.optim._ranks.exchange import Exchange, Landing, Parts, landed
from spectrain.optim._ranks.lines import Shared
from spectrain.optim._ranks.sharded import Sharded
from spectrain.optim._step.decay import leading_part
from spectrain.optim._step.settings import Settings
from spectrain.optim._step.update import apply_factors, assemble, logical_matrices, msign_all
from spectrain.optim._variants.variant import Turn, Variant
from spectrain.optim._variants.variants import VARIANTS

Plans = Sequence[tuple[Sharded, list[int]]]
_UNCHANGED = "These weights were not changed; the momentum has taken in the gradients."


def updates_over(
    names: Sequence[str],
    averages: Sequence[Tensor],
    settings: Sequence[Settings],
    plans: Plans,
) -> tuple[list[Tensor], str]:
    """Return this rank's part of factor * msign for every parameter.

    What lies here goes through msign in one call, while the first bucket of matrices that lie elsewhere is gathered;
    then bucket after bucket, each while the next one is gathered, the last one goes back to its copy, and the one
    before goes on from copy to copy. With b bytes of a bucket on its way (``Machine.bucket``), a rank that holds an
    equal part of everything has at most 6 b at once: parts that come and go of the buckets before and after, 2 b each,
    and what came and msign of this one; besides one batch in msign. What is done by Gram matrices comes last.

    Also why msign refused, in words ("": it did not), where other ranks wait for what it has to give: nothing is to be
    written then.
    """
    own, said = alone(len(averages), plans), _Said(waited_for=bool(plans))
    travels = [Exchange(plan, [averages[i].contiguous() for i in members]) for plan, members in plans]
    stages = [(travel, bucket) for travel in travels for bucket in travel.plan.course.buckets]
    found: dict[int, Tensor] = {}
    coming = _bring(stages, 0)
    found |= _here(own, names, averages, settings, travels, said)
    back = _Back()
    for k, (travel, bucket) in enumerate(stages):
        parts = landed(coming)
        coming = _bring(stages, k + 1)
        done = _signs(travel, bucket, parts, said)
        del parts  # multiplied
        back.go_on()
        back.give(travel, bucket, done)
        del done  # packed: not kept while the next one is worked on
    back.go_on()
    back.go_on()
    # A rank may be in several teams, and the first team of one rank is the last of another. So on every rank a team's
    # exchanges come first and its sums after all of them, and no team waits for one that comes later in the order.
    for travel, (_, members) in zip(travels, plans, strict=True):
        travel.by_gram()
        found |= dict(zip(members, travel.finish(), strict=True))
    return [found[i] for i in range(len(averages))], said.words


def _bring(stages: Sequence[tuple[Exchange, list[Batch]]], k: int) -> list[Landing]:
    """Begin to gather a bucket; nothing after the last."""
    return [] if k >= len(stages) else stages[k][0].bring(stages[k][1])


class _Back:
    """What goes back: of one bucket parts to the owner's copy, of the one before it from copy to copy."""

    def __init__(self) -> None:
        self._going: list[tuple[Exchange, Sequence[Batch], list[Landing]]] = []
        self._passing: list[tuple[Exchange, list[Landing]]] = []

    def give(self, travel: Exchange, bucket: Sequence[Batch], done: dict[int, Tensor]) -> None:
        """Begin to take msign of a bucket back."""
        self._going = [(travel, bucket, travel.give(bucket, done))]

    def go_on(self) -> None:
        """Wait for all that was begun, and pass on what has come to the owner's copy."""
        for travel, landings in self._passing:
            travel.land(landings)
        self._passing = []
        for travel, bucket, landings in self._going:
            travel.land(landings)
            self._passing.append((travel, travel.spread(bucket)))
        self._going = []


def _here(
    own: Sequence[int],
    names: Sequence[str],
    averages: Sequence[Tensor],
    settings: Sequence[Settings],
    travels: Sequence[Exchange],
    said: "_Said",
) -> dict[int, Tensor]:
    """Updates of what no other rank has; what ranks share but need not send is put where it belongs."""
    inside = [settings[i] for i in own]
    pieces, whose = logical_matrices([averages[i] for i in own], inside), [names[i] for i in own]
    shared = [(travel, travel.here()) for travel in travels]
    for travel, numbers in shared:
        pieces += [[matrix] for matrix in travel.matrices(numbers, {})]
        inside += [travel.plan.member(n).settings for n in numbers]
        whose += [travel.plan.member(n).name for n in numbers]
    signs = said.signs(whose, pieces, inside) if pieces else []
    start = len(own)
    for travel, numbers in shared:
        travel.keep(numbers, [sign for (sign,) in signs[start : start + len(numbers)]])
        start += len(numbers)
    updates = apply_factors(signs[: len(own)], [settings[i] for i in own])
    return {i: assemble(settings[i].matrix, averages[i], U) for i, U in zip(own, updates, strict=True)}


def _signs(travel: Exchange, bucket: Sequence[Batch], parts: Parts, said: "_Said") -> dict[int, Tensor]:
    """msign of this rank's matrices of a bucket as they travel, one call for each batch."""
    done: dict[int, Tensor] = {}
    for batch in filter(travel.mine, bucket):
        pieces = [[matrix] for matrix in travel.matrices(batch.numbers, parts)]
        members = [travel.plan.member(n) for n in batch.numbers]
        signs = said.signs([m.name for m in members], pieces, [m.settings for m in members])
        done |= {n: travel.stored(n, sign) for n, (sign,) in zip(batch.numbers, signs, strict=True)}
    return done


class _Said:
    """What msign had against matrices of this rank, in words; raised at once, unless other ranks wait."""

    def __init__(self, *, waited_for: bool) -> None:
        self.waited_for = waited_for
        self._all: list[str] = []

    @property
    def words(self) -> str:
        """All of it; empty: nothing."""
        return f"Muon: {'; '.join(self._all)}. {_UNCHANGED}" if self._all else ""

    def signs(
        self, names: Sequence[str], pieces: list[list[Tensor]], settings: Sequence[Settings]
    ) -> list[list[Tensor]]:
        """msign of all matrices, or NaN for those that are not finite and zero for the rest.

        Whoever looks at the updates then knows their names, and other ranks, which wait for these, get them. Where
        msign fails otherwise, as where it cannot prove a tolerance, all are zero and the words say of what.
        """
        try:
            return msign_all(pieces, settings)
        except NotFiniteError:
            return [
                [torch.where(X.isfinite().all(), torch.zeros_like(X), torch.nan) for X in piece] for piece in pieces
            ]
        except (ValueError, RuntimeError) as error:
            self._all += _by_name(names, pieces, settings) or [str(error)]
            if not self.waited_for:
                raise type(error)(self.words) from error
            return [[torch.zeros_like(X) for X in piece] for piece in pieces]


def _by_name(names: Sequence[str], pieces: list[list[Tensor]], settings: Sequence[Settings]) -> list[str]:
    """What msign has against each parameter by itself."""
    said = []
    for name, piece, its in zip(names, pieces, settings, strict=True):
        try:
            msign_all([piece], [its])
        except (ValueError, RuntimeError) as error:
            said.append(f"{name}: {error}")
    return said


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
