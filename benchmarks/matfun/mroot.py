"""Inverse square roots of positive definite matrices in float32: error and time beside what others compute.

``eigh, float32`` is what preconditioners usually take, and the yardstick. ``coupled cubics`` is the algorithm of
Emerging-Optimizers (NVIDIA, emerging_optimizers/legacy_soap/matrix_root_inverse_utils.py): ten coupled cubic steps
after division by the largest row sum, with its published coefficients. ``scipy`` is sqrtm and a Cholesky solve, its
``fractional_matrix_power`` being a Schur form of the general case. Errors are relative Frobenius errors against
eigenvectors in float64 of the matrix as given; times are ratios within a round.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks._program import main
from benchmarks._record import Found, show
from benchmarks._rounds import alternate
from spectrain import matfun
from spectrain.testing import with_singular_values

COEFFICIENTS = (
    (5.182504, -5.126830), (2.586121, -0.641539), (2.567364, -0.639106), (2.520560, -0.633023), (2.410759, -0.618682),
    (2.188335, -0.589309), (1.859576, -0.544999), (1.589020, -0.507581), (1.505165, -0.495780), (1.492556, -0.492593),
)  # fmt: skip
YARDSTICK = "eigh, float32"


def by_coupled_cubics(P: Tensor) -> Tensor:
    """Y goes to P^(1/2) and Z to P^(-1/2), each multiplied by beta + alpha Z Y in a step."""
    size = P.abs().sum(-1).amax()
    Y, Z = P / size, torch.eye(len(P), dtype=P.dtype)
    for i, (beta, alpha) in enumerate(COEFFICIENTS):
        step = Z @ Y if i else Y
        Z = torch.addmm(Z, step, Z, beta=beta, alpha=alpha)
        Y = torch.addmm(Y, Y, step, beta=beta, alpha=alpha)
    return 0.5 * (Z + Z.T) / size.sqrt()


def by_eigh(P: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    L, V = torch.linalg.eigh(P.to(dtype))
    return (V * L.clamp_min(1e-12).rsqrt()) @ V.T


def by_scipy(P: Tensor) -> Tensor:
    import scipy.linalg

    root = scipy.linalg.sqrtm(P.numpy()).real
    return torch.from_numpy(scipy.linalg.cho_solve(scipy.linalg.cho_factor(root), torch.eye(len(P)).numpy()))


METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    YARDSTICK: by_eigh,
    "coupled cubics": by_coupled_cubics,
    "scipy": by_scipy,
    "mroot": partial(matfun.mroot, r=2, s=-1),
    "mroot(steps=6)": partial(matfun.mroot, r=2, s=-1, steps=6),
}


def measure(
    *, sizes: tuple[int, ...] = (256, 1024), conditions: tuple[float, ...] = (1e2, 1e4), rounds: int = 7
) -> Found:
    """Matrices of logarithmically spaced eigenvalues."""
    rows = []
    for n in sizes:
        for condition in conditions:
            S = torch.logspace(0, -torch.tensor(condition).log10().item(), n).double()
            factor = with_singular_values(S.sqrt(), n, n, generator=0)
            P = (factor @ factor.mT).float()
            truth = by_eigh(P, torch.float64)
            calls = {name: partial(method, P) for name, method in METHODS.items()}
            times = alternate(calls, rounds=rounds, clock=time.process_time)
            rows += [
                {
                    "n": n,
                    "condition": condition,
                    "method": name,
                    "error": float((method(P).double() - truth).norm() / truth.norm()),
                    "ms": 1e3 * times.median(name),
                    "time / eigh": times.ratio(name, YARDSTICK),
                }
                for name, method in METHODS.items()
            ]
    ours, cubics = ([row for row in rows if row["method"] == name] for name in ("mroot(steps=6)", "coupled cubics"))
    figures = {
        "steps": max(a["ms"] / b["ms"] for a, b in zip(ours, cubics, strict=True)),
        "gain": min(b["error"] / a["error"] for a, b in zip(ours, cubics, strict=True)),
        "exact": max(row["time / eigh"] for row in rows if row["method"] == "mroot"),
        "error": max(row["error"] for row in rows if row["method"] == "mroot"),
    }
    ratios = {
        f"n {row['n']}, condition {row['condition']:g}, {row['method']}: time / eigh": row["time / eigh"]
        for row in rows
        if row["method"] != YARDSTICK
    }
    return Found(rows=rows, body=show(rows), figures=figures, ratios=ratios)


if __name__ == "__main__":
    main(
        "mroot",
        "mroot(steps=6) takes at most {steps:.2f} of the time of ten coupled cubics, its error is at least {gain:.2g} "
        "times smaller; mroot within its bound takes at most {exact:.2f} of eigenvectors in float32, error {error:.1e}",
        measure,
        smoke={"sizes": (12,), "conditions": (10.0,), "rounds": 1},
        check={"sizes": (256,), "rounds": 5},
    )
