"""Applying a schedule of odd polynomials to singular values by matrix products."""

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.approx import Polynomial
from spectrain.matfun._gemm import baddbmm, bmm
from spectrain.matfun._largest import norm_bound


def odd_coefficients(p: Polynomial) -> list[float]:
    """Return c with p(x) = x (c[0] + c[1] x^2 + c[2] x^4 + ...); ValueError unless p is odd."""
    if any(power % 2 == 0 for power in p.powers):
        raise ValueError(f"a schedule for msign needs odd polynomials, got powers {p.powers}")
    c = [0.0] * (max(p.powers) // 2 + 1)
    for power, value in zip(p.powers, p.coefficients, strict=True):
        c[power // 2] = float(value)
    return c


def polynomial_of(
    G: Float[Tensor, "b k k"], c: list[float], *, G2: Float[Tensor, "b k k"] | None = None
) -> Float[Tensor, "b k k"]:
    """Return c[0] I + c[1] G + c[2] G^2 + ..., with G2 = G^2 where it is at hand."""
    Q = without_identity(G, c, G2=G2)
    Q.diagonal(dim1=-2, dim2=-1).add_(c[0])
    return Q


def without_identity(
    G: Float[Tensor, "b k k"], c: list[float], *, G2: Float[Tensor, "b k k"] | None = None
) -> Float[Tensor, "b k k"]:
    """Return c[1] G + c[2] G^2 + ..., the part that has to be multiplied; c[0] is better added to the product.

    Paterson and Stockmeyer with blocks of two: floor(len(c) / 2) products.
    """
    if len(c) == 3 and G2 is None:
        return baddbmm(G, G, G, beta=c[1], alpha=c[2])
    return _blocks(G, G2, c) if len(c) > 2 else G * (c[1] if len(c) == 2 else 0.0)


def _blocks(G: Tensor, G2: Tensor | None, c: list[float]) -> Tensor:
    """Return the part without c[0]: c[1] G + c[2] G^2 + G^2 (c[3] G + c[4] G^2 + ...), from the inside out."""
    G2 = bmm(G, G) if G2 is None else G2
    odd = len(c) - 2 if len(c) % 2 else len(c) - 1
    Q = torch.add(c[odd] * G, G2, alpha=c[odd + 1]) if len(c) % 2 else c[odd] * G
    for j in range(odd - 2, 0, -2):
        Q = baddbmm(torch.add(c[j] * G, G2, alpha=c[j + 1]), G2, Q)
    return Q


def gram(X: Float[Tensor, "b m n"]) -> Float[Tensor, "b k k"]:
    """Return the Gram matrix on the short side: X X^T for wide X, X^T X for tall."""
    return bmm(X.mT, X) if X.shape[-2] > X.shape[-1] else bmm(X, X.mT)


def product(
    Q: Float[Tensor, "b k k"], X: Float[Tensor, "b m n"], out: Float[Tensor, "b m n"] | None = None
) -> Float[Tensor, "b m n"]:
    """Return Q X for wide X, X Q for tall, Q on the short side.

    Tall matrices are never transposed: a product into a transposed ``out`` is thousands of times slower on CPU.
    """
    return bmm(X, Q, out=out) if X.shape[-2] > X.shape[-1] else bmm(Q, X, out=out)


def stepped(
    B: Float[Tensor, "b k k"], c0: float, X: Float[Tensor, "b m n"], out: Float[Tensor, "b m n"] | None = None
) -> Float[Tensor, "b m n"]:
    """Return c0 X + B X for wide X, c0 X + X B for tall, B on the short side.

    The sum is formed before it is rounded. With c0 on the diagonal of B the rounding of B would be relative to c0, and
    turn the small singular directions of X by c0 u: in bfloat16 that was the largest error of all.
    """
    wide = X.shape[-2] <= X.shape[-1]
    return baddbmm(X, *((B, X) if wide else (X, B)), beta=c0, out=out)


def normalising_factor(p: Polynomial, X: Float[Tensor, "b m n"], *, upper: float) -> Float[Tensor, "b k k"]:
    """Return Q with Q X = p(upper X / s), s a bound on sigma_max from the Gram powers that p needs anyway."""
    c = odd_coefficients(p)
    G = gram(X)
    G2 = bmm(G, G)
    r = upper / norm_bound(G2)[:, None, None]
    Q = polynomial_of(G.mul_((r**2).to(X.dtype)), c, G2=G2.mul_((r**2).square().to(X.dtype)))
    return Q.mul_(r.to(X.dtype))


def plain_iteration(
    X: Float[Tensor, "b m n"], polynomials: tuple[Polynomial, ...], *, upper: float | None
) -> Float[Tensor, "b m n"]:
    """Return the composition of the polynomials at X = U S V^T; X is used as work space.

    With ``upper`` X, of Frobenius norm at most 1, is first scaled so that this bounds its largest singular value.
    Cost, k the short and l the long side: for each polynomial of degree 2d+1, two products of k x k by k x l and
    ceil(d/2) of k x k.
    """
    other = torch.empty_like(X)
    for i, p in enumerate(polynomials):
        if i == 0 and upper is not None:
            product(normalising_factor(p, X, upper=upper), X, other)
        else:
            c = odd_coefficients(p)
            stepped(without_identity(gram(X), c), c[0], X, other)
        X, other = other, X
    return X
