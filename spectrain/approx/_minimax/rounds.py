"""Search and proof in turns: where the proof meets a larger error than the search knew, the search looks again."""

from collections.abc import Callable
from dataclasses import replace

from spectrain.approx._balls.branches import NotFollowedError
from spectrain.approx._minimax.answer import Minimax
from spectrain.approx._minimax.problem import Problem

_ROUNDS = 10
_DEGENERATE = 1e-6
"""The gap that linear programs in doubles may leave where duals are degenerate."""


def conclude(problem: Problem, attempt: Callable[[Problem], Minimax]) -> Minimax:
    """The answer whose bounds meet, or the best of ten attempts, with the status that its bounds allow.

    A grid misses what is narrower than its spacing. The proof does not: the points of its largest errors join the
    grid of the next attempt.
    """
    best: Minimax | None = None
    for _ in range(_ROUNDS):
        try:
            found = attempt(problem)
        except NotFollowedError:
            if problem.sampled:
                raise
            problem, best = replace(problem, sampled=True), None
            continue
        best = found if best is None or found.upper - found.lower < best.upper - best.lower else best
        fresh = [x for x in found.peaks if x not in problem.watched]
        if found.closed or not fresh:
            break
        problem = replace(problem, watched=(*problem.watched, *fresh))
    assert best is not None
    return best.with_status(_status(best))


def _status(found: Minimax) -> str:
    """What the bounds say: no status of an exchange survives a gap between them."""
    if found.status == "exact" and not found.proven:
        return "rounding" if found.closed else "stopped"
    if found.status == "duality":
        return "duality" if found.gap <= max(_DEGENERATE, found.tolerance) else "stopped"
    if not found.closed:
        return "stopped"
    return "alternation" if found.status == "stopped" else found.status
