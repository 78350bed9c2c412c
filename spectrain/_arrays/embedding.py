"""Complex matrices as real ones of twice the size: A + iB is [[A, -B], [B, A]].

The map is a homomorphism that keeps adjoints, so it commutes with every function of singular values: the polar factor
of the image is the image of the unitary polar factor, each singular value counted twice. One path serves both kinds,
with its bounds, derivatives and batches; a complex matrix costs twice what native complex arithmetic would.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def as_real(X: Complex[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m2 n2"]:
    """Return [[A, -B], [B, A]] for X = A + iB.

    >>> as_real(torch.tensor([[1 + 2j]])).tolist()
    [[1.0, -2.0], [2.0, 1.0]]
    """
    A, B = X.real, X.imag
    return torch.cat([torch.cat([A, -B], -1), torch.cat([B, A], -1)], -2)


def from_real(Y: Float[Tensor, "*batch m2 n2"]) -> Complex[Tensor, "*batch m n"]:
    """Return the complex matrix whose image is nearest to Y: the means of the equal blocks.

    That is an orthogonal projection, so the distance to any image does not grow: error bounds carry over, but for
    one rounding. complex64 comes back unless Y is float64.
    """
    m, n = Y.shape[-2] // 2, Y.shape[-1] // 2
    wide = Y if Y.dtype in (torch.float32, torch.float64) else Y.float()
    A = 0.5 * (wide[..., :m, :n] + wide[..., m:, n:])
    B = 0.5 * (wide[..., m:, :n] - wide[..., :m, n:])
    return torch.complex(A, B)


def adjoint(X: Tensor) -> Tensor:
    """Return the conjugate transpose, conjugated at once.

    ``X.mH`` conjugates later, and inside of an operator of a compiled graph torch forgets to: there the complex
    matrix came back unconjugated (torch 2.13, pytorch issue 198118).
    """
    return X.conj_physical().mT if X.is_complex() else X.mT
