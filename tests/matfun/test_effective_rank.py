"""The four effective ranks against their formulas on given singular values, and their common properties."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from spectrain import matfun
from spectrain.testing import with_singular_values, zoo

KINDS = ("entropy", "stable", "intrinsic", "participation")
S = [4.0, 3.0, 1.0, 0.5]
FORMULAS = {
    "entropy": math.exp(-sum(s / 8.5 * math.log(s / 8.5) for s in S)),
    "stable": (16 + 9 + 1 + 0.25) / 16,
    "intrinsic": 8.5 / 4,
    "participation": 8.5**2 / 26.25,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula_on_given_singular_values(kind):
    X = with_singular_values(S, 6, 9, generator=0)
    assert float(matfun.effective_rank(X, kind=kind)) == pytest.approx(FORMULAS[kind], rel=1e-12)
    assert float(matfun.effective_rank(2.0**600 * X, kind=kind)) == pytest.approx(FORMULAS[kind], rel=1e-12)
    assert not any(FORMULAS[kind] == pytest.approx(FORMULAS[other], rel=0.01) for other in KINDS if other != kind)


def test_entropy_with_squares_as_in_moonlight():
    p = [s * s / 26.25 for s in S]
    found = matfun.effective_rank(with_singular_values(S, 6, 9), power=2)
    assert float(found) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_between_one_and_the_rank(kind):
    for name, X in zoo(12, 20, generator=0).items():
        found = float(matfun.effective_rank(X, kind=kind))
        rank = int(torch.linalg.matrix_rank(X))
        assert found == 0 if rank == 0 else 1 - 1e-12 <= found <= 12 + 1e-9, name
        if name in ("orthonormal", "permutation", "rank_one", "constant"):
            assert found == pytest.approx(rank, rel=1e-6), name


def test_kinds_of_arrays_gradients_and_refusals():
    X = with_singular_values(S, 6, 9, generator=0)
    assert isinstance(matfun.effective_rank(X.numpy()), np.ndarray)
    assert matfun.effective_rank(torch.stack([X, 0 * X]).float()).dtype == torch.float32
    assert matfun.effective_rank(torch.complex(X, 0 * X)) == pytest.approx(FORMULAS["entropy"], rel=1e-12)
    assert matfun.effective_rank(torch.zeros(0, 3)) == 0
    X = with_singular_values(S, 4, 9, generator=0)
    for kind in KINDS:
        assert gradcheck(lambda X, kind=kind: matfun.effective_rank(X, kind=kind), X.clone().requires_grad_())
    with pytest.raises(ValueError, match="kind must be"):
        matfun.effective_rank(X, kind="numerical")
    with pytest.raises(ValueError, match="power"):
        matfun.effective_rank(X, kind="stable", power=2)
