"""Names of modes as type checkers know them. At run time they are strings, and a wrong one is a tuned ValueError."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    ColumnRule = Literal[
        "auto", "pivoted_qr", "strong_rrqr", "osinsky", "greedy", "exhaustive", "randomized", "random_pivoting",
        "adaptive", "leverage", "leverage_sampling", "deim", "qdeim", "kmeans", "optim_rid", "norms", "norm_sampling",
        "uniform",
    ]  # fmt: skip
    TermRule = Literal["subset", "greedy", "exhaustive", "norms", "sampling", "pivoted_cholesky", "tuples"]
else:
    ColumnRule = TermRule = str
