"""One linear layer in fewer weights: the best for the inputs it really gets."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain import lowrank
from spectrain.train._saved.factored import Factored, Selected


@dataclass(frozen=True)
class Seen:
    """What a layer was given on calibration text: a root L of the Gram matrix of its inputs, X^T X = L L^T.

    All that is computed here depends on X through inner products of its columns, and L^T has the same.
    """

    L: Float[Tensor, "inputs rank"]

    @classmethod
    def nothing(cls, inputs: int) -> "Seen":
        """Inputs of which nothing is known: all directions alike."""
        return cls(torch.eye(inputs, dtype=torch.float64))

    def and_also(self, X: Float[Tensor, "tokens inputs"]) -> "Seen":
        """Add inputs by QR of the stack: to form X^T X would square the condition."""
        return Seen(torch.linalg.qr(torch.cat([self.L.mT, X.double()]), mode="r").R.mT)

    def error(self, W: Float[Tensor, "out inputs"], V: Float[Tensor, "out inputs"]) -> float:
        """Return ||X W^T - X V^T||_F / ||X W^T||_F, 0 where the layer says nothing."""
        size = torch.linalg.norm(W.double() @ self.L)
        return float(torch.linalg.norm((W - V).double() @ self.L) / size) if size > 0 else 0.0


def output_spectrum(layer: nn.Linear, seen: Seen) -> Float[Tensor, " k"]:
    """Return the singular values of the layer's outputs X W^T: their tails are the errors of the best ranks."""
    return torch.linalg.svdvals(layer.weight.detach().double() @ seen.L)


def by_svd(layer: nn.Linear, seen: Seen, rank: int) -> Factored:
    """Project the outputs on their leading directions: the least ||X W^T - X W'^T||_F of all W' of that rank.

    With W L = U S V^T the best is W' = U_r U_r^T W: no inverse of L, so directions that X never takes do no harm. For
    L = I this is the truncated SVD of W.
    """
    W = layer.weight.detach().double()
    U = lowrank.svd(W @ seen.L, rank=rank).U
    return _factors(layer, U, U.mT @ W)


def by_id(layer: nn.Linear, seen: Seen, rank: int) -> Factored:
    """Keep some outputs as they are and write the others by them: an interpolative decomposition of X W^T."""
    W = layer.weight.detach().double()
    S, Z = lowrank.interpolative((W @ seen.L).mT, rank=rank)[:2]
    return _factors(layer, Z.mT, W[S])


def by_cur(layer: nn.Linear, seen: Seen, rank: int) -> Factored:
    """CUR of the weights: real columns and rows of W, with the core that is best for the inputs seen.

    W' = C U R with C and R chosen by ``lowrank.cur`` and U = pinv(C) W L pinv(R L); C U is folded into one matrix.
    """
    W = layer.weight.detach().double()
    found = lowrank.cur(W, rank=rank)
    C, R = found.C, found.R
    RL = R @ seen.L
    U = torch.linalg.lstsq(C, torch.linalg.lstsq(RL.mT, (W @ seen.L).mT, driver="gelsd").solution.mT, driver="gelsd")
    return _factors(layer, C @ U.solution, R)


def by_cr(layer: nn.Linear, seen: Seen, kept: int) -> Selected:
    """Read some inputs only: the terms of X W^T that ``lowrank.cr`` keeps, with their weights.

    Inputs by L^T, whose columns have the inner products of those of X.
    """
    W = layer.weight.detach().double()
    S, w = lowrank.cr(seen.L.mT.contiguous(), W.mT.contiguous(), count=kept)
    with torch.random.fork_rng(devices=[]):
        made = Selected(layer.in_features, layer.out_features, kept=kept).to(layer.weight)
    with torch.no_grad():
        made.indices.copy_(S)
        made.take.weight.copy_(W[:, S] * w)
    return made


def _factors(layer: nn.Linear, up: Tensor, down: Tensor) -> Factored:
    with torch.random.fork_rng(devices=[]):
        made = Factored(layer.in_features, layer.out_features, rank=len(down)).to(layer.weight)
    with torch.no_grad():
        made.up.weight.copy_(up)
        made.down.weight.copy_(down)
    return made


def neurons(down: nn.Linear, seen: Seen, kept: int, *, method: str) -> tuple[Tensor, Tensor]:
    """Return which ``kept`` inputs of ``down``, neurons of a hidden layer, to keep, and the weights to read them by.

    A selection commutes with the nonlinearity, phi(x W)[S] = phi(x W[S]), so the layers before are cut down as well
    (article 10427). ``cr`` keeps terms of hidden down^T with one weight each; ``id`` writes all neurons by those kept,
    h ~ h_S Z, chosen for what ``down`` makes of them, and folds Z into ``down``.
    """
    D, R = down.weight.detach().double(), seen.L.mT.contiguous()
    if method == "cr":
        S, w = lowrank.cr(R, D.mT.contiguous(), count=kept)
        return S, D[:, S] * w
    S = lowrank.select_columns(R * torch.linalg.vector_norm(D, dim=0), min(kept, *R.shape), method="osinsky")
    return S, torch.linalg.lstsq(R[:, S], R @ D.mT, driver="gelsd").solution.mT


def linear(weight: Tensor, like: Tensor) -> nn.Linear:
    """Return a linear layer with these weights, in the dtype of ``like``."""
    with torch.random.fork_rng(devices=[]):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=False).to(like)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made
