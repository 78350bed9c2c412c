"""Randomized SVD by block Krylov: a subspace grows until the stops are reached, with what is known of the error.

It finds the largest singular values with few products, and uses all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain._arrays.kinds import Real
from spectrain.lowrank._matrix.error import frobenius, residual_error
from spectrain.lowrank._matrix.matrix import Matrix, gaussian
from spectrain.lowrank._matrix.probes import FAILURE, Probes, spectral_bound
from spectrain.lowrank._matrix.skinny import adjoint_times, times
from spectrain.lowrank._matrix.stops import Stops, tail_errors

_CLEAR = 0.01  # of the largest column: where so much is left of every direction, none is rounding
GAIN = 5e-4  # of the squared error: what further steps may still be expected to gain when the last one is taken
_SHARE = 0.5  # of min(m, n): a larger subspace is not worth it, the exact decomposition is taken


class Subspace(NamedTuple):
    """Q^H A = T P^H, Q and P with orthonormal columns (or zero ones, where the space is exhausted).

    ``lost`` is the squared norm of Q^H A - T P^H, measured where A is known by products alone: directions at the level
    of rounding are left out of P, and nobody could look at the residual of the factors.
    """

    Q: Tensor
    T: Tensor
    P: Tensor
    lost: Tensor

    def svd(self, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the first U, S, Vh of Q Q^H A, the Ritz approximation of A, and all its singular values."""
        U, S, Vh = torch.linalg.svd(self.T, full_matrices=False)
        return times(self.Q, U[..., :width]), S[..., :width], (self.P @ Vh[..., :width, :].mH).mH, S


def subspaces(A: Matrix, *, block: int, generator: torch.Generator) -> Iterator[Subspace]:
    """Yield growing subspaces: the span of A G, (A A^H) A G, (A A^H)^2 A G, ...; G Gaussian with ``block`` columns.

    Block Golub-Kahan bidiagonalization (Golub, Luk and Overton, 1981) with full orthogonalization, done twice. Step t
    has cost 2 products with ``block`` columns, the products of one more power of subspace iteration, but the
    space keeps everything earlier products found: error 1 + eps after about log(n) / sqrt(eps) steps where subspace
    iteration needs log(n) / eps (Musco and Musco 2015), at any block size (Chen, Epperly, Meyer, Musco and Rao
    2025). T is measured, P^H A^H Q, and not assembled from the recurrence, so that Q^H A = T P^H holds to rounding.
    """
    lead, n = A.shape[:-2], A.shape[-1]
    G = gaussian(*lead, n, block, dtype=A.dtype, device=A.device, generator=generator)
    P = torch.linalg.qr(G)[0]
    newest, Q, T = P, P.new_zeros(*lead, A.shape[-2], 0), P.new_zeros(*lead, 0, block)
    lost = torch.zeros(lead, dtype=torch.float64, device=A.device)
    while Q.shape[-1] + block <= A.shape[-2] and P.shape[-1] + block <= n:
        fresh = append(Q, A @ newest)
        image = A.adjoint_times(fresh)
        newest = _revive(P, append(P, image), generator)
        Q, P = torch.cat([Q, fresh], -1), torch.cat([P, newest], -1)
        rows = image.mH @ P
        T = torch.cat([torch.nn.functional.pad(T, (0, newest.shape[-1])), rows], -2)
        if A.entries is None:
            lost = lost + frobenius(image - P @ rows.mH).square()
        yield Subspace(Q, T, P, lost)


def _revive(P: Tensor, newest: Tensor, generator: torch.Generator) -> Tensor:
    """Return the columns with zero ones, where the Krylov space has closed, replaced by new random directions.

    Without them a singular value that appears more often than ``block`` would be found ``block`` times only.
    """
    dead = torch.linalg.vector_norm(newest.detach(), dim=-2, keepdim=True) < 0.5  # columns have length 0 or 1
    if not bool(dead.any()):
        return newest
    G = gaussian(*newest.shape, dtype=newest.dtype, device=newest.device, generator=generator)
    taken = torch.cat([P, newest], -1)
    return torch.where(dead, append(taken, G), newest)


def append(Q: Tensor, W: Tensor) -> Tensor:
    """Return orthonormal columns for what W adds to the span of Q; zero columns where it adds nothing.

    Directions of W below rounding, relative to its largest column, are noise and become zero columns. What is left is
    always orthogonalized a second time, and twice is enough (Giraud, Langou and Rozloznik 2005): once would multiply
    what Q itself lacks in orthogonality, at every step, by the size of W over the size of what is left.
    """
    largest = torch.linalg.vector_norm(W.detach(), dim=-2).amax(-1, keepdim=True)
    fresh, triangle = torch.linalg.qr(W - times(Q, adjoint_times(Q, W)))
    if not bool((_least(triangle.detach()) > _CLEAR * largest).all()):
        turn, sizes, _ = torch.linalg.svd(triangle)
        fresh = fresh @ (turn * (sizes.detach() > 16 * torch.finfo(W.dtype).eps * largest)[..., None, :])
    again, triangle = torch.linalg.qr(fresh - times(Q, adjoint_times(Q, fresh)))
    size = triangle.diagonal(dim1=-2, dim2=-1)
    # A unit column that loses half of its length in the second pass was rounding of the first (Kahan's criterion).
    return again * torch.where(size.detach().abs() > 0.5, torch.sgn(size), 0)[..., None, :]


def _least(R: Tensor) -> Tensor:
    """Return a lower bound on the smallest singular value of triangular R: 1 / ||R^-1||_F; 0 where there is none."""
    eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    inverse = torch.linalg.solve_triangular(R, eye, upper=True)
    return torch.nan_to_num(1 / torch.linalg.matrix_norm(inverse), nan=0.0)[..., None]


class Ritz(NamedTuple):
    """U diag(S) Vh of rank ``rank`` (items are padded with zeros), and what is claimed about the error."""

    U: Tensor
    S: Tensor
    Vh: Tensor
    rank: Int[Tensor, "*batch"]
    error: Float[Tensor, "*batch"]
    failure: float


@dataclass(slots=True)
class Growth:
    """One matrix, its stops, and the judge of each subspace: the norm of A where it is known, else probes."""

    A: Matrix
    stops: Stops
    exponent: Tensor
    power: int | None
    generator: torch.Generator
    squared_norm: Tensor | None = None
    probes: Probes | None = None
    captured: list[Tensor] = field(default_factory=list)
    looks: int = 0

    def __post_init__(self) -> None:
        """Find the norm of A, or draw probes where it is not known."""
        if self.A.entries is not None:
            self.squared_norm = frobenius(self.A.entries).square()
        else:
            self.squared_norm = self.A.squared_norm
        if self.squared_norm is None:
            self.probes = Probes.of(self.A, self.generator)

    def outside(self, space: Subspace) -> tuple[Float[Tensor, "*batch"], float]:
        """Return a bound on ||A - Q Q^H A|| and the probability that it is false.

        ||A||_F^2 - ||Q^H A||_F^2 is exact but for rounding, of relative size eps: where that matters, the residual of
        a dense matrix is formed, and sparse ones are probed, as operators are, and all in the spectral norm.
        """
        noise = torch.finfo(self.A.dtype).eps * frobenius(space.T)
        if self.stops.norm == 2:
            self.looks += 1
            failure = FAILURE / 2**self.looks  # halved at every look: all together they fail no more than FAILURE says
            return spectral_bound(self.A, space.Q, self.generator, failure) + noise, failure
        if self.squared_norm is not None:
            square, slack = self._difference(space)
            if bool((slack <= 0.02 * square).all()):
                return (square + slack).sqrt(), 0.0
            if self.A.entries is not None:
                return residual_error(self.A.entries, (space.Q, space.T @ space.P.mH)), 0.0
        if self.probes is None:
            self.probes = Probes.of(self.A, self.generator)
        self.looks += 1
        failure = FAILURE / 2**self.looks
        return self.probes.bound(space.Q, failure), failure

    def _difference(self, space: Subspace, cut: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return ||A||_F^2 - ||Q^H A||_F^2, or that of the cut (U, S), and how far rounding may have moved it."""
        assert self.squared_norm is not None
        Q = space.Q if cut is None else cut[0]
        found = frobenius(space.T) if cut is None else torch.linalg.vector_norm(cut[1].detach().double(), dim=-1)
        square = (self.squared_norm - found.square()).clamp_min(0)
        return square, rounding_slack(self.A, Q) * self.squared_norm

    def size(self, S: Tensor) -> Float[Tensor, "*batch"]:
        """Return ||A|| in the norm of the stops, or a proven lower bound on it: that of Q Q^H A."""
        if self.stops.norm == 2:
            return S[..., 0].double()
        return torch.linalg.vector_norm(S, dim=-1).double() if self.squared_norm is None else self.squared_norm.sqrt()

    def has_converged(self, S: Tensor) -> bool:
        """Whether further steps will raise the ``limit`` largest Ritz values too little to go on.

        What they may still gain is extrapolated from the last two gains, as a geometric series.
        """
        k = self.stops.limit
        if S.shape[-1] < k or k == self.stops.full:
            return False
        captured = S[..., :k].double().square().sum(-1)
        self.captured.append(captured)
        if len(self.captured) < 2:
            return False
        first = self.captured[-3] if len(self.captured) > 2 else torch.zeros_like(captured)
        gain, before = captured - self.captured[-2], self.captured[-2] - first
        ratio = (gain / before.clamp_min(torch.finfo(torch.float64).tiny)).clamp(0, 0.9)
        left = S[..., k - 1].double().square() if self.stops.norm == 2 else self.total() - captured
        rounding = torch.finfo(S.dtype).eps * k**0.5 * captured
        return bool((gain * ratio / (1 - ratio) <= torch.maximum(GAIN * left, rounding)).all())

    def total(self) -> Float[Tensor, "*batch"]:
        """Return ||A||_F^2, or an estimate of it."""
        if self.squared_norm is not None:
            return self.squared_norm
        assert self.probes is not None
        return self.probes.mean_square()

    def done(self, space: Subspace, step: int) -> bool:
        """Whether a stop is reached: the number of steps, the tolerance, or the rank."""
        if self.power is not None:
            return step >= self.power and space.T.shape[-2] >= self.stops.limit
        S = torch.linalg.svdvals(space.T.detach())
        if self.has_converged(S):
            return True
        if not self.stops.by_error:
            return False
        # Half of it: what the cut to the smallest rank leaves out adds to what is outside of the space.
        allowed = 0.5 * self.stops.allowance(self.size(S), self.exponent)
        return self._likely(space, S, allowed) and bool((self.outside(space)[0] <= allowed).all())

    def _likely(self, space: Subspace, S: Tensor, allowed: Tensor) -> bool:
        """Whether the error may be allowed, by what costs nothing: a certificate is asked for only then."""
        block = self.captured_block(space)
        guess = S[..., -1].double() if self.stops.norm == 2 else block
        if self.stops.norm == "fro" and self.squared_norm is not None:
            square, slack = self._difference(space)
            guess = torch.maximum(guess, (square - slack).clamp_min(0).sqrt())
        return bool((guess <= allowed).all())

    def captured_block(self, space: Subspace) -> Tensor:
        """Return the size of what the last step found: the norm of the last block of T, over sqrt(its columns)."""
        width = space.P.shape[-1] - space.Q.shape[-1]
        return frobenius(space.T[..., -width:, :]) / width**0.5

    def cut(self, space: Subspace) -> Ritz:
        """Return the Ritz approximation, cut at the smallest rank that the stops allow, and its error."""
        if self.stops.by_error or self.stops.norm == 2 or self.squared_norm is None:
            beyond, failure = self.outside(space)
        else:
            beyond, failure = torch.zeros_like(space.T[..., 0, 0].real, dtype=torch.float64), 0.0
        limit = self.stops.limit
        U, S, Vh, known = space.svd(limit if not self.stops.by_error else space.T.shape[-2])
        known = known.detach().double()
        rank = self.stops.ranks(known, self.stops.allowance(self.size(known), self.exponent), beyond)
        rank = torch.minimum(rank, _there(U, Vh))
        width = (int(rank.max()) if rank.numel() else 0) if self.stops.by_error else limit
        keep = torch.arange(width, device=S.device) < rank[..., None]
        tails = tail_errors(known, norm=self.stops.norm, beyond=beyond)
        error = tails.take_along_dim(rank[..., None], -1)[..., 0]
        U, S, Vh = U[..., :width] * keep[..., None, :], S[..., :width] * keep, Vh[..., :width, :] * keep[..., :, None]
        if self.stops.norm == "fro" and self.squared_norm is not None:
            error, failure = self._of_cut(space, U, S, Vh, error, failure)
        unit = 4 * torch.finfo(self.A.dtype).eps * (space.T.shape[-1] ** 0.5 + 1) + _defect(space.Q)
        error = error + space.lost.sqrt() + unit * frobenius(space.T)
        return Ritz(U, S, Vh, rank, error, FAILURE if failure else 0.0)

    def _of_cut(
        self, space: Subspace, U: Tensor, S: Tensor, Vh: Tensor, error: Tensor, failure: float
    ) -> tuple[Tensor, float]:
        """Return the error of the factors where ||A||_F is known: by the difference of squares, unless blurred.

        Then it is what is outside of the space, and the Ritz values that were cut off, ``error``.
        """
        square, slack = self._difference(space, (U, S))
        if bool((slack <= 0.02 * square).all()):
            return (square + slack).sqrt(), 0.0
        if self.A.entries is not None:
            return residual_error(self.A.entries, (U, S[..., :, None] * Vh)), 0.0
        if not self.stops.by_error:
            beyond, failure = self.outside(space)
            error = (error.square() + beyond.square()).sqrt()
        return error, failure


def _there(U: Tensor, Vh: Tensor) -> Int[Tensor, "*batch"]:
    """Return how many leading columns of U and rows of Vh are of length 1.

    A matrix of lower rank exhausts the space; directions from there on lie in its zero columns, and are none.
    """
    lengths = torch.minimum(torch.linalg.vector_norm(U.detach(), dim=-2), torch.linalg.vector_norm(Vh.detach(), dim=-1))
    return (lengths > 1 - torch.finfo(lengths.dtype).eps ** 0.5).cumprod(-1).sum(-1)


def _defect(Q: Tensor) -> Float[Tensor, "*batch"]:
    """Return ||Q^H Q - D||_F, D diagonal and 0 or 1: how far columns are from orthonormal or zero ones."""
    G = Q.detach().mH @ Q.detach()
    E = G - torch.diag_embed(G.diagonal(dim1=-2, dim2=-1).abs().round().to(G.dtype))
    return torch.linalg.matrix_norm(E).double()


def rounding_slack(A: Matrix, Q: Tensor) -> Float[Tensor, "*batch"]:
    """Return how far ||A||_F^2 - ||Q^H A||_F^2 may be from the squared error, relative to ||A||_F^2.

    The columns of Q are orthonormal up to ||Q^H Q - D||_F, D diagonal and 0 or 1; products and norms of length m and n
    are good to u sqrt(m + n), the probabilistic bound of Higham and Mary (SISC 41, 2019).
    """
    return _defect(Q) + 2 * torch.finfo(A.dtype).eps * sum(A.shape[-2:]) ** 0.5


def randomized_ritz(
    A: Matrix, stops: Stops, exponent: Tensor, *, block: int, power: int | None, generator: torch.Generator
) -> Ritz | None:
    """Return the first Ritz approximation that satisfies the stops; None where a full decomposition is cheaper."""
    growth = Growth(A, stops, exponent, power, generator)
    most = min(A.shape[-2:]) if A.entries is None else _SHARE * min(A.shape[-2:])
    for step, space in enumerate(_until(subspaces(A, block=block, generator=generator), most)):
        if growth.done(space, step):
            return growth.cut(space)
    return None


def _until(spaces: Iterator[Subspace], most: Real) -> Iterator[Subspace]:
    for space in spaces:
        if space.Q.shape[-1] > most:
            return
        yield space
