"""A product from a few columns of one matrix and the same rows of the other, with its error known beforehand."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from spectrain._arrays.generators import Generator, repeating_generator
from spectrain._arrays.kinds import Array
from spectrain._arrays.typed import Generic, Held, Ndarray, alike, results
from spectrain.lowrank import _product_terms as terms
from spectrain.lowrank._matrix.error import frobenius
from spectrain.lowrank._matrix.matrix import Matrix, enter
from spectrain.lowrank._matrix.result import Factorization
from spectrain.lowrank._matrix.scale import flatten_batch, rescale, restore_batch, unit_scaled
from spectrain.lowrank._modes import TermRule

Core: TypeAlias = Literal["diagonal", "full"]
_ALL_EXCHANGES = 1e8  # count^2 times l, up to which exchanges go on until none helps; beyond, 20 of them


class _Letters(NamedTuple, Generic[Held]):
    indices: Held
    weights: Held


class CR(Factorization[Held], _Letters[Held]):
    """X Y ~ X[:, indices] diag(weights) Y[indices]; with a full core, weights is count x count.

    ``expected`` is the root mean square error of sampling by norms with this count: what chance would give.
    """

    columns: Held
    rows: Held
    expected: Held

    def chain(self) -> Sequence[Array]:
        """Return the weighted columns of X and the rows of Y, or columns, core and rows."""
        columns: Array = self.columns
        weights: Array = self.weights
        diagonal = weights.ndim == columns.ndim - 1
        return (columns * weights[..., None, :], self.rows) if diagonal else (columns, weights, self.rows)


class Draw(NamedTuple):
    """What a method decides on: terms, perhaps some of them more than once, and their weights."""

    indices: Tensor
    weights: Tensor


@results(CR[Tensor], CR[Ndarray], CR[Any])
def cr(
    X: Array,
    Y: Array,
    *,
    count: int,
    method: TermRule = "subset",
    weights: Literal["optimal"] | None = None,
    core: Core = "diagonal",
    group: int = 2,
    generator: Generator = None,
) -> CR:
    """Return indices S and weights w with X Y ~ X[:, S] diag(w) Y[S]: ``count`` of the l terms x_i y_i^T.

    Article 10427.

    With H = (X^H X) o conj(Y Y^H), the Gram matrix of the terms, any weights w (zero outside S) have the error

        ||X Y - X diag(w) Y||_F^2 = (1 - w)^H H (1 - w),

    so the best weights on S solve H_SS w = (H 1)_S, choosing S is best-subset regression of the target 1 in the inner
    product H, and the error is known without forming X Y.

    ==================== ===========================================================================
    ``subset``           orthogonal greedy, then the best exchange of one term for another until none
                         lowers the error, from four starts (of large problems 20 from one); the default
    ``greedy``           orthogonal greedy alone: never above the best weights on its first term
    ``exhaustive``       the best support of all; up to two million supports
    ``norms``            the largest |x_i| |y_i|, weights 1
    ``sampling``         ``count`` independent draws, p_i ~ |x_i| |y_i|, weights 1 / (count p_i): unbiased,
                         mean squared error ((sum |x_i| |y_i|)^2 - ||X Y||_F^2) / count, the least of all p
                         (Drineas, Kannan and Mahoney 2006); a term may come twice
    ``tuples``           drop groups of ``group`` terms with the smallest sum, weights 1 (article 10427)
    ``pivoted_cholesky`` pivots of H: bounds the terms, not their sum; a baseline
    ==================== ===========================================================================

    ``weights="optimal"`` gives the best weights to the support of any method. ``core="full"`` returns the count x count
    matrix W = pinv(X_S) X Y pinv(Y_S) in their place, the best of all middle factors, which needs products with X Y.

    X is m x l, Y is l x n, of one dtype, with equal batch dimensions or none; tensors or NumPy arrays. Everything is
    computed in float64. ``.error`` bounds ||X Y - X_S W Y_S||_F including the rounding of H, ``.expected`` is the
    error of sampling for comparison. Indices and weights carry no gradient; ``.columns`` and ``.rows`` do.
    Cost: l^2 (m + n) for H, then l count^2 for greedy and as much for each exchange.

    Raises ValueError for shapes that do not fit, a count outside 1..l, NaN, and unknown methods.

    >>> X = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    >>> indices, weights = cr(X, X.T, count=2)
    >>> found = cr(X, X.T, count=3)
    >>> len(indices), bool(found.error < 1e-6)
    (2, True)
    """
    left, right = _pair(X, Y, count, "cr")
    rule = _check(method, weights, core, group)
    draw = repeating_generator(generator, "cr")
    with torch.no_grad(), torch.autocast(left.device.type, enabled=False):
        A, kx = unit_scaled(left.dense().detach().to(_wide(left.dtype)), "cr")
        B, ky = unit_scaled(right.dense().detach().to(_wide(left.dtype)), "cr")
        batch = A.shape[:-2]
        pairs = zip(flatten_batch(A), flatten_batch(B), strict=True)
        each: dict = {"best": weights == "optimal", "core": core, "out": left.out_dtype}
        done = [_single(x, y, count, rule, draw, **each) for x, y in pairs]
        S, W, error, expected = (restore_batch(values, batch) for values in zip(*done, strict=True))
        W = W.to(left.out_dtype)
    k = kx + ky
    return CR.of(
        left.value(S),
        left.value(W),
        rank=left.value(torch.full(batch, count)),
        error=left.value(rescale(error, k)),
        columns=left.factor(left.dense().take_along_dim(S[..., None, :], -1)),
        rows=left.factor(right.dense().take_along_dim(S[..., :, None], -2)),
        expected=left.value(rescale(expected, k)),
    )


def _pair(X: Array, Y: Array, count: int, name: str) -> tuple[Matrix, Matrix]:
    """Return both matrices after checking that they are dense, fit each other and have ``count`` terms."""
    left, right = enter(X, name), enter(Y, name)
    if left.entries is None or right.entries is None:
        raise TypeError(
            f"{name}: needs dense matrices, whose columns and rows can be taken; use .toarray() or .to_dense()"
        )
    if left.out_dtype != right.out_dtype:
        raise TypeError(f"{name}: X and Y must have one dtype, got {left.out_dtype} and {right.out_dtype}")
    if left.shape[-1] != right.shape[-2] or left.shape[:-2] != right.shape[:-2]:
        raise ValueError(
            f"{name}: X must be (*batch, m, l) and Y (*batch, l, n), got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    terms_there = left.shape[-1]
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= terms_there:
        raise ValueError(f"{name}: count must be an int between 1 and {terms_there}, the inner size, got {count!r}")
    return left, right


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def _check(method: str, weights: str | None, core: str, group: int) -> Callable[[Tensor, int, torch.Generator], Draw]:
    """Return the method as a function of H, the count and the generator."""
    rules = METHODS | {"tuples": lambda H, k, draw: _plain(terms.tuples(H, k, group=group), H)}
    if method not in rules:
        raise ValueError(f"cr: method must be one of {', '.join(map(repr, sorted(rules)))}; got {method!r}")
    if weights not in (None, "optimal"):
        raise ValueError(f'cr: weights must be None (those of the method) or "optimal", got {weights!r}')
    if core not in ("diagonal", "full"):
        raise ValueError(f'cr: core must be "diagonal" or "full", got {core!r}')
    if group not in (1, 2, 3):
        raise ValueError(f"cr: group must be 1, 2 or 3 (a group of g costs C(l, g) sums at each turn), got {group!r}")
    return rules[method]


def _plain(S: Tensor, H: Tensor) -> Draw:
    return Draw(S, torch.ones(len(S), dtype=H.dtype, device=H.device))


def _weigh(S: Tensor, H: Tensor) -> Draw:
    return Draw(S, terms.best_weights(H, S))


def _subset(H: Num[Tensor, "l l"], k: int, draw: torch.Generator) -> Draw:
    if k * k * len(H) > _ALL_EXCHANGES:
        return _weigh(terms.exchange(H, terms.forward(H, k), limit=20), H)
    starts = (
        terms.forward(H, k),
        terms.backward(H, k),
        terms.forward(H, k, by_trace=True),
        H.diagonal().real.topk(k).indices,
    )
    ends = [terms.exchange(H, S) for S in starts]
    return _weigh(min(ends, key=lambda S: float(terms.error_on(H, S))), H)


def _sample(H: Num[Tensor, "l l"], k: int, draw: torch.Generator) -> Draw:
    """Draw k terms independently in proportion to their norms; all alike when all are zero."""
    p = norm_probabilities(H.diagonal().real.sqrt())
    S = torch.multinomial(p.to(draw.device), k, replacement=True, generator=draw).to(H.device)
    return Draw(S, (1 / (k * p[S])).to(H.dtype))


def norm_probabilities(norms: Float[Tensor, " l"]) -> Float[Tensor, " l"]:
    """Return norms / sum of norms, or 1 / l where all are zero."""
    total = norms.sum()
    return norms / total if bool(total > 0) else torch.full_like(norms, 1 / len(norms))


METHODS: dict[str, Callable[[Tensor, int, torch.Generator], Draw]] = {
    "subset": _subset,
    "greedy": lambda H, k, draw: _weigh(terms.forward(H, k), H),
    "exhaustive": lambda H, k, draw: _weigh(terms.exhaustive(H, k), H),
    "norms": lambda H, k, draw: _plain(H.diagonal().real.topk(k).indices, H),
    "sampling": _sample,
    "pivoted_cholesky": lambda H, k, draw: _weigh(terms.forward(H, k, by_trace=True), H),
}


def _single(
    X: Num[Tensor, "m l"],
    Y: Num[Tensor, "l n"],
    k: int,
    rule: Callable,
    draw: torch.Generator,
    *,
    best: bool,
    core: Core,
    out: torch.dtype,
) -> tuple[Int[Tensor, " k"], Tensor, Float[Tensor, ""], Float[Tensor, ""]]:
    """Return indices, weights or core, the error and the expected error of sampling, of one pair in float64."""
    H = terms.term_gram(X, Y)
    norms = H.diagonal().real.clamp_min(0.0).sqrt()
    S, w = rule(H, k, draw)
    if best:
        support = torch.unique(S)
        w = torch.zeros(len(H), dtype=H.dtype, device=H.device).index_put((support,), terms.best_weights(H, support))[S]
        w = w / (S[:, None] == S).sum(1)
    square = H.sum().real.clamp_min(0.0)
    rounding = 4 * torch.finfo(torch.float64).eps * (len(X) ** 0.5 + Y.shape[1] ** 0.5 + len(H) ** 0.5)
    expected = ((norms.sum().square() - square).clamp_min(0.0) / k).sqrt()
    if core == "full":
        W, explained = _middle(X, Y, S)
        given = W.to(out).to(W.dtype)
        error = ((square - explained).clamp_min(0.0) + rounding * norms.sum().square()).sqrt()
        error = error + frobenius(X[:, S] @ (given - W) @ Y[S])
        C, R = frobenius(X[:, S]), frobenius(Y[S])
        return S, W, error + rounding * (norms.sum() + C * frobenius(W) * R), expected
    w = w.to(out).to(w.dtype)  # the error is that of the weights as they go out
    full = torch.zeros(len(H), dtype=H.dtype, device=H.device).index_add(0, S, w)
    slack = rounding * ((1 - full).abs() * norms).sum().square()
    return S, w, (terms.squared_error(H, full) + slack).sqrt() + rounding * (norms * (1 + full.abs())).sum(), expected


def _middle(X: Tensor, Y: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """Return W = pinv(X_S) X Y pinv(Y_S) and ||X_S W Y_S||_F^2, by the SVDs of both: never by normal equations."""
    sides = []
    for C in (X[:, S], Y[S].mH):
        U, s, Vh = torch.linalg.svd(C, full_matrices=False)
        keep = torch.finfo(s.dtype).eps * max(C.shape) * s[0] < s
        sides.append((U * keep, Vh.mH * torch.where(keep, 1 / torch.where(keep, s, 1.0), 0.0)))
    (Uc, left), (Ur, right) = sides
    inner = (Uc.mH @ X) @ (Y @ Ur)
    return left @ inner @ right.mH, frobenius(inner).square()


@alike
def approx_matmul(
    X: Array, Y: Array, *, count: int, method: TermRule = "sampling", generator: Generator = None
) -> Array:
    """Return X[:, S] diag(w) Y[S], to stand in the place of X @ Y at count / l of its cost.

    ``sampling`` (unbiased) and ``norms`` look at norms only and cost l (m + n) before the product; every other method
    of :func:`cr` costs more than one product, and pays where S is used again. Gradients flow to X and Y through the
    terms that were kept, and are unbiased with ``sampling`` as well; S and w carry none.

    Shapes, dtypes and errors as in :func:`cr`.

    >>> X, Y = torch.ones(2, 6), torch.ones(6, 3)
    >>> torch.allclose(approx_matmul(X, Y, count=3), X @ Y)
    True
    """
    left, right = _pair(X, Y, count, "approx_matmul")
    if method not in ("sampling", "norms"):
        found = cr(X, Y, count=count, method=method, generator=generator)
        return found.dense()
    draw = repeating_generator(generator, "approx_matmul")
    with torch.no_grad():
        wide = torch.linalg.vector_norm(left.dense(), dim=-2) * torch.linalg.vector_norm(right.dense(), dim=-1)
        norms = flatten_batch(wide.double()[..., None, :])[:, 0]
        if method == "norms":
            S = norms.topk(count).indices
            w = torch.ones_like(S, dtype=left.dtype)
        else:
            p = torch.stack([norm_probabilities(row) for row in norms])
            S = torch.multinomial(p.to(draw.device), count, replacement=True, generator=draw).to(norms.device)
            w = (1 / (count * p.take_along_dim(S, -1))).to(left.dtype)
        S, w = restore_batch(S, left.shape[:-2]), restore_batch(w, left.shape[:-2])
    C = left.dense().take_along_dim(S[..., None, :], -1) * w[..., None, :]
    return left.factor(C @ right.dense().take_along_dim(S[..., :, None], -2))
