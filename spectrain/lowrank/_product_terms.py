"""Terms of a product seen as vectors: X Y is a sum of x_i y_i^T, and their Gram matrix says all about choosing them."""

import itertools
import math

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

SUBSETS = 2_000_000
_CHUNK = 4096


def term_gram(X: Num[Tensor, "m l"], Y: Num[Tensor, "l n"]) -> Num[Tensor, "l l"]:
    """Return H = (X^H X) o conj(Y Y^H), H_ij the inner product of the terms x_i y_i^T and x_j y_j^T; O(l^2 (m + n))."""
    return (X.mH @ X) * (Y @ Y.mH).conj()


def squared_error(H: Num[Tensor, "l l"], w: Num[Tensor, " l"]) -> Float[Tensor, ""]:
    """Return (1 - w)^H H (1 - w) = ||X Y - X diag(w) Y||_F^2."""
    left = 1 - w
    return (left.conj() @ H @ left).real.clamp_min(0.0)


def best_weights(H: Num[Tensor, "l l"], S: Int[Tensor, " k"]) -> Num[Tensor, " k"]:
    """Return the weights that minimise the error on the support S: H_SS w = (H 1)_S, by least squares."""
    return _solve(H[S[:, None], S], H[S].sum(1))


def _solve(P: Tensor, c: Tensor) -> Tensor:
    """Solve a semidefinite system; directions below rounding get nothing."""
    L, V = torch.linalg.eigh(P)
    keep = torch.finfo(L.dtype).eps * len(L) * L[-1].clamp_min(0.0) < L
    return V @ (torch.where(keep, 1 / torch.where(keep, L, 1.0), 0.0) * (V.mH @ c))


def forward(H: Num[Tensor, "l l"], k: int, *, by_trace: bool = False) -> Int[Tensor, " k"]:
    """Choose k terms one after the other, each the one that lowers the error most with all weights fitted again.

    Orthogonal greedy (order-recursive matching pursuit) for the target sum of all terms, in the inner product H. With
    d_i the part of term i that the chosen ones do not explain and c_i its product with what is left of the target,
    term i lowers the squared error by |c_i|^2 / d_i; a row of Cholesky's factor updates both, O(k l) a step. With
    ``by_trace`` the largest d_i is taken instead: pivoted Cholesky, which bounds the terms and not their sum.

    Terms that depend on the chosen ones are left out; if too few remain, the rest is filled up with unused ones.
    """
    d, c = H.diagonal().real.clone(), H.sum(1)
    floor = torch.finfo(d.dtype).eps * len(H) * d.max()
    rows = H.new_zeros(k, len(H))
    chosen: list[int] = []
    for t in range(k):
        usable = d > floor
        usable[chosen] = False
        score = d if by_trace else c.abs().square() / torch.where(usable, d, 1.0)
        i = int(torch.where(usable, score, -1.0).argmax())
        if not usable[i]:
            break
        root = d[i].sqrt()
        rows[t] = (H[i] - rows[:t, i].conj() @ rows[:t]) / root
        c = c - rows[t].conj() * (c[i] / root)
        d = (d - rows[t].abs().square()).clamp_min(0.0)
        chosen.append(i)
    unused = torch.ones(len(H), dtype=torch.bool)
    unused[chosen] = False
    return torch.cat([torch.tensor(chosen, dtype=torch.long), unused.nonzero()[: k - len(chosen), 0]]).to(H.device)


def backward(H: Num[Tensor, "l l"], k: int) -> Int[Tensor, " k"]:
    """Drop one term after the other until k are left, each the one that raises the error least: |w_i|^2 / P_ii.

    P = inv(H_SS) and w are downdated, O(s^2) a step. Needs H definite; a shift at rounding level makes it so.
    """
    shift = torch.finfo(H.real.dtype).eps * len(H) * H.diagonal().real.max().clamp_min(torch.finfo(H.real.dtype).tiny)
    P = torch.linalg.inv(H + shift * torch.eye(len(H), dtype=H.dtype, device=H.device))
    w, S = torch.ones(len(H), dtype=H.dtype, device=H.device), torch.arange(len(H), device=H.device)
    while len(S) > k:
        i = int((w.abs().square() / P.diagonal().real.clamp_min(0.0)).argmin())
        w = w - P[:, i] * (w[i] / P[i, i])
        P = P - torch.outer(P[:, i], P[i]) / P[i, i]
        keep = torch.arange(len(S), device=H.device) != i
        S, w, P = S[keep], w[keep], P[keep][:, keep]
    return S


def exchange(H: Num[Tensor, "l l"], S: Int[Tensor, " k"], *, limit: int | None = None) -> Int[Tensor, " k"]:
    """Exchange one term for another, always the best of all k (l - k) exchanges, until none lowers the error.

    With P = inv(H_SS), w = P (H 1)_S, B = P H_S: removing S[i] and adding j gives the squared error

        e + |w_i|^2 / P_ii - |c_j + conj(B_ij) w_i / P_ii|^2 / (d_j + |B_ij|^2 / P_ii).

    An exchange is accepted only when the error, computed again, is lower by more than rounding.
    """
    c, error = H.sum(1), error_on(H, S)
    slack = 1 - 1e3 * torch.finfo(error.dtype).eps * len(S)
    floor = torch.finfo(error.dtype).eps * len(H) * H.diagonal().real.max()
    done = 0
    while limit is None or done < limit:
        L, info = torch.linalg.cholesky_ex(H[S[:, None], S])
        if int(info):
            break
        P = torch.cholesky_inverse(L)
        w, B, p = P @ c[S], P @ H[S], P.diagonal().real[:, None]
        d = (H.diagonal().real - (H[S].conj() * B).sum(0).real).clamp_min(0.0)
        size = d + B.abs().square() / p
        product = (c - H[:, S] @ w) + B.conj() * (w[:, None] / p)
        gain = torch.where(size > floor, product.abs().square() / torch.where(size > floor, size, 1.0), 0.0)
        change = w.abs().square()[:, None] / p - gain
        change[:, S] = torch.inf
        i, j = divmod(int(change.argmin()), len(H))
        trial = S.clone()
        trial[i] = j
        new = error_on(H, trial)
        if not new < slack * error:
            break
        S, error, done = trial, new, done + 1
    return S


def error_on(H: Num[Tensor, "l l"], S: Int[Tensor, " k"]) -> Float[Tensor, ""]:
    """Return the squared error of the best weights on S."""
    w = torch.zeros(len(H), dtype=H.dtype, device=H.device)
    w[S] = best_weights(H, S)
    return squared_error(H, w)


def exhaustive(H: Num[Tensor, "l l"], k: int) -> Int[Tensor, " k"]:
    """Return the best support of k terms, by looking at all of them; ValueError above two million."""
    if (count := math.comb(len(H), k)) > SUBSETS:
        raise ValueError(
            f"cr: method='exhaustive' would look at C({len(H)}, {k}) = {count:,} subsets, the limit is {SUBSETS:,}; "
            "use method='subset', which exchanges terms until none improves"
        )
    c, best, chosen = H.sum(1), -math.inf, tuple(range(k))
    ridge = (
        torch.finfo(H.real.dtype).eps * len(H) * H.diagonal().real.max() * torch.eye(k, dtype=H.dtype, device=H.device)
    )
    subsets = itertools.combinations(range(len(H)), k)
    while block := list(itertools.islice(subsets, _CHUNK)):
        S = torch.tensor(block, device=H.device)
        L, _ = torch.linalg.cholesky_ex(H[S[:, :, None], S[:, None, :]] + ridge)
        explained = torch.linalg.solve_triangular(L, c[S][..., None], upper=False).abs().square().sum((-2, -1))
        value, where = torch.nan_to_num(explained, nan=-math.inf).max(0)
        if float(value) > best:
            best, chosen = float(value), block[int(where)]
    return torch.tensor(chosen, device=H.device)


def tuples(H: Num[Tensor, "l l"], k: int, *, group: int) -> Int[Tensor, " k"]:
    """Drop l - k terms in groups whose sum is smallest, again and again (article 10427); what remains has weight 1.

    ``group=1`` is top norms. A group of g costs C(l, g) sums at each of the (l - k) / g turns, so g is 1, 2 or 3. The
    last group is smaller where g does not divide l - k.
    """
    left = list(range(len(H)))
    while (surplus := len(left) - k) > 0:
        size = min(group, surplus)
        G = H[left][:, left].real
        index = torch.combinations(torch.arange(len(left)), size)
        total = sum(G[index[:, a], index[:, b]] for a in range(size) for b in range(size))
        drop = set(index[int(torch.as_tensor(total).argmin())].tolist())
        left = [t for position, t in enumerate(left) if position not in drop]
    return torch.tensor(left, device=H.device)
