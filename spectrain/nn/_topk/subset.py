"""Smooth top-k as the gradient of log E_k(e^x), E_k the k-th elementary symmetric polynomial.

p_i is the share of subsets of k that hold i when a subset weighs exp(sum of its scores). The recursion of article
10373, Z_ki = e^x_i (Z_(k-1) - Z_(k-1)i), cancels. Here nothing is subtracted: with sum sigmoid(x_i - t) = k,

    E_k(e^x) ~ P(S = k),  S a sum of independent coins of chance sigmoid(x_i - t),

whose mean is k, so that P(S = k) is never small (at least about 1 / sqrt(n)). The distribution of S is the product of
the coins' polynomials, multiplied in a tree; going down the tree again gives P(the others make k - 1) for every i.
These are the inclusion probabilities of conditional Poisson sampling (Chen, Dempster and Liu, Biometrika 1994).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrain.nn._topk.threshold import scale, sigmoid_threshold

_DIRECT = 32
"""Longer polynomials are multiplied by FFT, exact to 1e-16 of the whole; shorter ones to 1e-16 of each coefficient."""


def subset_shares(x: Tensor, k: int, temperature: Tensor) -> Tensor:
    """p = gradient of log E_k(e^(x / temperature)), by two passes over a tree of products: O(n k) or O(n log^2 n)."""
    n = x.shape[-1]
    with torch.no_grad():  # E_k(e^(z - t)) = e^(-k t) E_k(e^z): any t gives the same p, so t has no derivative
        _, t, origin = sigmoid_threshold(x.detach(), torch.full_like(temperature, k), temperature.detach())
    u = scale(x, origin, temperature) - t
    chosen, count = 1, k
    coins = torch.stack(((-u).sigmoid(), u.sigmoid()), dim=-1)
    if 2 * k > n:  # then count what is left out instead
        coins, chosen, count = coins.flip(-1), 0, n - k
    neutral = coins.new_tensor([1.0, 0.0]).expand(*coins.shape[:-2], _next_power_of_two(n) - n, 2)
    others = _others(torch.cat((coins, neutral), dim=-2), count)[..., :n, chosen]
    return (coins[..., chosen] * others).clamp(0, 1)


def _others(coins: Tensor, count: int) -> Tensor:
    """d log P(S = count) / d coins, P the coefficient of t^count in the product of all polynomials."""
    levels = [coins]
    while levels[-1].shape[-2] > 1:
        left, right = levels[-1][..., 0::2, :], levels[-1][..., 1::2, :]
        levels.append(_product(left, right)[..., : count + 1])
    total = levels.pop()
    down = F.one_hot(torch.tensor(count, device=coins.device), total.shape[-1]) / total[..., count, None]
    for level in reversed(levels):
        left, right = level[..., 0::2, :], level[..., 1::2, :]
        pair = [_correlation(down, other, level.shape[-1]) for other in (right, left)]
        down = torch.stack(pair, dim=-2).flatten(-3, -2)
    return down


def _correlation(down: Tensor, other: Tensor, size: int) -> Tensor:
    """sum_i other_i down_(i + j) for j below ``size``."""
    whole = _product(down, other.flip(-1))[..., other.shape[-1] - 1 :]
    return F.pad(whole, (0, max(0, size - whole.shape[-1])))[..., :size]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Coefficients of the product of two polynomials."""
    m, n = a.shape[-1], b.shape[-1]
    if min(m, n) > _DIRECT:
        size = _next_power_of_two(m + n - 1)
        return torch.fft.irfft(torch.fft.rfft(a, n=size) * torch.fft.rfft(b, n=size), n=size)[..., : m + n - 1]
    if m > n:
        a, b, m, n = b, a, n, m
    rows = F.pad(a[..., :, None] * b[..., None, :], (0, m)).flatten(-2)  # a row too long, cut: each shifts by one
    return rows[..., : m * (m + n - 1)].unflatten(-1, (m, m + n - 1)).sum(-2)


def _next_power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()
