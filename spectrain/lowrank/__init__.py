"""Structured low-rank factorizations behind one vocabulary, each with its error."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.lowrank._cr import approx_matmul as approx_matmul
    from spectrain.lowrank._cr import cr as cr
    from spectrain.lowrank._cross import cross as cross
    from spectrain.lowrank._cur import cur as cur
    from spectrain.lowrank._interpolative import interpolative as interpolative
    from spectrain.lowrank._nystrom import nystrom as nystrom
    from spectrain.lowrank._pinv import pinv as pinv
    from spectrain.lowrank._pinv import pinv_factors as pinv_factors
    from spectrain.lowrank._select_columns import select_columns as select_columns
    from spectrain.lowrank._subspace.row_blocks import RowBlocks as RowBlocks
    from spectrain.lowrank._svd import svd as svd

__getattr__, __dir__ = door(__name__)
