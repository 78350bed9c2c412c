"""Names of modes as type checkers know them. At run time they are strings, and a wrong one is a tuned ValueError."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    Dtype = Literal["float64", "float32", "tfloat32", "float16", "bfloat16"]
    RootDtype = Literal["float64", "float32"]
    Framework = Literal["torch", "jax", "numpy"]
else:
    Dtype = RootDtype = Framework = str
