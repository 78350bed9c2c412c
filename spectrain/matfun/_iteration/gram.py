"""The Gram iteration: polynomials are multiplied on the short side, and the matrix itself is touched once or twice.

With G = X X^T, k x k, the steps x -> x q_t(x^2) become R <- q_t(G) R, G <- q_t(G) G q_t(G), and R X at the end.
Source: Gram Newton-Schulz (Dao-AILab, 2026). There negative eigenvalues that rounding gives to G grow with every step;
where G has to be formed anew is decided in :mod:`spectrain.matfun._restarts`.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.approx import Polynomial
from spectrain.matfun._entry.input import Real
from spectrain.matfun._iteration.largest import norm_bound
from spectrain.matfun._iteration.plain import Start, gram, odd_coefficients, product, times, without_identity
from spectrain.matfun._symmetric import symmetric_baddbmm, symmetric_bmm


def gram_iteration(
    Xs: list[Float[Tensor, "_ _ _"]],
    polynomials: tuple[Polynomial, ...],
    *,
    start: Start,
    upper: Real = 1.0,
    restarts: tuple[int, ...] = (),
) -> list[Float[Tensor, "_ _ _"]]:
    """Return the composition of the polynomials at every X, batches of any shapes with one short side k, as one batch.

    Each X is first scaled so that ``upper`` bounds its largest singular value; ``start`` is used up. Before the
    steps in ``restarts`` G is formed from the matrices as they stand there. Tall X become X R^T: as rounded, R is a
    product of factors that do not commute, and in the other order the error in bfloat16 is twice as large. Cost in
    products of k x k, a the aspect, for T polynomials of degree 5: 2 a + 4 T - 3, and 2 a - 3 for each restart; step by
    step it is (2 a + 1) T.
    """
    B, G, r = start.first(odd_coefficients(polynomials[0]), upper)
    first: tuple[Tensor | None, Tensor | None] = (B, r)
    for begin, stop in itertools.pairwise((0, *restarts, len(polynomials))):
        if begin:
            G, first = torch.cat([gram(X) for X in Xs]), (None, None)
        R = _multiplier(G, [odd_coefficients(p) for p in polynomials[begin:stop]], *first)
        parts = R.split([len(X) for X in Xs])
        Xs = [product(part if X.shape[-2] <= X.shape[-1] else part.mT, X) for part, X in zip(parts, Xs, strict=True)]
    return Xs


def multiplier(G: Float[Tensor, "b k k"], segment: list[list[float]], *, upper: Real | None = None) -> Tensor:
    """Return R with R X the steps of the segment at X, from G = X X^T alone, which is used up.

    With ``upper`` X, of Frobenius norm at most 1, is first scaled so that this bounds its largest singular value.
    """
    if upper is None:
        return _multiplier(G, segment, None, None)
    G2 = symmetric_bmm(G, G)
    B, G, r = Start(G, G2, norm_bound(G2)).first(segment[0], upper)
    return _multiplier(G, segment, B, r)


def _multiplier(
    G: Float[Tensor, "b k k"], segment: list[list[float]], first: Tensor | None, r: Tensor | None
) -> Float[Tensor, "b k k"]:
    """Return r R with R X the steps of the segment at X, from G = X X^T, which is used up.

    ``first`` is the part without its constant of the first step at G, where it is known.
    """
    R = None
    for i, c in enumerate(segment):
        B = without_identity(G, c) if i > 0 or first is None else first
        if i < len(segment) - 1:
            M = symmetric_baddbmm(G, B, G, beta=c[0])
            G = symmetric_baddbmm(M, M, B, beta=c[0])
        if R is None:
            R = B.clone() if i < len(segment) - 1 else B
            R.diagonal(dim1=-2, dim2=-1).add_(c[0])
        else:
            R = symmetric_baddbmm(R, B, R, beta=c[0])
    assert R is not None
    return R if r is None else times(R, r)
