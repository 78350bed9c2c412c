"""A bound on the norm of what is only known by products, from a few Gaussian probes, with its failure probability."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import lambertw
from torch import Tensor

from spectrain.lowrank._matrix.matrix import Matrix, gaussian

FAILURE = 1e-6  # of all the bounds of one call together
COUNT = 16


def quantile(freedom: int, failure: float) -> float:
    """Return t in (0, 1) such that a probe mean falls below t times its expectation with probability <= failure.

    For R fixed and w standard normal, q = mean of ||R w_j||^2 over s real probes (freedom s; complex ones count
    twice) has E exp(-z q) <= (1 + 2 z ||R||_F^2 / s)^(-s/2), because prod (1 + a_i) >= 1 + sum a_i. Chernoff's bound
    gives P(q <= t ||R||_F^2) <= (t exp(1 - t))^(s/2), the law of one direction being the worst; solved for t by
    Lambert's W.

    >>> t = quantile(16, 1e-9)
    >>> abs((t * math.exp(1 - t)) ** 8 / 1e-9 - 1) < 1e-9
    True
    """
    return float(-lambertw(-(failure ** (2 / freedom)) / math.e).real)


@dataclass(frozen=True, slots=True)
class Probes:
    """Gaussian vectors W and their images A W, drawn once; every basis is judged by them without new products.

    A basis must not depend on W but through the decision to stop: then a bound at each of several looks, with failure
    probabilities failure / 2, failure / 4, ..., holds with their sum.
    """

    W: Tensor
    image: Tensor

    @classmethod
    def of(cls, A: Matrix, generator: torch.Generator) -> "Probes":
        """Draw probes for A and multiply it by them: COUNT products."""
        W = gaussian(*A.shape[:-2], A.shape[-1], COUNT, dtype=A.dtype, device=A.device, generator=generator)
        return cls(W, A @ W)

    def mean_square(self) -> Float[Tensor, "*batch"]:
        """Return an unbiased estimate of ||A||_F^2."""
        return _mean_square(self.image)

    def bound(self, Q: Tensor, failure: float) -> Float[Tensor, "*batch"]:
        """Return b with ||A - Q Q^H A||_F <= b but for that probability."""
        outside = self.image - Q @ (Q.mH @ self.image)
        outside = outside - Q @ (Q.mH @ outside)
        noise = torch.finfo(Q.dtype).eps * _mean_square(self.image).sqrt()
        freedom = COUNT * (2 if Q.is_complex() else 1)
        return (_mean_square(outside).sqrt() + noise) / math.sqrt(quantile(freedom, failure))


def spectral_bound(A: Matrix, Q: Tensor, generator: torch.Generator, failure: float) -> Float[Tensor, "*batch"]:
    """Return b with ||R||_2 <= b but for that probability, R = A - Q Q^H A, by new probes of (R R^H)^2 R.

    ||R||_2^5 <= ||(R R^H)^2 R||_F, and the fifth root of the factor that probes cost is small (Halko, Martinsson
    and Tropp 2011, section 4.3, used with one power). COUNT columns in 5 products.
    """
    Y = gaussian(*A.shape[:-2], A.shape[-1], COUNT, dtype=A.dtype, device=A.device, generator=generator)
    freedom = COUNT * (2 if Q.is_complex() else 1)
    total = torch.zeros(A.shape[:-2], dtype=torch.float64, device=A.device)
    for k in range(5):
        Y = A @ Y if k % 2 == 0 else A.adjoint_times(Y)
        if k % 2 == 0:
            Y = Y - Q @ (Q.mH @ Y)
            Y = Y - Q @ (Q.mH @ Y)
        size = _mean_square(Y).sqrt()
        total = total + size.log()
        Y = Y / torch.where(size > 0, size, 1.0).to(Y.dtype)[..., None, None]
    return torch.exp((total - 0.5 * math.log(quantile(freedom, failure))) / 5)


def _mean_square(Y: Tensor) -> Tensor:
    return Y.detach().abs().double().square().sum((-2, -1)) / COUNT
