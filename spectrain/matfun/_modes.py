"""Names of modes as type checkers know them. At run time they are strings, and a wrong one is a tuned ValueError."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    SignMethod = Literal["plain", "gram", "iterate", "eigh", "qdwh", "jacobi", "svd"]
    ClipMethod = Literal["eigh", "svd", "signs"]
    RankKind = Literal["entropy", "stable", "intrinsic", "participation"]
    Side = Literal["left", "right"]
else:
    SignMethod = ClipMethod = RankKind = Side = str
