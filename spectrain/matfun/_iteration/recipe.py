"""A fixed schedule applied to many matrices: in what dtype, in which form, and what is done after the last step."""

import functools
import itertools
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.scale import rounding_noise
from spectrain.approx import Schedule
from spectrain.matfun._entry.batches import by_shape, flat, gather
from spectrain.matfun._iteration.bounded import within_bounds
from spectrain.matfun._iteration.design import safe_schedule, schedule_for_steps
from spectrain.matfun._iteration.finish import finish_size, finish_smallest
from spectrain.matfun._iteration.gram import gram_cuts, gram_iteration
from spectrain.matfun._iteration.largest import schatten_bound
from spectrain.matfun._iteration.measured import measured_lowers, quadrature
from spectrain.matfun._iteration.plain import Start, plain_iteration, start_for

_MEASURED_ERROR = 0.1  # of the candidates for a measured spectrum: `spectrain.matfun._iteration.measured.candidates`


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

    def cuts(self, X: Tensor) -> tuple[int, ...] | None:
        """Return the steps before which the Gram iteration restarts, None where X takes the plain one."""
        if self.form == "plain" or X.numel() == 0:
            return None
        return gram_cuts(self.schedule, self.dtype, X.shape, always=self.form == "gram")

    def company(self, X: Tensor) -> tuple:
        """Return what matrices that iterate together have in common: in Gram form the short side, else the shape."""
        return tuple(X.shape[-2:]) if self.cuts(X) is None else ("gram", min(X.shape[-2:]))

    def __call__(self, group: list[Tensor]) -> list[Float[Tensor, "_ _ _"]]:
        """Return the schedule applied to matrices of one company, dtype and device."""
        first = group[0]
        if min(first.shape[-2:]) == 0:
            return [flat(X) for X in group]
        with torch.autocast(first.device.type, enabled=False):
            return by_shape(group, functools.partial(self._run, cuts=self.cuts(first)))

    def _run(self, lists: list[list[Tensor]], cuts: tuple[int, ...] | None) -> list[Tensor]:
        Xs = [gather(matrices, self.dtype, "msign") for matrices in lists]
        groups = [Xs] if cuts is not None else [[X] for X in Xs]
        work = self._by_spectrum if self.measured else self._apply
        Ys = [Y for group in groups for Y in work(group, start_for(group), lists[0][0].dtype)]
        return [self._check(Y, matrices) for Y, matrices in zip(Ys, lists, strict=True)]

    def _check(self, Y: Tensor, matrices: list[Tensor]) -> Tensor:
        """Return the results for matrices of one shape, those beyond the bounds of the schedule computed again."""
        error = _MEASURED_ERROR if self.measured else self.schedule.error
        return within_bounds(Y, error, lambda wrong: self._again(torch.cat([flat(X) for X in matrices])[wrong]))

    def _again(self, X: Tensor) -> Tensor:
        """Return the results of few matrices in the next wider dtype, from a bound on the norm that always holds."""
        dtype = torch.float32 if self.dtype.itemsize == 2 else torch.float64
        steps, lower = len(self.schedule.polynomials), self.schedule.interval[0]
        schedule = schedule_for_steps(steps, dtype, lower) if self.finish else safe_schedule(self.schedule, dtype)
        recipe = Recipe(schedule, dtype, "plain", finish=self.finish)
        batch = gather([X], dtype, "msign")
        start = start_for([batch])
        return recipe._apply([batch], start._replace(top=schatten_bound(start.G2)), X.dtype)[0]

    def _by_spectrum(self, Xs: list[Tensor], start: Start, inputs: torch.dtype) -> list[Tensor]:
        """Return every matrix by the schedule for its spectrum, those with one schedule together."""
        short, steps = start.G.shape[-1], len(self.schedule.polynomials)
        spectrum = quadrature(start.G, start.top)
        lowers = measured_lowers(spectrum, short, steps, self.dtype, finish=self.finish)
        recipes = {low: replace(self, schedule=schedule_for_steps(steps, self.dtype, low)) for low in set(lowers)}
        if len(recipes) == 1:
            return recipes[lowers[0]]._apply(Xs, start, inputs)
        offsets = [0, *itertools.accumulate(len(X) for X in Xs)]
        results = [torch.empty_like(X) for X in Xs]
        for low, recipe in recipes.items():
            mine = [[i for i in range(len(X)) if lowers[a + i] == low] for a, X in zip(offsets, Xs, strict=False)]
            every = [a + i for a, items in zip(offsets, mine, strict=False) for i in items]
            used = [j for j, items in enumerate(mine) if items]
            Ys = recipe._apply([Xs[j][mine[j]] for j in used], Start(*(part[every] for part in start)), inputs)
            for j, Y in zip(used, Ys, strict=True):
                results[j][mine[j]] = Y
        return results

    def _apply(self, Xs: list[Tensor], start: Start, inputs: torch.dtype) -> list[Tensor]:
        """Return the schedule applied to batches with one short side, which are used up, like their start."""
        polynomials, upper, cuts = self.schedule.polynomials, self.schedule.interval[1], self.cuts(Xs[0])
        if cuts is None and len(Xs) > 1:
            starts = zip(*(part.split([len(X) for X in Xs]) for part in start), strict=True)
            return [Y for X, part in zip(Xs, starts, strict=True) for Y in self._apply([X], Start(*part), inputs)]
        count = finish_size(start.G.shape[-1]) if self.finish else 0
        noises = [rounding_noise(X, inputs) for X in Xs] if count else []
        if cuts is None:
            Ys = [plain_iteration(Xs[0], polynomials, start=start, upper=upper)]
        else:
            Ys = gram_iteration(Xs, polynomials, start=start, upper=upper, cuts=cuts)
        if count == 0:
            return Ys
        slopes = (math.prod([p.coefficients[0] for p in polynomials]) * upper / start.top).split([len(X) for X in Xs])
        return [finish_smallest(Y, count, a * noise) for Y, a, noise in zip(Ys, slopes, noises, strict=True)]
