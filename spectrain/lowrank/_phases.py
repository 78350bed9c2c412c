"""Canonical signs and phases: singular vectors are unique up to a unit factor, and this picks it."""

import torch
from torch import Tensor


def canonical(U: Tensor, Vh: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same pairs with the largest entry of each column of U (the first of several) real and positive.

    U diag(S) Vh does not change: column j of U is multiplied by a unit number and row j of Vh by its conjugate. The
    factor is differentiable, so that gradients of complex factors are those of a well defined function.

    >>> U, Vh = canonical(torch.tensor([[-0.8], [0.6]]), torch.tensor([[1.0, 0.0]]))
    >>> U[:, 0].tolist(), Vh[0].tolist()
    ([0.800000011920929, -0.6000000238418579], [-1.0, -0.0])
    """
    where = U.detach().abs().argmax(dim=-2, keepdim=True)
    phase = torch.sgn(U.gather(-2, where)).conj()
    phase = torch.where(phase == 0, torch.ones_like(phase), phase)
    return U * phase, Vh * phase.conj().mT
