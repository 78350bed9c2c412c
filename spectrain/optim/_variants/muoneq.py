"""Rows of equal norm before msign (MuonEq)."""

from torch import Tensor

from spectrain.optim._layout.held import unit_rows
from spectrain.optim._variants.variant import Turn, Variant


def _before(turn: Turn) -> list[Tensor]:
    r"""Return D^-1 N for each matrix N, D the diagonal matrix of the norms of its rows; zero rows stay zero.

    The form R of MuonEq (Chang et al., arXiv 2603.28254), which is their choice for hidden matrices and has no state.
    msign(D^-1 N) is not D^-1 msign(N): rows with small gradients count as much as the others in what is
    orthogonalised. Where out <= in this scaling of rows is within sqrt(out) of the one with the least condition number
    (van der Sluis, Numer. Math. 14, 1969), so that msign has less to lift. Rows are those of each logical matrix: heads
    and experts have their own. Cost: two passes; over ranks two reductions of one number a row.
    """
    return unit_rows(turn.held, turn.tensors)


MUONEQ = Variant(name="muoneq", words="msign of the momentum average with rows of norm 1", before=_before)
