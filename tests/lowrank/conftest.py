"""One table of all factorizations, and matrices for all of them. A new factorization adds a line.

A line takes a matrix and stops (rank=, rtol=, atol=) and returns the result. ``spectrain`` is imported inside: the
checks of shapes that pytest adds to the package must be in place first.
"""

import importlib

import pytest
import torch


def lowrank(name, **always):
    return lambda A, **stops: getattr(importlib.import_module("spectrain.lowrank"), name)(A, **stops, **always)


FACTORIZATIONS = {
    "svd": lowrank("svd"),
    "svd krylov": lowrank("svd", method="krylov", block=2),
    "interpolative": lowrank("interpolative"),
    "interpolative pivoted_qr": lowrank("interpolative", method="pivoted_qr"),
    "interpolative both": lowrank("interpolative", axis="both"),
    "cur": lowrank("cur"),
}
# Those that take batches, sparse matrices and operators as well.
BATCHED = ("svd", "svd krylov", "interpolative", "interpolative both", "cur")
BY_PRODUCTS = ("svd", "svd krylov", "interpolative", "interpolative both", "cur")


def pytest_generate_tests(metafunc):
    tables = {
        "factorize": FACTORIZATIONS,
        "factorize_batch": {name: FACTORIZATIONS[name] for name in BATCHED},
        "factorize_products": {name: FACTORIZATIONS[name] for name in BY_PRODUCTS},
    }
    for fixture, table in tables.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, table.values(), ids=table)


def wide(X):
    """X in float64 or complex128, whatever kind of array it is."""
    X = torch.as_tensor(X)
    return X.to(torch.complex128 if X.is_complex() else torch.float64)


def distance(result, A, norm="fro"):
    """The norm of A - (product of the factors of the result), in float64."""
    product = None
    for factor in result.chain():
        product = wide(factor) if product is None else product @ wide(factor)
    return torch.linalg.matrix_norm(wide(A) - product, ord=norm)


def best_error(A, rank, norm="fro"):
    """The smallest error of any matrix of that rank, by LAPACK in float64 (Eckart, Young, Mirsky)."""
    tail = torch.linalg.svdvals(wide(A))[..., rank:]
    if norm == 2:
        return torch.cat([tail, torch.zeros_like(tail[..., :1])], -1)[..., 0] if tail.shape[-1] else tail.sum(-1)
    return tail.square().sum(-1).sqrt()


@pytest.fixture
def check():
    """The functions above, for test files: distance, best_error, wide."""
    return {"distance": distance, "best_error": best_error, "wide": wide}
