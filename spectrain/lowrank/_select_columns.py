"""Which columns of a matrix say the rest: eighteen rules behind one function."""

import torch
from jaxtyping import Int
from torch import Tensor

from spectrain._arrays.generators import Generator, repeating_generator
from spectrain._arrays.kinds import Array, Real
from spectrain._arrays.typed import alike
from spectrain.lowrank._columns.pivoted_qr import pivoted_qr
from spectrain.lowrank._columns.random import sketch_of
from spectrain.lowrank._columns.rules import RULES, Task, choose_by
from spectrain.lowrank._matrix.matrix import Matrix, enter
from spectrain.lowrank._matrix.scale import flatten_batch, restore_batch, unit_scaled
from spectrain.lowrank._matrix.stops import check_stops
from spectrain.lowrank._modes import ColumnRule


@alike
def select_columns(
    A: Array,
    rank: int,
    *,
    method: ColumnRule = "auto",
    refine: bool = False,
    bound: Real = 2.0,
    oversample: int = 10,
    power: int = 0,
    block: int = 16,
    generator: Generator = None,
) -> Array:
    """Return the indices J of ``rank`` different columns, in the order chosen, so that A ~ A[:, J] pinv(A[:, J]) A.

    Guarantees, with e = ||A - A_J pinv(A_J) A||_F, e_k the best error of rank k, and * where ``refine`` is built in:

    =================== ==================================================================================
    ``auto`` *          e <= sqrt(1 + k) e_k and no single exchange lowers e, for matrices with
                        m n min(m, n) <= 2e9: the best of osinsky, greedy, qdeim and pivoted_qr after all
                        exchanges; larger ones by pivoted_qr
    ``pivoted_qr``      sigma_min(R_11) >= sigma_k / (sqrt(n - k + 1) 2^k); exact pivots, by blocks
    ``strong_rrqr``     max|Z| <= bound, spectral error <= sqrt(1 + bound^2 k (n - k)) sigma_(k+1)
    ``osinsky``         e <= sqrt(1 + k) e_k: no rule can promise a smaller factor for all matrices
    ``greedy``          near-optimal in the explained square (Altschuler and others 2016)
    ``exhaustive`` *    the smallest e there is; small n only
    ``randomized``      none; near pivoted_qr in practice and fastest: elimination on a sketch of
                        ``rank + oversample`` rows, ``power`` more passes
    ``random_pivoting`` mean of e^2 within (1 + k)! of the best; robust blocks of ``block`` columns
    ``adaptive``        mean of e^2 <= (1 + k) e_k^2
    ``leverage``        under a power law of the scores only; ``leverage_sampling``: relative error for
                        O(k log k) columns
    ``deim``, ``qdeim`` spectral error <= ||inv(Vh[:k, J])||_2 sigma_(k+1), known after the fact
    ``kmeans``          none for the span: columns nearest to the centres of k clusters
    ``optim_rid``       none: pivoted QR among ``rank + oversample`` columns drawn evenly (article 10501)
    ``norms``, ``norm_sampling``, ``uniform`` none: the largest, drawn in proportion to the norm, drawn evenly
    =================== ==================================================================================

    ``refine=True`` follows any rule by exchanges of one column for another, always the best, until none lowers e. It
    never raises e. When fewer than ``rank`` columns are independent, the first unused ones fill up.

    A is m x n, dense (with batch dimensions: one set for each matrix), NumPy, sparse or an operator; of the last two
    a Gaussian sketch of max(2 rank, rank + oversample) rows is looked at, and guarantees hold for the sketch. Half
    precision is computed in float32. The result is an int64 array (*batch, rank) of the kind of A. Random rules draw
    from ``generator`` (None: seed 0).

    Raises ValueError for rank outside 1..min(m, n), NaN, unknown methods, and ``exhaustive`` on a large matrix.

    >>> A = torch.tensor([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 0.5, 0.0]])
    >>> sorted(select_columns(A, 2).tolist())
    [0, 3]
    """
    matrix = enter(A, "select_columns")
    check_stops(matrix.shape, rank=rank, rtol=None, atol=None, name="select_columns")
    draw = check_rule(method, bound=bound, oversample=oversample, power=power, block=block, generator=generator)
    options = {"bound": bound, "oversample": oversample, "power": power, "block": block}
    return matrix.value(indices(matrix, rank, method, refine=refine, draw=draw, options=options))


def check_rule(
    method: str, *, bound: Real, oversample: int, power: int, block: int, generator: Generator
) -> torch.Generator:
    """Return the generator after checking what a selection is told."""
    name = "select_columns"
    if method not in RULES:
        raise ValueError(f"{name}: method must be one of {', '.join(map(repr, sorted(RULES)))}; got {method!r}")
    if not bound > 1:
        raise ValueError(f"{name}: bound must be above 1 (to reach 1 exactly is NP-hard), got {bound}; 2 is usual")
    for key, value, least in (("oversample", oversample, 0), ("power", power, 0), ("block", block, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: {key} must be an int, at least {least}, got {value!r}")
    return repeating_generator(generator, name)


@torch.compiler.disable  # chosen by values: a graph breaks here once, and not at each of them
def indices(
    matrix: Matrix, rank: int, method: str, *, refine: bool, draw: torch.Generator, options: dict
) -> Int[Tensor, "*batch k"]:
    """Return the columns of each matrix of a batch; of an operator, those of its sketch."""
    with torch.no_grad(), torch.autocast(matrix.device.type, enabled=False):
        A = matrix.entries
        if A is None:
            A = sketch_of(
                matrix, min(*matrix.shape, max(2 * rank, rank + options["oversample"])), options["power"], draw
            )
        A, _ = unit_scaled(A.detach(), "select_columns")
        if method == "pivoted_qr" and not refine:
            return pivoted_qr(A, rank).columns
        items = [choose_by(method, Task(X, rank, draw, **options), refine=refine) for X in flatten_batch(A)]
        return restore_batch(items, A.shape[:-2])
