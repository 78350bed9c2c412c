"""Applying a schedule of odd polynomials to singular values by matrix products."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.products import baddbmm, bmm, symmetric_baddbmm, symmetric_bmm
from spectrain._arrays.scale import recording
from spectrain.approx import Polynomial
from spectrain.approx.internal import Steps, odd_coefficients
from spectrain.matfun._entry.batches import joined
from spectrain.matfun._entry.input import Real
from spectrain.matfun._iteration.largest import norm_bound

_LARGE = 96  # from this short side on a call for each matrix costs less than a copy of the batch in float32


def polynomial_of(
    G: Float[Tensor, "b k k"], c: Sequence[float], *, G2: Float[Tensor, "b k k"] | None = None
) -> Float[Tensor, "b k k"]:
    """Return c[0] I + c[1] G + c[2] G^2 + ..., with G2 = G^2 where it is at hand."""
    Q = without_identity(G, c, G2=G2)
    Q.diagonal(dim1=-2, dim2=-1).add_(c[0])
    return Q


def without_identity(
    G: Float[Tensor, "b k k"], c: Sequence[float], *, G2: Float[Tensor, "b k k"] | None = None
) -> Float[Tensor, "b k k"]:
    """Return c[1] G + c[2] G^2 + ..., the part that has to be multiplied; c[0] is better added to the product.

    Paterson and Stockmeyer with blocks of two: floor(len(c) / 2) products.
    """
    if len(c) == 3 and G2 is None:
        return symmetric_baddbmm(G, G, G, beta=c[1], alpha=c[2])
    return _blocks(G, G2, c) if len(c) > 2 else G * (c[1] if len(c) == 2 else 0.0)


def _blocks(G: Tensor, G2: Tensor | None, c: Sequence[float]) -> Tensor:
    """Return the part without c[0]: c[1] G + c[2] G^2 + G^2 (c[3] G + c[4] G^2 + ...), from the inside out."""
    G2 = symmetric_bmm(G, G) if G2 is None else G2
    odd = len(c) - 2 if len(c) % 2 else len(c) - 1
    Q = combine(G, G2, c[odd], c[odd + 1]) if len(c) % 2 else c[odd] * G
    for j in range(odd - 2, 0, -2):
        Q = symmetric_baddbmm(combine(G, G2, c[j], c[j + 1]), G2, Q)
    return Q


def combine(
    A: Float[Tensor, "b k k"], B: Float[Tensor, "b k k"], a: Tensor | Real, b: Tensor | Real
) -> Float[Tensor, "b k k"]:
    """Return a A + b B, rounded once to the dtype of A; the factors are float32 or wider and not rounded.

    The two terms nearly cancel for the largest singular values. A rounding of a or b to half precision moves all of
    those by the same amount, a twentieth in the first step, out of the interval or across zero.
    """
    if A.itemsize >= 4:
        return torch.add(A * a, B * b)
    wide = A.float().mul_(a)
    wide = wide.addcmul_(B.float(), b) if isinstance(b, Tensor) else wide.add_(B.float(), alpha=b)
    return wide.to(A.dtype)


def _one_by_one(A: Float[Tensor, "b m n"]) -> bool:
    """Whether the matrices are better taken one by one, with numbers as factors, which torch takes in float32."""
    return A.itemsize == 2 and A.device.type == "cpu" and min(A.shape[-2:]) >= _LARGE and not recording()


def gram(X: Float[Tensor, "b m n"]) -> Float[Tensor, "b k k"]:
    """Return the Gram matrix on the short side: X X^T for wide X, X^T X for tall."""
    return symmetric_bmm(X.mT, X) if X.shape[-2] > X.shape[-1] else symmetric_bmm(X, X.mT)


def grams(Xs: Sequence[Float[Tensor, "_ _ _"]]) -> Float[Tensor, "b k k"]:
    """Return the Gram matrices of batches with one short side as one batch."""
    return joined([gram(X) for X in Xs])


def parts(B: Tensor, Xs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return what belongs to each batch of what belongs to all."""
    return (B,) if len(Xs) == 1 else B.split([len(X) for X in Xs])


def product(
    Q: Float[Tensor, "b k k"], X: Float[Tensor, "b m n"], out: Float[Tensor, "b m n"] | None = None
) -> Float[Tensor, "b m n"]:
    """Return Q X for wide X, X Q for tall, Q on the short side.

    Tall matrices are never transposed: a product into a transposed ``out`` is thousands of times slower on CPU.
    """
    return bmm(X, Q, out=out) if X.shape[-2] > X.shape[-1] else bmm(Q, X, out=out)


def step(
    B: Float[Tensor, "b k k"], c0: float, X: Float[Tensor, "b m n"], out: Float[Tensor, "b m n"] | None = None
) -> Float[Tensor, "b m n"]:
    """Return c0 X + B X for wide X, c0 X + X B for tall, B on the short side.

    The sum is formed before it is rounded. With c0 on the diagonal of B the rounding of B would be relative to c0, and
    turn the small singular directions of X by c0 u: in bfloat16 that was the largest error of all.
    """
    wide = X.shape[-2] <= X.shape[-1]
    return baddbmm(X, *((B, X) if wide else (X, B)), beta=c0, out=out)


def times(A: Float[Tensor, "b m n"], factor: Float[Tensor, "b 1 1"]) -> Float[Tensor, "b m n"]:
    """Return the product, rounded once to the dtype of A, with the factor as it is; A is used up."""
    if A.dtype == factor.dtype:
        return A.mul_(factor)
    if not _one_by_one(A):
        return (A * factor).to(A.dtype)
    for matrix, number in zip(A, factor.flatten().tolist(), strict=True):
        matrix.mul_(number)
    return A


class Start(NamedTuple):
    """What is known of matrices before the first step: Gram matrices, their squares, and bounds on sigma_max."""

    G: Float[Tensor, "b k k"]
    G2: Float[Tensor, "b k k"]
    top: Float[Tensor, " b"]

    def first(self, c: Sequence[float], upper: Real) -> "tuple[Tensor, Tensor]":
        """Return the part without c[0] of the first polynomial at the Gram matrix of r X, and r = upper / top.

        r is float32 or wider. Polynomials beyond degree 5 use ``G`` and ``G2`` up.
        """
        r = upper / self.top[:, None, None]
        if len(c) == 3:
            return combine(self.G, self.G2, c[1] * r.square(), c[2] * r.square().square()), r
        return without_identity(times(self.G, r.square()), c, G2=times(self.G2, r.square().square())), r

    def scaled(self, c: Sequence[float], upper: Real) -> "tuple[Tensor, Tensor, Tensor]":
        """Return the same, and between the two the Gram matrix of r X, for which G is used up."""
        B, r = self.first(c, upper)
        return B, self.G if len(c) != 3 else times(self.G, r.square()), r


def start_for(Xs: list[Float[Tensor, "_ _ _"]], bound: Callable[[Tensor], Tensor] = norm_bound) -> Start:
    """Return the start of the iteration on batches with one short side, of Frobenius norm at most 1."""
    G = grams(Xs)
    G2 = symmetric_bmm(G, G)
    return Start(G, G2, bound(G2))


def plain_iteration(
    X: Float[Tensor, "b m n"], polynomials: tuple[Polynomial, ...], *, start: Start | None = None, upper: Real = 1.0
) -> Float[Tensor, "b m n"]:
    """Return the composition of the polynomials at X = U S V^T, as :func:`plain_iterations` of one batch."""
    return plain_iterations([X], odd_coefficients(polynomials), start=start, upper=upper)[0]


def plain_iterations(
    Xs: Sequence[Float[Tensor, "_ _ _"]], steps: Steps, *, start: Start | None = None, upper: Real = 1.0
) -> list[Float[Tensor, "_ _ _"]]:
    """Return the composition of odd polynomials at every X = U S V^T, batches of any shapes with one short side.

    ``steps`` are the odd coefficients. The Xs are used as work space, and so is ``start``. With ``start`` X is first
    scaled so that ``upper`` bounds its largest singular value. Products on the short side are made for all at once.
    Cost, k the short and l the long side: for each polynomial of degree 2d+1, two products of k x k by k x l and
    ceil(d/2) of k x k.
    """
    here, there = list(Xs), [torch.empty_like(X) for X in Xs]
    for i, c in enumerate(steps):
        r = None
        if i == 0 and start is not None:
            B, r = start.first(c, upper)
        else:
            B = without_identity(grams(here), c)
        there = [step(part, c[0], X, out) for part, X, out in zip(parts(B, here), here, there, strict=True)]
        if r is not None:
            there = [times(X, part) for part, X in zip(parts(r, here), there, strict=True)]
        here, there = there, here
    return here
