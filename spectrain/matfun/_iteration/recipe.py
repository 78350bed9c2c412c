"""A fixed schedule applied to many matrices: in what dtype, in which form, and what is done after the last step."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.scale import rounding_noise
from spectrain.approx import Schedule
from spectrain.matfun._entry.batches import by_shape, flat, gather
from spectrain.matfun._iteration.bounded import size_by_distance, sizes_of, within_bounds
from spectrain.matfun._iteration.design import safe_schedule, schedule_for_steps
from spectrain.matfun._iteration.finish import distance, finish_size, finish_smallest, finish_where_needed
from spectrain.matfun._iteration.gram import coefficients, gram_cuts, gram_iteration
from spectrain.matfun._iteration.largest import schatten_bound, start_bound
from spectrain.matfun._iteration.measured import measured_lowers, quadrature
from spectrain.matfun._iteration.on_chip import on_chip
from spectrain.matfun._iteration.plain import Start, parts, plain_iterations, start_for

_MEASURED_ERROR = 0.1  # of the candidates for a measured spectrum: `spectrain.matfun._iteration.measured.candidates`


class Found(NamedTuple):
    """Results, as batches, and what tells of each matrix whether it is within bounds."""

    Ys: list[Tensor]
    sizes: list[Tensor]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The schedule and dtype of an iteration, whether its form is prescribed, and whether the tail is finished.

    With ``measured`` the schedule is only the first guess: each matrix takes as many quintics for its own spectrum.
    """

    schedule: Schedule
    dtype: torch.dtype
    form: str | None = None
    finish: bool = False
    measured: bool = False

    def cuts(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the steps before which the Gram iteration restarts, None where matrices take the plain one."""
        if self.form == "plain" or 0 in shape[-2:]:
            return None
        return gram_cuts(self.schedule, self.dtype, shape, always=self.form == "gram")

    def company(self, shape: tuple[int, ...]) -> tuple[str, int]:
        """Return what matrices that iterate together have in common: the form and the short side."""
        return ("plain" if self.cuts(shape) is None else "gram", min(shape[-2:]))

    def __call__(self, group: list[Tensor]) -> list[Float[Tensor, "_ _ _"]]:
        """Return the schedule applied to matrices of one company, dtype and device."""
        first = group[0]
        if min(first.shape[-2:]) == 0:
            return [flat(X) for X in group]
        with torch.autocast(first.device.type, enabled=False):
            return by_shape(group, self._run)

    def _run(self, lists: list[list[Tensor]]) -> list[Tensor]:
        Xs = [gather(matrices, self.dtype, "msign") for matrices in lists]
        work = self._by_spectrum if self.measured else self._apply
        return self._check(work(Xs, start_for(Xs, start_bound), lists[0][0].dtype), lists)

    def _check(self, found: Found, lists: list[list[Tensor]]) -> list[Tensor]:
        """Return the results for lists of matrices of one shape, those beyond the bounds of the schedule made again."""
        error = _MEASURED_ERROR if self.measured else self.schedule.error
        return within_bounds(*found, error, lambda i, wrong: self._again(torch.cat([flat(X) for X in lists[i]])[wrong]))

    def _again(self, X: Tensor) -> Tensor:
        """Return the results of few matrices in the next wider dtype, from a bound on the norm that always holds."""
        dtype = torch.float32 if self.dtype.itemsize == 2 else torch.float64
        steps, lower = len(self.schedule.polynomials), self.schedule.interval[0]
        schedule = schedule_for_steps(steps, dtype, lower) if self.finish else safe_schedule(self.schedule, dtype)
        recipe = Recipe(schedule, dtype, "plain", finish=self.finish)
        batch = gather([X], dtype, "msign")
        start = start_for([batch])
        return recipe._apply([batch], start._replace(top=schatten_bound(start.G2)), X.dtype).Ys[0]

    def _by_spectrum(self, Xs: list[Tensor], start: Start, inputs: torch.dtype) -> Found:
        """Return every matrix by the schedule for its spectrum, those with one schedule together."""
        short, steps = start.G.shape[-1], len(self.schedule.polynomials)
        spectrum = quadrature(start.G, start.top)
        lowers = measured_lowers(spectrum, short, steps, self.dtype, finish=self.finish)
        recipes = {low: replace(self, schedule=schedule_for_steps(steps, self.dtype, low)) for low in set(lowers)}
        if len(recipes) == 1:
            return recipes[lowers[0]]._apply(Xs, start, inputs)
        offsets = [0, *itertools.accumulate(len(X) for X in Xs)]
        results = [torch.empty_like(X, dtype=torch.promote_types(X.dtype, torch.float32)) for X in Xs]
        sizes = [Y.new_empty(len(Y)) for Y in results]
        for low, recipe in recipes.items():
            mine = [[i for i in range(len(X)) if lowers[a + i] == low] for a, X in zip(offsets, Xs, strict=False)]
            every = [a + i for a, items in zip(offsets, mine, strict=False) for i in items]
            used = [j for j, items in enumerate(mine) if items]
            found = recipe._apply([Xs[j][mine[j]] for j in used], Start(*(part[every] for part in start)), inputs)
            for j, Y, size in zip(used, *found, strict=True):
                results[j][mine[j]], sizes[j][mine[j]] = Y.to(results[j].dtype), size
        return Found(results, sizes)

    def _apply(self, Xs: list[Tensor], start: Start, inputs: torch.dtype) -> Found:
        """Return the schedule applied to batches with one short side, which are used up, like their start."""
        upper, cuts = self.schedule.interval[1], self.cuts(Xs[0].shape)
        count = finish_size(start.G.shape[-1]) if self.finish else 0
        noise = _noise(Xs, start.G, inputs) if count else start.top
        if self.form is None and (found := on_chip(Xs, self.schedule, start, upper)) is not None:
            Ys = found
        elif cuts is None:
            Ys = plain_iterations(Xs, coefficients(self.schedule), start=start, upper=upper)
        else:
            Ys = gram_iteration(Xs, self.schedule.polynomials, start=start, upper=upper, cuts=cuts)
        if count:
            noise = noise * math.prod([c[0] for c in coefficients(self.schedule)]) * upper / start.top
        return _ended(Ys, count, noise, self.schedule.error)


def _ended(Ys: list[Tensor], count: int, floor: Tensor, error: float) -> Found:
    """Return the results of all steps with their sizes, the ``count`` smallest singular values above floor finished.

    In half precision one product on the short side tells both the size and what is missing.
    """
    if Ys[0].itemsize >= 4:
        Ys = finish_smallest(Ys, count, floor) if count else Ys
        return Found(Ys, sizes_of(Ys))
    E = distance(Ys)
    sizes = list(parts(size_by_distance(E), Ys))
    return Found(finish_where_needed(Ys, count, floor, E, error) if count else Ys, sizes)


def _noise(Xs: list[Tensor], G: Tensor, inputs: torch.dtype) -> Tensor:
    """Return the rounding noise of every matrix of the batches, whose squared sizes are the traces of G."""
    sizes = G.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=torch.promote_types(G.dtype, torch.float32)).sqrt()
    noises = [rounding_noise(part, X.shape[-2:], inputs) for part, X in zip(parts(sizes, Xs), Xs, strict=True)]
    return torch.cat(noises)
