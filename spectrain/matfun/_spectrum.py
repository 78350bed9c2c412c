"""What the Gram matrix at hand says about the singular values: a quadrature of their distribution."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._iteration.largest import chirps

_PROBES, _LANCZOS = 8, 8


class Quadrature(NamedTuple):
    """Nodes in [0, 1], singular values relative to a bound on the largest one, rising, and weights that add up to 1."""

    nodes: Float[Tensor, "b q"]
    weights: Float[Tensor, "b q"]


def quadrature(G: Float[Tensor, "b k k"], top: Float[Tensor, " b"]) -> Quadrature:
    """Return the distribution of sigma / top by stochastic Lanczos quadrature on G = X X^T.

    Eight Lanczos steps from each of eight chirps; the nodes are the Ritz values, the weights the squared first
    components of their vectors (Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 2017). Near zero the resolution
    ends at about 1/8 for a continuous spectrum, and at the rounding of G: the square root of u in its dtype.
    Cost: eight products of k x k by k x 8, 1 % of a step for k = 1024.
    """
    k = G.shape[-1]
    working = torch.promote_types(G.dtype, torch.float32)
    v = chirps(k, _PROBES, G).to(working).expand(len(G), -1, -1)
    v = v / torch.linalg.vector_norm(v, dim=-2, keepdim=True)
    steps, before, beta = min(_LANCZOS, k), torch.zeros_like(v), torch.zeros_like(v[:, :1])
    diagonal, off = [], []
    for _ in range(steps):
        w = torch.bmm(G, v.to(G.dtype)).to(working) / top[:, None, None].square() - beta * before
        alpha = (v * w).sum(-2, keepdim=True)
        w = w - alpha * v
        beta = torch.linalg.vector_norm(w, dim=-2, keepdim=True)
        diagonal.append(alpha[:, 0])
        off.append(beta[:, 0])
        before, v = v, torch.where(beta > 1e-6, w / beta.clamp_min(1e-30), 0.0)
        beta = torch.where(beta > 1e-6, beta, 0.0)
    T = torch.diag_embed(torch.stack(diagonal, -1))
    T += torch.diag_embed(torch.stack(off, -1)[..., :-1], offset=1) + torch.diag_embed(
        torch.stack(off, -1)[..., :-1], offset=-1
    )
    squares, vectors = torch.linalg.eigh(T)
    nodes = squares.clamp(0, 1).sqrt().flatten(1)
    weights = vectors[..., 0, :].square().flatten(1) / diagonal[0].shape[-1]
    order = nodes.argsort(-1)
    return Quadrature(nodes.take_along_dim(order, -1), weights.take_along_dim(order, -1))
