"""msign by eigenvectors in float32 with short rows and the proof in float64, against the SVD in float64."""

import pytest
import torch

from spectrain import matfun
from spectrain.matfun._proven import decomposition
from spectrain.matfun._proven.costs import SHIPPED
from spectrain.matfun._proven.cut import Cut
from spectrain.matfun._proven.decomposition import by_eigh
from spectrain.matfun._proven.stages import certified_sign
from spectrain.testing import exact_msign, with_singular_values

CUT = Cut(torch.float32)
K = 40
SPECTRA = {
    "random square": torch.linspace(1 / K, 1.0, K),
    "one tiny": torch.cat([torch.linspace(0.5, 1.0, K - 1), torch.tensor([2e-4])]),
    "half of them small": torch.cat([torch.linspace(0.5, 1.0, K // 2), torch.linspace(1e-3, 0.04, K // 2)]),
    "ties": torch.cat([torch.full((K // 2,), 1.0), torch.full((K // 2,), 0.01)]),
    "graded": torch.logspace(0, -3.5, K),
    "beside the limit for short rows": torch.cat([torch.ones(K - 8), torch.linspace(0.049, 0.051, 8)]),
}


def off(Y, X):
    truth = exact_msign(X)
    return float((Y.double() - truth).norm() / truth.norm())


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("columns", [K, K + 24])
def test_the_error_is_small_and_below_the_bound(name, columns):
    X = with_singular_values(SPECTRA[name].double(), K, columns, generator=1)
    found = by_eigh(X[None], CUT, mixed=True)
    assert off(found.Y[0], X) <= float(found.error) < 1e-3
    assert found.Y.dtype == torch.float32
    assert not found.undecided.any()


def test_the_bound_in_float64_holds_too_and_is_not_loose():
    for name, S in SPECTRA.items():
        X = with_singular_values(S.double(), K, K, generator=2)
        found = by_eigh(X[None], CUT)
        assert off(found.Y[0], X) <= float(found.error) < 1e-8, name


DAMAGE = {
    "short rows left as they are": ("_SHORT", 0.0),
    "another matrix": ("_mixed_vectors", lambda X: (torch.eye(K).double()[None], X.clone())),
    "not orthogonal": ("_mixed_vectors", lambda X: (1.01 * _vectors(X), 1.01 * _vectors(X).mT @ X)),
    "turned by a thousandth": ("_mixed_vectors", lambda X: (_vectors(X) @ _turn(), (_vectors(X) @ _turn()).mT @ X)),
}


def _vectors(X):
    return torch.linalg.eigh(X @ X.mT)[1]


def _turn(angle=1e-3):
    A = torch.randn(K, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.matrix_exp(angle * (A - A.T))


@pytest.mark.parametrize("damage", DAMAGE)
def test_wrong_eigenvectors_are_not_proven(damage, monkeypatch):
    X = with_singular_values(SPECTRA["graded"].double(), K, K, generator=1)
    monkeypatch.setattr(decomposition, *DAMAGE[damage])
    assert not float(by_eigh(X[None], CUT, mixed=True).error) < 1e-3


def test_the_plan_begins_with_it_where_it_pays_and_what_it_cannot_prove_goes_on():
    first = {tol: matfun.plan((1024, 1024), tol=tol, costs=SHIPPED).stages[0] for tol in (1e-3, 1e-4)}
    assert first == {1e-3: "eigh mixed", 1e-4: "eigh float64"}
    assert matfun.plan((1024, 1024), torch.float64, 1e-3, costs=SHIPPED).stages[0] == "eigh mixed"
    spectra = SPECTRA["ties"], torch.logspace(0, -6, K)
    X = torch.stack([with_singular_values(S.double(), K, K, generator=1) for S in spectra])
    stages = "eigh mixed > eigh float64 > svd float64"
    found = certified_sign(X.float(), tol=1e-3, rtol=0.0, method=stages, out_dtype=torch.float32, name="msign")
    for Y, A, bound in zip(found.Y, X.float().double(), found.error, strict=True):
        assert off(Y, A) <= float(bound) + 1e-7 <= 1.1e-3
