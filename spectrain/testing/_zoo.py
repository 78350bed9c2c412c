"""A zoo of matrices: every kind that has broken an orthogonalisation somewhere."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.testing._spectra import _generator, random_orthonormal, with_singular_values


def zoo(m: int, n: int, *, generator: torch.Generator | int = 0) -> dict[str, Float[Tensor, "{m} {n}"]]:
    """Return named m x n float64 matrices: given spectra, structure, rank deficiency, extreme grading.

    ======================== ===================================================================
    gaussian                 independent normal entries
    decades_2, _6, _12       singular values spread evenly over so many decades
    power_law                s_i = 1/i
    clustered                half at 1, half at 1/100, each within 1e-6
    one_small                all 1 but the last, 1e-5
    one_large                all 1 but the first, 1e4
    orthonormal              all exactly 1 to rounding
    rank_deficient           a quarter of the rank, Gaussian factors
    rank_one                 u v^T
    graded                   Gaussian with rows from 1 to 1e-6
    one_hot                  a token gradient: few rows nonzero
    permutation              rows of a permutation matrix
    constant                 all entries 1
    zero                     all entries 0
    momentum                 sum of decaying low-rank gradients with a noise floor
    triangular               upper triangle of ones
    ======================== ===================================================================

    >>> sorted(zoo(3, 4))[:3], zoo(3, 4)["zero"].shape
    (['clustered', 'constant', 'decades_12'], torch.Size([3, 4]))
    """
    g = _generator(generator)
    return {name: X for table in (_spectra(m, n, g), _structured(m, n, g)) for name, X in table.items()}


def _spectra(m: int, n: int, g: torch.Generator) -> dict[str, Tensor]:
    k = min(m, n)
    one = torch.ones(k, dtype=torch.float64)
    jitter = 1 + 1e-6 * torch.rand(k, dtype=torch.float64, generator=g)
    spectra = {f"decades_{d}": torch.logspace(0, -d, k, dtype=torch.float64) for d in (2, 6, 12)}
    spectra |= {
        "power_law": 1 / torch.arange(1, k + 1, dtype=torch.float64),
        "clustered": jitter * torch.where(torch.arange(k) < (k + 1) // 2, 1.0, 0.01),
        "one_small": torch.cat([one[1:], one[:1] * 1e-5]),
        "one_large": torch.cat([one[:1] * 1e4, one[1:]]),
        "orthonormal": one,
    }
    return {name: with_singular_values(s, m, n, generator=g) for name, s in spectra.items()}


def _structured(m: int, n: int, g: torch.Generator) -> dict[str, Tensor]:
    k, rank = min(m, n), max(1, min(m, n) // 4)
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=g)  # noqa: E731
    eye = torch.eye(m, n, dtype=torch.float64)
    rows = torch.randint(m, (max(1, m // 8),), generator=g)
    return {
        "gaussian": normal(m, n),
        "rank_deficient": normal(m, rank) @ normal(rank, n),
        "rank_one": normal(m, 1) @ normal(1, n),
        "graded": normal(m, n) * torch.logspace(0, -6, m, dtype=torch.float64)[:, None],
        "one_hot": torch.zeros(m, n, dtype=torch.float64).index_put((rows,), normal(len(rows), n)),
        "permutation": eye[torch.randperm(m, generator=g)],
        "constant": torch.ones(m, n, dtype=torch.float64),
        "zero": torch.zeros(m, n, dtype=torch.float64),
        "momentum": _momentum(m, n, k, g),
        "triangular": torch.ones(m, n, dtype=torch.float64).triu(),
    }


def _momentum(m: int, n: int, k: int, g: torch.Generator) -> Tensor:
    """Return a matrix like an optimizer's momentum: a few strong directions over a weak full-rank floor."""
    rank = max(1, int(math.sqrt(k)))
    U, V = random_orthonormal(m, rank, generator=g), random_orthonormal(n, rank, generator=g)
    floor = torch.randn(m, n, dtype=torch.float64, generator=g) / math.sqrt(m + n)
    return (U * torch.logspace(1, 0, rank, dtype=torch.float64)) @ V.T + 0.03 * floor
