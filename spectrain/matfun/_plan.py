"""Which algorithm computes msign within a tolerance, decided from shape, dtype and tolerance alone."""

from dataclasses import dataclass

import torch

from spectrain.matfun._input import Real, checked_tolerance

# Cost in units of one k x k x k product in float64, measured with MKL on an AMD EPYC at k = 128 ... 512: eigh 10, SVD
# 16 + 4 l/k; in float32 everything costs half. The order of the stages does not depend on the digits.
_EIGH, _SVD, _SVD_LONG, _HALF = 10.0, 16.0, 4.0, 0.5
# A float32 Gram matrix serves a tolerance above 1e-2 up to conditions of a few hundred. A square random matrix of k
# rows has a condition near 2 k, one with aspect 1.5 below 10 (Marchenko and Pastur): there float32 goes first.
_FLOAT32_TOL, _FLOAT32_ASPECT = 1e-2, 1.5


@dataclass(frozen=True, slots=True)
class Plan:
    """The algorithms that will be tried in order, with their price; print it for a table.

    The first one whose error bound, computed from the result and the input, is below ``tol`` gives the answer,
    for each matrix of a batch by itself. ``products`` are in units of k^3 multiplications in float64, k = min(m, n).
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    tol: float
    stages: tuple[str, ...]
    products: tuple[float, ...]

    def __str__(self) -> str:
        m, n = self.shape
        lines = [f"msign of {m} x {n} {str(self.dtype).removeprefix('torch.')}, tol={self.tol:g}"]
        for i, (stage, price) in enumerate(zip(self.stages, self.products, strict=True)):
            when = "first, " if i == 0 else "if not,"
            lines.append(f"  {when} {stage} for {price:.1f} k^3: {_WHAT[stage]}")
        return "\n".join(lines)


_WHAT = {
    "eigh float32": "eigenvectors of the Gram matrix, error about 6e-8 condition^2",
    "eigh float64": "eigenvectors of the Gram matrix, error about 1e-16 condition^2",
    "svd float64": "LAPACK's SVD, error about 1e-16 condition",
}


def plan(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, tol: Real | None = None) -> Plan:
    """Return which algorithms ``msign`` and ``polar`` try, in order, for a matrix of this shape within tol.

    The decision depends on the arguments alone, so it is the same in every run. ``tol`` is that of msign: by
    default 5e-2, 1e-4 or 1e-10 by dtype. Condition numbers in the table are those of the singular values that
    count as nonzero. ValueError for a shape of fewer than two dimensions or a tol below the rounding of dtype.

    >>> print(plan((256, 1024), torch.bfloat16))
    msign of 256 x 1024 bfloat16, tol=0.05
      first,  eigh float32 for 12.5 k^3: eigenvectors of the Gram matrix, error about 6e-8 condition^2
      if not, eigh float64 for 25.0 k^3: eigenvectors of the Gram matrix, error about 1e-16 condition^2
      if not, svd float64 for 34.0 k^3: LAPACK's SVD, error about 1e-16 condition
    """
    if len(shape) < 2:
        raise ValueError(f"plan: needs the shape of a matrix, got {tuple(shape)}; for example (256, 1024)")
    m, n = shape[-2:]
    tol = float(checked_tolerance(tol, dtype, "plan"))
    aspect = max(m, n) / max(1, min(m, n))
    eigh = _EIGH + 3 * aspect + 3
    prices = {
        "eigh float32": _HALF * eigh,
        "eigh float64": eigh,
        "svd float64": _SVD + _SVD_LONG * aspect + 2 * aspect - 6,
    }
    loose = tol >= _FLOAT32_TOL and aspect >= _FLOAT32_ASPECT
    stages = tuple(prices)[0 if loose else 1 :]
    return Plan((m, n), dtype, tol, stages, tuple(prices[s] for s in stages))
