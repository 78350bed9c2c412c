"""Candidates pushed through small matrices with every product rounded: which of them lose least."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np

from spectrain.approx._polynomial import Polynomial

Array = np.ndarray
Candidate: TypeAlias = tuple[Polynomial, ...]
Limit = Callable[[list[float]], float]
"""From the errors so far to the largest one that still matters."""

ALL = tuple(range(12))
"""Every spectrum of the suite."""

_FIRST = (2, 6)
"""Where a candidate may be given up: after so many spectra, those where the first one lost most."""
_TELLING = 0.7
_AT_ONCE = 12


def round_to(x: Array, dtype: str) -> Array:
    """float32 values rounded to nearest, ties to even, in the dtype.

    >>> [float(round_to(np.array([1.0 + 2.0**-8 + e], np.float32), "bfloat16")[0]) for e in (0.0, 2.0**-12)]
    [1.0, 1.0078125]
    """
    if dtype == "float32":
        return x
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    kept = {"bfloat16": 16, "tfloat32": 13}[dtype]
    bits = x.view(np.uint32)
    # Half a unit of what stays, less one, and one more where the last bit that stays is odd: ties go to even. A carry
    # runs into the exponent, which is what rounding up to the next power of two is.
    rounded = bits >> np.uint32(kept)
    rounded &= np.uint32(1)
    rounded += np.uint32((1 << (kept - 1)) - 1)
    rounded += bits
    rounded &= np.uint32(0xFFFFFFFF << kept & 0xFFFFFFFF)
    return rounded.view(np.float32)


class Simulated(NamedTuple):
    """A candidate, its error, and what it lost in each spectrum it was tried on, in the mean over the seeds."""

    error: float
    steps: Candidate
    lost: dict[int, float]

    @property
    def telling(self) -> tuple[int, ...]:
        """The spectra in which it lost at least 0.7 of what it lost at most, those where it lost most first.

        Sizes and seeds move that share by a tenth: what it loses at most, it loses in one of these elsewhere too.
        """
        falling = sorted(self.lost, key=lambda k: -self.lost[k])
        return tuple([k for k in falling if not self.lost[k] < _TELLING * self.lost[falling[0]]])


def simulate(
    candidates: Sequence[Candidate], low: float, high: float, dtype: str, *, size: int = 48,
    seeds: tuple[int, ...] = (2025,), spectra: Sequence[tuple[int, ...]] = (), limit: Limit = lambda found: np.inf,
) -> list[Simulated]:  # fmt: skip
    """The largest relative Frobenius distance from the polar factor over spectra that fill [low, high].

    Square matrices of this size, one set for each seed; the mean over the seeds, because a difference of a tenth
    between two designs is the luck of one set. ``spectra`` says for each candidate which, all twelve without it. A
    candidate whose distance is already above ``limit`` of those found so far is left out: every spectrum more can only
    raise it.
    """
    trial = _Trial(_suite(low / high, dtype, size, seeds), high, limit)
    distinct = list(dict.fromkeys(candidates))
    if spectra:
        wanted = dict(zip(candidates, spectra, strict=True))
        for candidate in distinct:
            trial.run(candidate, trial.suite.made_first(wanted[candidate]))
    elif distinct:
        # Those that lose little where the first one lost most come first: they leave little room to the others.
        order = trial.run(distinct[0], ALL)
        opened = trial.open(distinct[1:], order[: _FIRST[0]])
        for candidate in sorted(opened, key=lambda c: _mean_of_largest(opened[c])):
            trial.run(candidate, order, opened[candidate])
    return [trial.found[c] for c in candidates if c in trial.found]


class _Trial:
    """What was found so far on a suite, and the largest error that still matters."""

    def __init__(self, suite: "_Suite", high: float, limit: Limit) -> None:
        self.suite, self.high, self.limit = suite, high, limit
        self.found: dict[Candidate, Simulated] = {}

    def run(self, steps: Candidate, spectra: tuple[int, ...], errors: Array | None = None) -> tuple[int, ...]:
        """Try a candidate, until it is known that it loses too much; the spectra, those where it lost most first.

        ``errors`` are those in the first of the spectra, where they are known.
        """
        most = self.limit([trial.error for trial in self.found.values()])
        errors = np.empty((len(self.suite.seeds), 0)) if errors is None else errors
        for stop in (*(n for n in _FIRST if errors.shape[1] < n < len(spectra)), len(spectra)):
            if _mean_of_largest(errors) > most:
                return spectra
            more = self._distances([steps], spectra[errors.shape[1] : stop])[0]
            errors = np.concatenate([errors, more], axis=1)
        if not _mean_of_largest(errors) > most:
            lost = dict(zip(spectra, errors.mean(axis=0).tolist(), strict=True))
            self.found[steps] = Simulated(_mean_of_largest(errors), steps, lost)
            return tuple(sorted(spectra, key=lambda k: -lost[k]))
        return spectra

    def open(self, candidates: Sequence[Candidate], spectra: tuple[int, ...]) -> dict[Candidate, Array]:
        """The distances of all candidates in these spectra, as many of one kind at once as stay in a cache."""
        kinds: dict[tuple[int, ...], list[Candidate]] = {}
        for steps in candidates:
            kinds.setdefault(tuple([p.degree for p in steps]), []).append(steps)
        found: dict[Candidate, Array] = {}
        for alike in kinds.values():
            for some in (alike[i : i + _AT_ONCE] for i in range(0, len(alike), _AT_ONCE)):
                found.update(zip(some, self._distances(some, spectra), strict=True))
        return found

    @np.errstate(all="ignore")
    def _distances(self, candidates: Sequence[Candidate], spectra: tuple[int, ...]) -> Array:
        """One row a candidate, in it one a seed and one column a spectrum."""
        X, polar = self.suite.matrices(spectra)
        shape, size = X.shape[:2], X.shape[-1]
        Y = X.reshape(1, -1, size, size)
        for i in range(len(candidates[0])):
            steps = [c[i] if i else c[i].scaled(self.high) for c in candidates]
            c = np.array([p.coefficients for p in steps], dtype=np.float32).T[..., None, None, None]
            Y = _step(c, Y, self.suite.dtype)
        lost = np.linalg.norm(Y.astype(np.float64) - polar.reshape(-1, size, size), axis=(-2, -1)) / size**0.5
        return np.asarray(lost).reshape(len(candidates), *shape)


def _mean_of_largest(errors: Array) -> float:
    """Infinite where one of them is not finite; it never falls with more columns, in doubles as well."""
    return float(np.mean(errors.max(axis=1, initial=0.0))) if np.isfinite(errors).all() else np.inf


@lru_cache(maxsize=4)
def _suite(low: float, dtype: str, size: int, seeds: tuple[int, ...]) -> "_Suite":
    return _Suite(low, dtype, size, seeds)


class _Suite:
    """Rounded matrices with their polar factors, made when a spectrum is first asked for."""

    def __init__(self, low: float, dtype: str, size: int, seeds: tuple[int, ...]) -> None:
        self.dtype, self.seeds = dtype, seeds
        self._spectra = list(_spectra(low, size))
        shape = (len(ALL), 2, size, size)
        # The same numbers for a spectrum whatever others are asked for.
        self._draws = [np.random.default_rng(seed).standard_normal(shape) for seed in seeds]
        self._made: dict[int, tuple[Array, Array]] = {}

    def made_first(self, spectra: tuple[int, ...]) -> tuple[int, ...]:
        """Spectra whose matrices are there before those that cost a decomposition."""
        return tuple(sorted(spectra, key=lambda k: k not in self._made))

    def matrices(self, spectra: Sequence[int]) -> tuple[Array, Array]:
        """Matrices and polar factors, one row a seed and one column a spectrum."""
        missing = [k for k in spectra if k not in self._made]
        if missing:
            made = self._make(missing)
            self._made.update({k: (made[0][:, i], made[1][:, i]) for i, k in enumerate(missing)})
        X, polar = (np.stack([self._made[k][i] for k in spectra], axis=1) for i in (0, 1))
        return X, polar

    def _make(self, spectra: list[int]) -> tuple[Array, Array]:
        Q = np.linalg.qr(np.stack([draws[spectra] for draws in self._draws]))[0]
        s = np.stack([self._spectra[k] for k in spectra])[:, None]
        X = round_to(((Q[:, :, 0] * s) @ Q[:, :, 1].swapaxes(-1, -2)).astype(np.float32), self.dtype)
        left, _, right = np.linalg.svd(X.astype(np.float64))
        return X, left @ right


def _spectra(low: float, n: int) -> Iterator[Array]:
    half = n // 2
    yield np.geomspace(1, low, n)
    yield np.linspace(1, low, n)
    yield np.r_[1.0, np.full(n - 1, low)]
    yield np.r_[np.ones(n - 1), low]
    yield np.maximum((1.0 + np.arange(n)) ** (np.log(low) / np.log(n)), low)
    yield np.r_[1.0, np.geomspace(max(0.5, low), low, n - 1)]
    yield np.r_[1.0, np.geomspace(max(0.25, low), low, n - 1)]
    for upper in (1.0, 0.9, 0.75, 0.5, 0.35):
        yield np.r_[1.0, np.full(half - 1, max(upper, low)), np.full(n - half, low)]


def _step(c: Array, X: Array, dtype: str) -> Array:
    """One odd polynomial of a stack, every intermediate matrix rounded, sums in float32."""
    A = round_to(X @ X.swapaxes(-1, -2), dtype)
    q = c[1:]
    width = min(len(q), 2 if len(q) <= 4 else 3)
    powers = [A]
    for _ in range(width - 1):
        powers.append(round_to(powers[-1] @ A, dtype))
    B = round_to(_combined(q, powers), dtype)
    if len(q) > width:
        high = round_to(_combined(q[width:], powers), dtype)
        B = round_to(B + powers[-1] @ high, dtype)
    Y = c[0] * X
    Y += B @ X
    return round_to(Y, dtype)


def _combined(q: Array, powers: list[Array]) -> Array:
    """q[0] A + q[1] A^2 + ..., as many as there are of either."""
    total = np.asarray(q[0] * powers[0])
    for cj, P in zip(q[1:], powers[1:], strict=False):
        total += cj * P
    return total
