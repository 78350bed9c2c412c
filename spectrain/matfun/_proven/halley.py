"""msign by the dynamically weighted Halley iteration (QDWH): exact, by products, QR and Cholesky factors alone."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._iteration.largest import chirps
from spectrain.matfun._norms import enclosed_norms
from spectrain.matfun._proven.algorithm import Algorithm, Asked, Costs, Sign
from spectrain.matfun._proven.cut import Cut
from spectrain.matfun._proven.iterated import verify

_BY_QR = 100.0  # a larger weight c makes I + c X^T X too ill conditioned for its Cholesky factor
_MOST = 8
_VECTORS, _ROUNDS = 8, 4
_OVERHEAD = 1.5e-3  # seconds that do not depend on the size


class Weights(NamedTuple):
    """Of one step x -> x (a + b x^2) / (1 + c x^2), and the lower end of the interval that [lower, 1] goes to."""

    a: Float[Tensor, " b"]
    b: Float[Tensor, " b"]
    c: Float[Tensor, " b"]
    lower: Float[Tensor, " b"]


def by_qdwh(X: Float[Tensor, "b k l"], cut: Cut) -> Sign:
    """Return msign of wide X of full rank by QDWH, with a bound proven by :func:`verify`, or inf.

    X^T = Q R, then R / alpha, alpha >= sigma_max, goes through Y <- Y (a I + b Y^T Y) (I + c Y^T Y)^-1, the weights
    being those for which the image of [l, 1] under x (a + b x^2) / (1 + c x^2) is as high as it can be: it is the best
    rational function of its type for the sign (Zolotarev's), and six steps take l = 1e-16 to 1 within rounding. While c
    is above 100 a step is taken from [c^(1/2) Y; I] = [Q1; Q2] S as Y b / c + Q1 Q2^T (a - b / c) / c^(1/2): that needs
    no inverse and is backward stable (Nakatsukasa and Higham, SIAM J. Numer. Anal. 51, 2013); after that the Cholesky
    factor of I + c Y^T Y serves, at less than half the price. l comes from inverse iteration with R.

    Nothing is claimed for a matrix whose smallest singular value is not proven to be above the floor of ``cut``: all
    that are nonzero go to 1, noise too. Zolo-pd (Nakatsukasa and Freund, SIAM Review 58, 2016) takes functions of a
    higher type, which need two steps instead of six; their r QR factorizations are independent of each other, and
    three times as many in all, so that it gains where r processors work at once. Here one does, and QDWH is less work.

    Cost for a condition of 1e3: one QR factorization of 2k x k and three steps of four products'
    price, beside the QR factorization of X^T. Source: Nakatsukasa, Bai and Gygi, SIAM J. Matrix Anal. Appl. 31, 2010.
    """
    Q, R = torch.linalg.qr(X.mT)
    top, least = enclosed_norms(R)[1], _least(R)
    floor = cut.floor(top, torch.linalg.matrix_norm(X), X.shape)  # from above, as top is
    error = torch.full_like(top, torch.inf)
    Y, proven = torch.zeros_like(X), torch.zeros_like(top)
    items = (least > floor).nonzero().flatten()
    if len(items):
        scale = 1 / torch.where(top > 0, top, 1.0)[items]
        # ``least`` is from above: weights for an interval that ends above sigma_min would leave it short of 1.
        U = halley(R[items] * scale[:, None, None], 0.9 * least[items] * scale)
        signs = torch.bmm(U.mT, Q[items].mT)
        found = verify(X[items], signs, least[items])
        Y[items], proven[items] = signs, found.least.to(X.dtype)
        sure = found.least > floor[items]
        error[items] = torch.where(sure, found.error / X.shape[-2] ** 0.5, torch.inf).to(X.dtype)
    return Sign(Y, error, torch.full_like(error, X.shape[-2]), proven / top, torch.zeros_like(error))


def halley(Y: Float[Tensor, "b k k"], lower: Float[Tensor, " b"]) -> Float[Tensor, "b k k"]:
    """Return the polar factor of square Y with singular values in [lower, 1] by at most eight weighted Halley steps."""
    for _ in range(_MOST):
        if bool((1 - lower <= 10 * torch.finfo(Y.dtype).eps).all()):
            break
        a, b, c, lower = weights(lower)
        step = step_by_qr if bool((c > _BY_QR).any()) else step_by_cholesky
        Y = step(Y, a, b, c)
    return Y


def step_by_qr(Y: Float[Tensor, "b k k"], a: Tensor, b: Tensor, c: Tensor) -> Float[Tensor, "b k k"]:
    """Return Y (a I + b Y^T Y) (I + c Y^T Y)^-1 from the orthonormal factor of [c^(1/2) Y; I], for any c."""
    a, b, c = (w[:, None, None] for w in (a, b, c))
    eye = torch.eye(Y.shape[-1], dtype=Y.dtype, device=Y.device).expand_as(Y)
    Q1, Q2 = torch.linalg.qr(torch.cat([c.sqrt() * Y, eye], -2))[0].split(Y.shape[-1], -2)
    return b / c * Y + (a - b / c) / c.sqrt() * torch.bmm(Q1, Q2.mT)


def step_by_cholesky(Y: Float[Tensor, "b k k"], a: Tensor, b: Tensor, c: Tensor) -> Float[Tensor, "b k k"]:
    """Return the same from the Cholesky factor of I + c Y^T Y, whose condition is up to c."""
    a, b, c = (w[:, None, None] for w in (a, b, c))
    eye = torch.eye(Y.shape[-1], dtype=Y.dtype, device=Y.device).expand_as(Y)
    L = torch.linalg.cholesky(torch.baddbmm(eye, Y.mT, c * Y))
    return b / c * Y + (a - b / c) * torch.cholesky_solve(Y.mT, L).mT


def factorizations(lower: float) -> tuple[int, int]:
    """Return how many steps by QR and by Cholesky take [lower, 1] to 1 within the rounding of float64.

    >>> factorizations(1e-16), factorizations(1e-3), factorizations(0.5)
    ((2, 4), (1, 3), (0, 3))
    """
    low, counts = torch.tensor([lower], dtype=torch.float64), [0, 0]
    while counts[0] + counts[1] < _MOST and bool(1 - low > 10 * torch.finfo(low.dtype).eps):
        _, _, c, low = weights(low)
        counts[int(c <= _BY_QR)] += 1
    return counts[0], counts[1]


def weights(lower: Float[Tensor, " b"]) -> Weights:
    """Return the best weights for [lower, 1]: the minimum of the step there is at both ends of an equioscillation.

    >>> a, b, c, lower = weights(torch.tensor([1.0, 1e-16], dtype=torch.float64))
    >>> [float(w[0]) for w in (a, b, c, lower)]
    [3.0, 1.0, 3.0, 1.0]
    >>> steps = 0
    >>> while lower[1] < 1 - 1e-15:
    ...     lower, steps = weights(lower).lower, steps + 1
    >>> steps
    5
    """
    square = lower.clamp(max=1.0).square()
    d = (4 * (1 - square) / square.square()) ** (1 / 3)
    root = (1 + d).sqrt()
    a = root + 0.5 * (8 - 4 * d + 8 * (2 - square) / (square * root)).clamp_min(0).sqrt()
    b = (a - 1).square() / 4
    c = a + b - 1
    return Weights(a, b, c, (lower * (a + b * square) / (1 + c * square)).clamp(max=1.0))


def _least(R: Float[Tensor, "b k k"]) -> Float[Tensor, " b"]:
    """Return about sigma_min of upper triangular R, from above, by inverse iteration; 0 where R is singular."""
    V = chirps(R.shape[-1], _VECTORS, R).expand(len(R), -1, -1)
    for _ in range(_ROUNDS):
        V = V / torch.linalg.vector_norm(V, dim=-2, keepdim=True)
        V = torch.linalg.solve_triangular(R, torch.linalg.solve_triangular(R.mT, V, upper=False), upper=True)
    growth = torch.linalg.vector_norm(V, dim=-2).amax(-1)
    singular = (R.diagonal(dim1=-2, dim2=-1) == 0).any(-1)
    return torch.where(singular | ~growth.isfinite(), 0.0, growth.rsqrt())


def _price(asked: Asked, costs: Costs) -> float:
    """Seconds for the steps that a random matrix of the shape needs."""
    by_qr, by_cholesky = factorizations(max(asked.expected, 1 / (2 * asked.k)))
    qr = (by_qr + asked.aspect / 2) * costs.decomposition("qr", "float64", asked.k)
    cholesky = by_cholesky * costs.decomposition("halley", "float64", asked.k)
    return _OVERHEAD + qr + costs.product("float64", asked.k, 2 * asked.aspect + 6) + cholesky


HALLEY = Algorithm(
    "qdwh float64", "qdwh", "weighted Halley steps, full rank only, error about 1e-16 condition",
    run=lambda X, cut, _: by_qdwh(X.double(), cut), price=_price, fits=lambda dtype, threshold: not threshold,
    full_rank=True, backup=True,
)  # fmt: skip
