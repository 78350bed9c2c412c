"""msign by decomposition, with a proof of its error that is computed from the input.

Everything runs in the dtype of the argument, float64 or, where a loose tolerance allows, float32.
"""

import functools
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spectrain._arrays.products import bmm
from spectrain.matfun._norms import enclosed_norms
from spectrain.matfun._proven.algorithm import OVERHEAD, Algorithm, Asked, Costs, Sign
from spectrain.matfun._proven.cut import Cut, beside, exact_zeros

_norm = torch.linalg.matrix_norm
_FLOAT32_TOL, _FLOAT32_ASPECT = 1e-2, 1.5
_MIXED_TOL, _MIXED_LEAST = 5e-4, 384  # random square matrices are proven, and faster, from this tolerance and size on
_SHORT = 0.05  # of the longest row


def by_svd(X: Float[Tensor, "b k l"], cut: Cut) -> Sign:
    """Return msign of wide X by LAPACK's SVD. The bound is about eps times the condition of the kept part.

    With Q_U and Q_V the orthonormal matrices next to U and V, B = Q_U S Q_V^T has msign_r(B) = Q_U Q_V^T over the kept
    values exactly. The rows and columns of X - B in the singular basis are those of the residuals U^T X - S V^T and X V
    - U S, and what U and V lack in orthonormality. The first value that is dropped is at most ||X - U_r S_r V_r^T||
    (Eckart and Young): that decides where S alone cannot.
    """
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    keep = cut.below(S, X.shape)[:, None] < S
    Y = torch.bmm(U * keep[..., None, :], Vh)
    lost_U, lost_V = _defects(U.mT), _defects(Vh)
    lost = 0.5 * (_rows(lost_U * S[:, None, :]) + _rows(lost_V * S[:, None, :]))
    lost = lost + 0.5 * S * (_rows(lost_U) + _rows(lost_V))
    residual_U, residual_V = torch.bmm(U.mT, X) - S[..., None] * Vh, torch.bmm(X, Vh.mT) - U * S[..., None, :]
    rows = (0.5 * (_rows(residual_U).square() + _rows(residual_V.mT).square())).sqrt() + lost + _row_noise(X)
    defect = 0.5 * (_norm(keep[..., None] * lost_U) + _norm(keep[..., None] * lost_V))
    found = _sign(Y, X, S, keep, rows, torch.where(keep, 0.0, S).amax(-1), defect)

    def rest() -> Tensor:
        remains = X - torch.bmm(U * torch.where(keep, S, 0.0)[:, None, :], Vh)
        return enclosed_norms(remains)[1] + _product_error(X, found.rank)

    return _decide(found, cut, X, S, keep, torch.linalg.vector_norm(rows, dim=-1), rest)


def by_eigh(X: Float[Tensor, "b k l"], cut: Cut, *, mixed: bool = False) -> Sign:
    """Return msign of wide X by eigenvectors V of X X^T. The bound is about eps condition + (eps condition^2)^2.

    X = V Z with Z = V^T X, whose rows should be orthogonal with the singular values as lengths. Rows above the floor,
    at unit length, are W, with W W^T = I + E, and E is about eps condition^2. The square root of Z Z^T = S (I + E) S to
    first order gives msign(Z) = (I - F) W, F_ij = E_ij s_j / (s_i + s_j). What remains, X - B for B with msign_r(B) = V
    (I - F) W at unit length, is of second order in E, the products of kept and dropped rows, and what V lacks in
    orthonormality. Nothing is claimed where E is too large for that. Cost: 4 k^2 l + 3 k^3 multiplications beside eigh.

    For ``mixed`` V comes from float32 (:func:`_mixed_vectors`), and so do the last two products. All that the bound is
    made of stays in float64.
    """
    if mixed:
        V, Z = _mixed_vectors(X)
    else:
        V = torch.linalg.eigh(torch.bmm(X, X.mT))[1]
        Z = torch.bmm(V.mT, X)
    S = torch.linalg.vector_norm(Z, dim=-1)
    floor = cut.below(S, X.shape)
    keep = floor[:, None] < S
    inverse = torch.where(keep, 1 / S, 0.0)
    W = Z * inverse[..., None]
    P = torch.bmm(Z, W.mT)
    one = torch.diag_embed(keep.to(X.dtype))
    E = P * inverse[..., None] - one
    F = E * _share(S, keep)
    last = [A.float() if mixed else A for A in (V, one - F, W)]
    Y = bmm(bmm(last[0], last[1]), last[2])
    lost = _defects(V.mT)
    lost = lost * (1 + _norm(lost))[:, None, None]  # what is of second order in it
    second = 0.5 * (S * _weighted(E, _rows(F)) + _weighted(F, _rows(E * S[:, None, :])))
    coupling = torch.linalg.vector_norm(torch.where(keep[..., None], 0.0, P), dim=-2)
    rows = 2 * second + coupling + 0.5 * _rows(lost * S[:, None, :]) + _row_noise(X)
    dropped = _dropped_norm(Z, keep)
    off, correction = _norm(E), _norm(F)
    found = _sign(
        Y, X, S, keep, rows, dropped, 0.5 * _norm(keep[..., None] * lost) + correction * (2 * off + correction)
    )
    delta = torch.linalg.vector_norm(rows, dim=-1)
    rounding = 4 * torch.finfo(torch.float32).eps * X.shape[-2] ** 0.5 if mixed else 0.0
    found = found._replace(error=torch.where(off < 0.1, found.error + rounding, torch.inf))
    return _decide(found, cut, X, S, keep, delta, lambda: dropped + delta)


def _mixed_vectors(X: Float[Tensor, "b k l"]) -> tuple[Float[Tensor, "b k k"], Float[Tensor, "b k l"]]:
    """Return eigenvectors V of X X^T in float64 from those in float32, and V^T X.

    Rounding to float32 mixes eigenvectors i and j by about 6e-8 max(S)^2 / (s_i s_j). That is small and corrected to
    first order by who uses them, unless both are: so those rows of V^T X that are short are made orthogonal among each
    other, by a decomposition of their own Gram matrix in float64. Of a random square matrix they are one in sixteen.
    """
    narrow = X.float()
    V = torch.linalg.eigh(bmm(narrow, narrow.mT))[1].double()
    Z = torch.bmm(V.mT, X)
    S = torch.linalg.vector_norm(Z, dim=-1)
    few = int((_SHORT * S.amax(-1, keepdim=True) > S).sum(-1).amax())
    if few:
        short = Z[:, :few]
        turn = torch.linalg.eigh(torch.bmm(short, short.mT))[1]
        V[..., :few] = torch.bmm(V[..., :few], turn)
        Z[:, :few] = torch.bmm(turn.mT, short)
    return V, Z


def _decide(
    found: Sign,
    cut: Cut,
    X: Float[Tensor, "b k l"],
    S: Float[Tensor, "b k"],
    keep: Bool[Tensor, "b k"],
    delta: Float[Tensor, " b"],
    rest: Callable[[], Float[Tensor, " b"]],
) -> Sign:
    """Return what was found, and how many singular values may be on the other side of the cut.

    ``delta`` bounds the errors of S, ``rest()`` what was dropped; the latter only matters beside the cut.
    """
    band = cut.band(S, X.shape, delta)
    undecided = beside(band, S, keep, delta, torch.full_like(delta, torch.inf))
    if bool((undecided > 0).any()):
        most = torch.where(keep.shape[-1] - keep.sum(-1) <= exact_zeros(X), 0.0, rest())
        undecided = beside(band, S, keep, delta, most)
    return found._replace(undecided=undecided)


def _share(S: Float[Tensor, "b k"], keep: Bool[Tensor, "b k"]) -> Float[Tensor, "b k k"]:
    """Return s_j / (s_i + s_j) where both count, else zero."""
    both = keep[:, :, None] & keep[:, None, :]
    return torch.where(both, S[:, None, :] / torch.where(both, S[:, :, None] + S[:, None, :], 1.0), 0.0)


def _sign(
    Y: Float[Tensor, "b k l"],
    X: Float[Tensor, "b k l"],
    S: Float[Tensor, "b k"],
    keep: Bool[Tensor, "b k"],
    rows: Float[Tensor, "b k"],
    dropped: Float[Tensor, " b"],
    defect: Float[Tensor, " b"],
) -> Sign:
    """Return Y with the bound that follows from ||Y - Q||_F <= defect, Q = msign_r(B), and from X - B row by row.

    ``rows`` bounds sqrt((||u_i^T (X - B)||^2 + ||(X - B) v_i||^2) / 2), u_i and v_i the singular vectors of B. In the
    eigenbasis of the Hermitian dilation of B on the left and of X on the right, the entries of the difference of two
    functions h of them are those of the difference of the dilations times h[s_i, s_j'], the divided difference; with h
    = 1 on what is kept, odd, and 0 on what is not: 2 / (s_i + s_j') among the kept and 1 / (s_i - s_j') to the dropped,
    which counts twice, since two projections of one rank are each as far outside of the other. So ||msign_r(X) -
    Q||_F^2 <= sum_i w_i^2 rows_i^2, w_i = max(2 / (s_i + min s'), sqrt(2) / (s_i - max dropped)); the s' are those of B
    within ||X - B|| (Weyl). Small singular values pay for their own rows alone.
    """
    rank = keep.sum(-1).to(X.dtype)
    smallest = torch.where(keep, S, torch.inf).amin(-1)
    delta = torch.linalg.vector_norm(rows, dim=-1)
    least, most = smallest - delta, torch.where(keep.all(-1), 0.0, dropped + delta)
    apart = (least > most)[:, None] & keep
    among = 2 / torch.where(apart, S + least[:, None], 1.0)
    across = 2**0.5 / torch.where(apart, S - most[:, None], 1.0)
    weights = torch.where(apart, torch.maximum(among, across), 0.0)
    bound = defect + _product_noise(X) * rank.sqrt() + torch.linalg.vector_norm(weights * rows, dim=-1)
    trivial = 2 + defect  # two matrices of that norm are no farther apart, whatever they are
    error = torch.where(least > most, torch.minimum(bound / rank.clamp_min(1).sqrt(), trivial), trivial)
    some = rank > 0
    relative = torch.where(some, smallest / S.amax(-1), 1.0)
    return Sign(Y, torch.where(some, error, 0.0), rank, relative, torch.zeros_like(error))


def _row_noise(X: Float[Tensor, "b k l"]) -> Float[Tensor, "b 1"]:
    """Return the rounding error of a row of Q^T X or a column of X Q, Q orthonormal, in norm.

    Roundings of a sum of k terms are u times its partial sums, of random signs: u ||X||_F / 2 for a row in all
    (probabilistic, Higham and Mary, SISC 41, 2019). The factor is for sums that are less random.
    """
    return torch.finfo(X.dtype).eps / 2 * (sum(X.shape[-2:]) / X.shape[-2]) ** 0.5 * _norm(X)[:, None]


def _product_error(X: Float[Tensor, "b k l"], rank: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return the spectral norm of the rounding error of U_r S_r V_r^T: entries are sums of r terms, of random signs."""
    m, n = X.shape[-2:]
    entries = torch.finfo(X.dtype).eps / 2 * (rank + 1).sqrt() * _norm(X)
    return entries * min(1.0, (m**0.5 + n**0.5) / (m * n) ** 0.5)


def _product_noise(X: Tensor) -> float:
    """Return the relative rounding error of Y itself, a product of orthonormal matrices."""
    return 2 * torch.finfo(X.dtype).eps


def _rows(E: Float[Tensor, "b k l"]) -> Float[Tensor, "b k"]:
    return torch.linalg.vector_norm(E, dim=-1)


def _weighted(A: Float[Tensor, "b k k"], rows: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Return bounds on the norms of the rows of A B, where B has rows of these norms."""
    return torch.bmm(A.abs(), rows[..., None])[..., 0]


def _defects(Q: Float[Tensor, "b k l"]) -> Float[Tensor, "b k k"]:
    """Return Q Q^T - I: how far the rows of Q are from orthonormal ones."""
    E = torch.bmm(Q, Q.mT)
    E.diagonal(dim1=-2, dim2=-1).sub_(1)
    return E


def _dropped_norm(Z: Float[Tensor, "b k l"], keep: Bool[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Return an upper bound on the spectral norm of the rows of Z that are not kept."""
    if bool(keep.all()):
        return Z.new_zeros(len(Z))
    return enclosed_norms(torch.where(keep[..., None], 0.0, Z))[1]


def _eigh_price(dtype: str, asked: Asked, costs: Costs) -> float:
    """Seconds of the eigenvectors of the Gram matrix, and of the products that make and use them."""
    products = costs.product(dtype, asked.k, 4 * asked.aspect + 3)
    return OVERHEAD + costs.decomposition("eigh", dtype, asked.k) + products


def _eigh_float32_price(asked: Asked, costs: Costs) -> float | None:
    """A float32 Gram matrix serves a tolerance above 1e-2 up to conditions of a few hundred. A random matrix with
    aspect 1.5 has a condition below 10 (Marchenko and Pastur), a square one of k rows near 2 k.
    """
    serves = asked.tol >= _FLOAT32_TOL and asked.aspect >= _FLOAT32_ASPECT
    return _eigh_price("float32", asked, costs) if serves else None


def _mixed_price(asked: Asked, costs: Costs) -> float | None:
    """Seconds of float32 eigenvectors, of those of a sixteenth in float64, and of products in both."""
    if asked.tol < _MIXED_TOL or asked.k < _MIXED_LEAST:
        return None
    k, aspect = asked.k, asked.aspect
    eigenvectors = costs.decomposition("eigh", "float32", k) + costs.decomposition("eigh", "float64", max(1, k // 16))
    products = costs.product("float64", k, 2 * aspect + 1) + costs.product("float32", k, 2 * aspect + 1)
    return OVERHEAD + eigenvectors + products


def _svd_price(asked: Asked, costs: Costs) -> float:
    products = costs.product("float64", asked.k, 7 * asked.aspect - 3)
    return OVERHEAD + costs.decomposition("svd", "float64", asked.k) + products


EIGH_FLOAT32 = Algorithm(
    "eigh float32", "eigh", "eigenvectors of the Gram matrix, error about 6e-8 condition^2",
    run=lambda X, cut, _: by_eigh(X.float(), cut), price=_eigh_float32_price,
)  # fmt: skip
EIGH_MIXED = Algorithm(
    "eigh mixed", "eigh", "eigenvectors in float32, short rows and proof in float64, error about 1e-7 condition",
    run=lambda X, cut, _: by_eigh(X.double(), cut, mixed=True), price=_mixed_price,
    fits=lambda dtype, threshold: dtype != torch.float64 and not threshold,
)  # fmt: skip
EIGH = Algorithm(
    "eigh float64", "eigh", "eigenvectors of the Gram matrix, error about 1e-16 condition^2",
    run=lambda X, cut, _: by_eigh(X.double(), cut), price=functools.partial(_eigh_price, "float64"), backup=True,
)  # fmt: skip
SVD = Algorithm(
    "svd float64", "svd", "LAPACK's SVD, error about 1e-16 condition",
    run=lambda X, cut, _: by_svd(X.double(), cut), price=_svd_price, backup=True,
)  # fmt: skip
