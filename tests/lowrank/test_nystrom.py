"""Nystrom: a semidefinite kernel from a few of its columns, and the exact trace of the rest."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from spectrain import lowrank
from spectrain.testing import with_singular_values

datasets = pytest.importorskip("sklearn.datasets")
KINDS = (None, "rpcholesky", "uniform")


def gaussian(X, Y, width=4.0):
    return torch.exp(-torch.cdist(X, Y).square() / (2 * width**2))


def standardised(name, count=300):
    X = torch.tensor(getattr(datasets, f"load_{name}")().data[:count], dtype=torch.float64)
    return (X - X.mean(0)) / X.std(0).clamp_min(1e-9)


def low_rank(dtype=torch.float64, n=30, rank=5):
    B = torch.randn(n, rank, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return B @ B.mH


def checked(found, K):
    """The largest violation of what is promised: the bound on the trace, a semidefinite rest, exact on landmarks."""
    wide = torch.complex128 if K.is_complex() else torch.float64
    F, K = found.F.to(wide), K.to(wide)
    rest = K - F @ F.mH
    nuclear = torch.linalg.svdvals(rest).sum()
    size = float(torch.trace(K).real)
    return max(
        float(nuclear - found.error) / size,
        float(-torch.linalg.eigvalsh(rest).min()) / size - 1e-6,
        float(rest[found.landmarks].abs().max()) / size - 1e-6,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128, torch.bfloat16], ids=str)
def test_the_rest_is_semidefinite_and_its_trace_is_told(kind, dtype):
    for name in ("digits", "iris", "wine", "breast_cancer", "diabetes"):
        X = standardised(name, 150)
        K = gaussian(X, X)
        if dtype.is_complex:
            K = K * torch.exp(1j * (X[:, :1] - X[:, 0]))
        found = lowrank.nystrom(K.to(dtype), rank=12, landmarks=kind)
        if dtype != torch.bfloat16:
            assert checked(found, K.to(dtype)) <= 1e-9, name
            assert int(found.rank) == 12
        rest = K.to(dtype).to(torch.complex128 if dtype.is_complex else torch.float64)
        F = found.F.to(rest.dtype)
        assert torch.linalg.matrix_norm(rest - F @ F.mH, ord="nuc") <= float(found.error) * (1 + 1e-9), name


WRONG = {
    "F of other landmarks": lambda f, K: (f.landmarks.flip(0) // 2, f.F, f.error),
    "a column too small": lambda f, K: (f.landmarks, f.F * 0.99, f.error),
    "a column too large": lambda f, K: (f.landmarks, f.F * 1.01, f.error),
    "an error too small": lambda f, K: (f.landmarks, f.F, 0.99 * f.error),
    "the best factor, not from columns": lambda f, K: (
        f.landmarks,
        (lambda s, V: V[:, -12:] * s[-12:].sqrt())(*torch.linalg.eigh(K)),
        f.error,
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_check_rejects_wrong_answers(wrong):
    X = standardised("iris", 100)
    K = gaussian(X, X, 1.0)
    found = lowrank.nystrom(K, rank=12)
    assert checked(found, K) <= 1e-12
    landmarks, F, error = WRONG[wrong](found, K)
    assert checked(type(found).of(landmarks, F, rank=found.rank, error=error), K) > 1e-7


def test_a_function_is_evaluated_where_it_must_be():
    X = standardised("digits", 200)
    calls = []

    def kernel(A, B):
        calls.append(len(A) * len(B))
        return gaussian(A, B)

    found = lowrank.nystrom(kernel, points=X, rank=20, generator=1)
    same = lowrank.nystrom(gaussian(X, X), rank=20, generator=1)
    assert found.landmarks.tolist() == same.landmarks.tolist()
    torch.testing.assert_close(found.F, same.F, rtol=0, atol=1e-10)
    columns = found.evaluations - 200
    assert 20 * 200 <= columns <= 20 * 200 + 60 * 60  # the columns, and the blocks of proposals
    assert sum(calls) <= found.evaluations + 64 * 200  # the diagonal is taken in blocks


def test_new_points_have_features():
    X = standardised("digits", 200)
    train, new = X[:150], X[150:]
    found = lowrank.nystrom(gaussian, points=train, rank=60)
    Z = found.features(gaussian(new, train[found.landmarks]))
    torch.testing.assert_close(found.features(gaussian(train, train[found.landmarks])), found.F, rtol=0, atol=1e-8)
    exact = gaussian(new, train[found.landmarks]) @ torch.linalg.pinv(gaussian(*[train[found.landmarks]] * 2))
    torch.testing.assert_close(Z @ found.F.mT, exact @ gaussian(train[found.landmarks], train), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_stops(kind):
    X = standardised("wine")
    K = gaussian(X, X)
    for rtol in (0.3, 0.1, 1e-2):
        found = lowrank.nystrom(K, rtol=rtol, landmarks=kind)
        assert float(found.error) <= rtol * len(X) * (1 + 1e-9)
        assert int(lowrank.nystrom(K, rtol=rtol, rank=3, landmarks=kind).rank) == 3
        assert float(lowrank.nystrom(K, atol=rtol * len(X), landmarks=kind).error) <= rtol * len(X) * (1 + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_of_low_rank_is_exact_and_duplicates_are_left_out(kind):
    K = low_rank()[:, [0, 0, 0, *range(27)]][[0, 0, 0, *range(27)]]
    found = lowrank.nystrom(K, rank=20, landmarks=kind)
    assert int(found.rank) == 5
    torch.testing.assert_close(found.dense(), K, rtol=0, atol=1e-10)
    assert int(lowrank.nystrom(torch.zeros(4, 4), rank=2).rank) == 0
    one = lowrank.nystrom(torch.ones(1, 1), rank=1)
    assert one.dense().tolist() == [[1.0]]


def test_landmarks_of_the_user_are_taken():
    K = low_rank()
    for landmarks in ([3, 17, 4], torch.tensor([3, 17, 4]), np.array([3, 17, 4])):
        found = lowrank.nystrom(K, landmarks=landmarks)
        assert found.landmarks.tolist() == [3, 17, 4]
        C, core = K[:, [3, 17, 4]], K[[3, 17, 4]][:, [3, 17, 4]]
        torch.testing.assert_close(found.dense(), C @ torch.linalg.solve(core, C.mT), rtol=0, atol=1e-9)


def test_random_pivoting_beats_uniform_on_clusters():
    """A large cluster and a few outliers: uniform sampling misses them, and scikit-learn with it."""
    g = torch.Generator().manual_seed(0)
    X = torch.cat(
        [0.1 * torch.randn(300, 2, dtype=torch.float64, generator=g), 20 * torch.randn(12, 2, generator=g).double()]
    )
    K = gaussian(X, X, 1.0)
    errors = {
        kind: np.mean([float(lowrank.nystrom(K, rank=20, landmarks=kind, generator=s).error) for s in range(10)])
        for kind in KINDS
    }
    assert errors["rpcholesky"] < 0.2 * errors["uniform"]


def test_the_law_is_that_of_sequential_pivoting():
    """Two landmarks from five points: the frequencies of all pairs against the probabilities, by chi squared."""
    K = low_rank(n=5, rank=5) + torch.eye(5, dtype=torch.float64)
    draws = 2000
    counts = torch.zeros(5, 5, dtype=torch.float64)
    for seed in range(draws):
        i, j = lowrank.nystrom(K, rank=2, block=3, generator=seed).landmarks.tolist()
        counts[i, j] += 1
    d = K.diagonal()
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for i in range(5):
        rest = d - K[i].square() / K[i, i]
        rest[i] = 0
        expected[i] = d[i] / d.sum() * rest / rest.sum()
    seen = expected > 0
    chi = lambda p: float(((counts - draws * p)[seen].square() / (draws * p)[seen]).sum())  # noqa: E731
    assert chi(expected) < 45  # 19 degrees of freedom: exceeded once in a thousand
    uniform = torch.full((5, 5), 1 / 20, dtype=torch.float64).fill_diagonal_(0)
    diagonal_only = (d[:, None] * d / d.sum() ** 2).fill_diagonal_(0)
    assert min(chi(uniform), chi(diagonal_only / diagonal_only.sum()), chi(expected.mT)) > 60


BAD = {
    "no stop": (torch.eye(3), {}, ValueError, "needs a stop"),
    "not square": (torch.ones(3, 4), {"rank": 1}, ValueError, "square"),
    "not Hermitian": (torch.ones(3, 3).triu(), {"rank": 1}, ValueError, "Hermitian"),
    "negative diagonal": (-torch.eye(3), {"rank": 1}, ValueError, "diagonal"),
    "indefinite": (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), {"rank": 1}, ValueError, "semidefinite"),
    "rank too large": (torch.eye(3), {"rank": 4}, ValueError, "between 1 and 3"),
    "NaN": (torch.full((3, 3), torch.nan), {"rank": 1}, ValueError, "NaN"),
    "an operator": (scipy.sparse.linalg.aslinearoperator(np.eye(3)), {"rank": 1}, TypeError, "svd"),
    "sparse, not square": (torch.ones(3, 4).to_sparse(), {"rank": 1}, ValueError, "square"),
    "sparse, not Hermitian": (torch.ones(3, 3).triu().to_sparse(), {"rank": 1}, ValueError, "Hermitian"),
    "sparse, negative diagonal": (-torch.eye(3).to_sparse(), {"rank": 1}, ValueError, "diagonal"),
    "sparse, indefinite": (torch.tensor([[1.0, 2.0], [2.0, 1.0]]).to_sparse(), {"rank": 1}, ValueError, "semidefinite"),
    "sparse, without a diagonal": (torch.ones(3, 3).fill_diagonal_(0).to_sparse(), {"rank": 1}, ValueError, "semidef"),
    "sparse, indefinite below its pairs": (
        torch.tensor([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]).to_sparse(),
        {"rank": 1},
        ValueError,
        "Frobenius",
    ),
    "a function without points": (gaussian, {"rank": 1}, ValueError, "points="),
    "points for a matrix": (torch.eye(3), {"rank": 1, "points": torch.ones(3, 1)}, ValueError, "function"),
    "landmarks out of range": (torch.eye(3), {"landmarks": [3]}, ValueError, "0..2"),
    "landmarks twice": (torch.eye(3), {"landmarks": [1, 1]}, ValueError, "different"),
    "landmarks of floats": (torch.eye(3), {"landmarks": [0.5]}, ValueError, "ints"),
    "unknown rule": (torch.eye(3), {"rank": 1, "landmarks": "magic"}, ValueError, "uniform"),
    "a block of 0": (torch.eye(3), {"rank": 1, "block": 0}, ValueError, "block must be"),
    "landmarks of words": (torch.eye(3), {"landmarks": ["a"]}, ValueError, "ints"),
    "points in a list": (gaussian, {"rank": 1, "points": [[1.0], [2.0]]}, TypeError, "list"),
    "indefinite below its pairs": (
        torch.tensor([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]),
        {"rank": 1},
        ValueError,
        "Frobenius",
    ),
    "a kernel of a wrong shape": (
        lambda A, B: A @ B.mT[:, :1],
        {"rank": 1, "points": torch.ones(3, 2)},
        ValueError,
        "shape",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case):
    K, options, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        lowrank.nystrom(K, **options)


def test_arrays_and_the_generator():
    K = with_singular_values([3.0, 2.0, 1.0], 12, 12, generator=0)
    K = K @ K.mT
    found = lowrank.nystrom(K.numpy(), rank=3)
    assert all(isinstance(letter, np.ndarray) for letter in found)
    assert isinstance(found.dense(), np.ndarray)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    lowrank.nystrom(K, rank=2, landmarks="uniform")
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["uniform", "given", "rpcholesky"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_smooth_kernels_are_semidefinite_whatever_landmarks_are_given(kind, dtype):
    """Landmarks that nearly depend on each other: rounding is no negative eigenvalue, and is in the error."""
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        for width in (1, 2):
            X = torch.randn(60, width, dtype=torch.float64, generator=g)
            K = gaussian(X, X, 2.0).to(dtype)
            how = {"landmarks": torch.randperm(60, generator=g)[:30]} if kind == "given" else {"landmarks": kind}
            found = lowrank.nystrom(K, rank=30, generator=seed, **how)
            F = found.F.double()
            nuclear = float(torch.linalg.svdvals(K.double() - F @ F.mT).sum())
            assert nuclear <= float(found.error) * (1 + 1e-9)


TWO_VECTORS = {
    "a number": (lambda x, y: torch.exp(-(x - y).square().sum()), 3),
    "an inner product": (lambda x, y: x @ y, 3),
    "an inner product of one coordinate": (lambda x, y: x @ y, 1),
    "an inner product of two": (lambda x, y: x @ y, 2),
    "an inner product of as many as there are points": (lambda x, y: x @ y, 8),
    "of numbers": (lambda x, y: x * y, None),
}


@pytest.mark.parametrize("case", TWO_VECTORS)
def test_a_kernel_of_two_single_points_is_refused_with_the_cure(case):
    k, d = TWO_VECTORS[case]
    X = torch.randn(8, *([] if d is None else [d]), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"two sets of points; a function k\(x, y\)"):
        lowrank.nystrom(k, points=X, rank=1)
    cured = lowrank.nystrom(lambda X, Y: np.array([[k(x, y) for y in Y] for x in X]), points=X, rank=1)
    assert int(cured.rank) == 1


BROKEN = {
    "not symmetric": (lambda A, B: gaussian(A, B) * (1 + 0.5 * (A[:, :1] > B[:, 0])), "not Hermitian"),
    "scaled by its points": (lambda A, B: gaussian(A, B) / len(A), "no function of two points"),
    "NaN far away": (lambda A, B: torch.where(torch.cdist(A, B) > 1, torch.nan, gaussian(A, B)), "NaN"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("kind", KINDS)
def test_a_function_that_is_no_kernel_is_refused(case, kind):
    kernel, words = BROKEN[case]
    X = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=words):
        lowrank.nystrom(kernel, points=X, rank=5, landmarks=kind)


def test_a_complex_kernel_of_real_points_stays_complex():
    X = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = lambda A, B: gaussian(A, B, 1.0) * torch.exp(1j * (A[:, :1] - B[:, 0]))  # noqa: E731
    found = lowrank.nystrom(kernel, points=X, rank=20)
    torch.testing.assert_close(found.dense(), kernel(X, X), rtol=0, atol=1e-9)


def test_given_landmarks_end_at_a_stop_and_a_tolerance_that_is_missed_is_told():
    X = standardised("iris", 60)
    K = gaussian(X, X)
    assert lowrank.nystrom(K, landmarks=[5, 3, 9, 1], rank=2).landmarks.tolist() == [5, 3]
    found = lowrank.nystrom(K, landmarks=list(range(60)), rtol=0.3)
    assert int(found.rank) < 60
    assert float(found.error) <= 0.3 * 60
    with pytest.warns(RuntimeWarning, match="these landmarks leave more"):
        lowrank.nystrom(K, landmarks=[5], rtol=1e-6)
    with pytest.warns(RuntimeWarning, match="rounding allows no less"):
        lowrank.nystrom(K.float(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_error_is_above_the_frobenius_norm_of_the_rest_of_any_matrix_that_is_accepted(dtype):
    """Entries of sqrt(eps) beside a diagonal of zeros: each is rounding, all together are not."""
    for n in (3, 40, 300):
        K = torch.full((n, n), 0.9 * torch.finfo(dtype).eps ** 0.5, dtype=dtype).fill_diagonal_(0)
        K[0, 0] = 1
        for kind in KINDS:
            found = lowrank.nystrom(K, rank=1, landmarks=kind, generator=1)
            rest = K.double() - found.F.double() @ found.F.double().mT
            assert float(torch.linalg.norm(rest)) <= float(found.error) * (1 + 1e-9)


def banded(n, width=3, dtype=torch.float64):
    """A semidefinite matrix of few entries: B B^H, B with a band, its columns of falling size."""
    draw = torch.Generator().manual_seed(0)
    B = torch.randn(n, n, generator=draw, dtype=dtype).tril().triu(-width) * torch.logspace(0, -3, n).to(dtype)
    return B @ B.mH


SPARSE = {
    "torch coo": torch.Tensor.to_sparse,
    "torch csr": torch.Tensor.to_sparse_csr,
    "scipy csr": lambda K: scipy.sparse.csr_array(K.numpy()),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("said", [{"rank": 12}, {"rtol": 1e-2}, {"landmarks": [5, 3, 20]}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("kind", SPARSE)
def test_a_sparse_kernel_is_its_entries(kind, dtype, said):
    K = banded(40, dtype=dtype)
    found, dense = lowrank.nystrom(SPARSE[kind](K), **said), lowrank.nystrom(K, **said)
    assert torch.equal(torch.as_tensor(found.landmarks), dense.landmarks)
    torch.testing.assert_close(torch.as_tensor(found.F), dense.F)
    rest = K - torch.as_tensor(found.F) @ torch.as_tensor(found.F).mH
    assert float(found.error) == pytest.approx(float(rest.diagonal().real.sum()), rel=1e-6)
    assert float(found.error) >= float(torch.linalg.matrix_norm(rest, "nuc").real) * (1 - 1e-9)
    assert isinstance(found.F, torch.Tensor) == (kind != "scipy csr")
