"""A schedule as code to paste, for those who do not want the library."""

from spectrain.approx._modes import Framework
from spectrain.approx._schedule import Schedule

_HEADS = {
    "torch": "import torch\n\n\ndef polar(X, *, dtype=torch.{dtype}):",
    "jax": "import jax.numpy as jnp\n\n\ndef polar(X, *, dtype=jnp.{dtype}):",
    "numpy": "import numpy as np\n\n\ndef polar(X, *, dtype=np.{dtype}):",
}
_TRANSPOSED = {"torch": "X.mT", "jax": "jnp.swapaxes(X, -1, -2)", "numpy": "np.swapaxes(X, -1, -2)"}
_CAST = {"torch": "X.to(dtype)", "jax": "X.astype(dtype)", "numpy": "X.astype(dtype)"}


def as_code(schedule: Schedule, framework: Framework) -> str:
    """A function ``polar(X)`` that applies the odd schedule to matrices whose singular values lie in its interval.

    The text stands alone: the coefficients to the last bit, Horner's rule in the Gram matrix on the shorter side.
    Raises ValueError for another framework and for schedules that are not odd.

    >>> from spectrain.approx import sign_schedule
    >>> code = as_code(sign_schedule(0.1, steps=4), "numpy")
    >>> import numpy as np
    >>> space = {}
    >>> exec(code, space)
    >>> X = np.array([[0.0, 0.5], [0.2, 0.0], [0.0, 0.0]])
    >>> np.abs(space["polar"](X) - np.array([[0, 1], [1, 0], [0, 0]])).max() < 1e-11
    np.True_
    """
    if framework not in _HEADS:
        raise ValueError(f"as_code: framework must be torch, jax or numpy, got {framework!r}.")
    if schedule.target != "sign" or any(n % 2 == 0 for p in schedule.polynomials for n in p.powers):
        raise ValueError(f"as_code writes odd schedules for the sign, got one for {schedule.target!r}.")
    low, high = schedule.interval
    rows = "\n".join(f"    {_dense(p.powers, p.coefficients)}," for p in schedule.polynomials)
    dtype = "float32" if schedule.dtype == "tfloat32" or _lacks(schedule.dtype, framework) else schedule.dtype
    return f'''{_HEADS[framework].format(dtype=dtype)}
    """U V^T for X = U S V^T with singular values in [{low!r}, {high!r}]: |result - 1| <= {schedule.error:.3g} for
    each, in exact
    arithmetic; {schedule.products:g} matrix products. Divide X by a bound of its norm first."""
    tall = X.shape[-2] > X.shape[-1]
    X = {_CAST[framework]}
    X = {_TRANSPOSED[framework]} if tall else X
    for coefficients in SCHEDULE:
        A = X @ {_TRANSPOSED[framework]}
        Y = coefficients[-1] * X
        for c in coefficients[-2::-1]:
            Y = A @ Y + c * X
        X = Y
    return {_TRANSPOSED[framework]} if tall else X


SCHEDULE = [  # coefficients of x, x^3, x^5, ... of each step
{rows}
]
'''


def _lacks(dtype: str, framework: Framework) -> bool:
    return dtype == "bfloat16" and framework == "numpy"


def _dense(powers: tuple[int, ...], coefficients: tuple[float, ...]) -> tuple[float, ...]:
    given = dict(zip(powers, coefficients, strict=True))
    return tuple(given.get(n, 0.0) for n in range(1, powers[-1] + 1, 2))
