"""What every factorization promises, over one table of them and one zoo of matrices."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from spectrain.testing import with_singular_values, zoo

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128)
SHAPES = ((1, 1), (1, 6), (7, 1), (12, 12), (10, 24), (25, 9))
SLACK = 1 + 1e-6  # of a float64 measurement of the error


def cast(X, dtype):
    """X in dtype; complex: with an imaginary part of the same kind."""
    return (X + 1j * X.flip(-1)).to(dtype) if dtype.is_complex else X.to(dtype)


def kahan(n, theta=1.2):
    """Kahan's matrix: pivoted QR sees no reason to exchange columns, and its last pivot is far from sigma_min."""
    s, c = math.sin(theta), math.cos(theta)
    upper = torch.eye(n, dtype=torch.float64) - c * torch.ones(n, n, dtype=torch.float64).triu(1)
    scale = 1 - 25e-13 * torch.arange(n, dtype=torch.float64)
    return (s ** torch.arange(n, dtype=torch.float64))[:, None] * upper * scale


def adversaries():
    g = torch.Generator().manual_seed(3)
    i = torch.arange(1, 17, dtype=torch.float64)
    normal = torch.randn(14, 5, dtype=torch.float64, generator=g)
    return {
        "kahan": kahan(16),
        "hilbert": 1 / (i[:, None] + i - 1),
        "vandermonde": (i[:, None] / 16) ** (i - 1),
        "duplicate columns": normal[:, [0, 1, 0, 2, 2, 3, 1, 4, 4, 0]],
        "step": with_singular_values([1.0] * 5 + [1e-8] * 7, 12, 15, generator=g),
        "ones and a zero column": torch.ones(6, 5, dtype=torch.float64) * torch.tensor([1.0, 1, 0, 1, 1]),
    }


def third(animals, turn, full):
    """Every third matrix, each in its turn: over the cases of a test all of them come up. All for the large suite."""
    return [item for at, item in enumerate(animals.items()) if full or (at + turn) % 3 == 0]


def test_every_animal_has_its_turn():
    animals = dict.fromkeys("abcdefgh")
    assert {name for turn in range(3) for name, _ in third(animals, turn, False)} == set(animals)
    assert [name for name, _ in third(animals, 1, True)] == list(animals)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_error_is_a_bound(factorize, dtype, check, full):
    for shape in SHAPES if full else SHAPES[1::2]:  # wide, square and tall, a vector among them
        for name, X in third(zoo(*shape, generator=1), DTYPES.index(dtype), full):
            A = cast(X, dtype)
            for rank in sorted({1, min(shape) // 2 or 1, min(shape)}):
                size = float(torch.linalg.svdvals(check["wide"](A))[0])
                if makes_a_cur(factorize) and 0 < size < 1 / torch.finfo(dtype).max:
                    with pytest.raises(ValueError, match="core U"):  # it is as large as 1 / A, and half precision ends
                        factorize(A, rank=rank)
                    continue
                found = factorize(A, rank=rank)
                measured = check["distance"](found, A)
                assert measured <= found.error * SLACK, (name, shape, rank)
                assert found.best is None or found.best <= check["best_error"](A, rank) + wide_noise(A), name


def makes_a_cur(factorize):
    """Whether a line of the table is a CUR, by what it makes of the identity."""
    return hasattr(factorize(torch.eye(2), rank=1), "evaluated")


def wide_noise(A):
    """Rounding in the dtype of the computation, with room."""
    return 10 * min(torch.finfo(A.dtype).eps, 1e-7) * float(torch.linalg.matrix_norm(A.to(torch.complex128)))


def test_the_error_is_a_bound_on_adversaries(factorize, check):
    for name, A in adversaries().items():
        for rank in range(1, min(A.shape) + 1, 2):
            found = factorize(A, rank=rank)
            assert check["distance"](found, A) <= found.error * SLACK, (name, rank)
            assert check["best_error"](A, rank) <= found.error * SLACK, (name, rank)


WRONG = {
    "a factor negated": lambda chain: [*chain[:-1], -chain[-1]],
    "one per cent off": lambda chain: [*chain[:-1], 1.01 * chain[-1]],
    "columns exchanged": lambda chain: [*chain[:-1], chain[-1].roll(1, -1)],
    "rows exchanged": lambda chain: [chain[0].roll(1, 0), *chain[1:]],
    "the last direction lost": lambda chain: [chain[0][:, :-1], *chain[1:-1], chain[-1][:-1]],
    "zero": lambda chain: [0 * factor for factor in chain],
}


class Spoilt:
    def __init__(self, result, spoil):
        self.factors = spoil([torch.as_tensor(factor) for factor in result.chain()])

    def chain(self):
        return self.factors


@pytest.mark.parametrize("spoil", WRONG)
def test_the_check_rejects_wrong_factors(factorize, spoil, check):
    """At an error that is small: then every change of the factors must be seen."""
    A = with_singular_values([8.0, 4.0, 2.0, 1e-7], 12, 9, generator=2)
    found = factorize(A, rank=3)
    if spoil == "the last direction lost" and len(found.chain()) > 2:
        return  # the middle factor would not fit
    assert check["distance"](Spoilt(found, WRONG[spoil]), A) > found.error * SLACK


TOLERANCES = [0.5, 0.1, 1e-3, 1e-6]


@pytest.mark.parametrize("rtol", TOLERANCES)
def test_a_tolerance_is_kept(factorize, rtol, check, full):
    for name, A in third(zoo(14, 18, generator=4) | adversaries(), TOLERANCES.index(rtol), full):
        size = float(torch.linalg.matrix_norm(A))
        found = factorize(A, rtol=rtol)
        assert check["distance"](found, A) <= rtol * size * SLACK + 1e-13 * size, name
        assert int(found.rank) == found.chain()[0].shape[-1], name
        absolute = factorize(A, atol=max(rtol * size, 1e-300))
        assert int(absolute.rank) == int(found.rank), name


def test_whichever_stop_comes_first(factorize):
    A = with_singular_values(2.0 ** -torch.arange(12.0), 12, 15, generator=0)
    assert int(factorize(A, rank=3, rtol=1e-3).rank) == 3
    by_error = int(factorize(A, rtol=0.1).rank)
    assert by_error < 10
    assert int(factorize(A, rank=12, rtol=0.1).rank) == by_error
    assert int(factorize(A, rtol=1e-6, atol=0.1).rank) <= by_error + 1


def test_a_zero_matrix_has_rank_zero_at_any_tolerance(factorize):
    found = factorize(torch.zeros(5, 4), rtol=0.1)
    assert int(found.rank) == 0
    assert float(found.error) == 0
    assert not found.dense().any()
    assert found.dense().shape == (5, 4)


def test_results_unpack_multiply_and_print(factorize):
    A = zoo(9, 12, generator=5)["decades_2"]
    found = factorize(A, rank=4)
    dense, X = found.dense(), torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert len(tuple(found)) == len(found._fields)
    torch.testing.assert_close(found @ X, dense @ X)
    torch.testing.assert_close(found.matmul(X), dense @ X)
    assert "rank 4" in repr(found)
    assert "error" in repr(found)


def test_arrays_go_in_and_come_out(factorize, check):
    A = zoo(9, 12, generator=5)["decades_2"]
    expected = factorize(A, rank=4)
    for source in (A.numpy(), np.asfortranarray(A.numpy())):
        before = source.copy()
        source.flags.writeable = False
        found = factorize(source, rank=4)
        assert all(isinstance(letter, np.ndarray) for letter in found)
        assert isinstance(found.dense(), np.ndarray)
        np.testing.assert_array_equal(source, before)
        np.testing.assert_allclose(found.dense(), expected.dense().numpy(), rtol=0, atol=1e-12)


def test_the_global_generator_is_left_alone_and_a_call_repeats_itself(factorize):
    A = zoo(30, 40, generator=5)["gaussian"]
    torch.manual_seed(1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = factorize(A, rank=5)
    torch.manual_seed(2)
    second = factorize(A, rank=5)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [2.0**-900, 2.0**-40, 2.0**40, 2.0**900])
def test_the_scale_of_the_input_does_not_matter(factorize, scale):
    A = zoo(9, 12, generator=5)["decades_2"]
    plain, scaled = factorize(A, rank=4), factorize(scale * A, rank=4)
    torch.testing.assert_close(scaled.dense() / scale, plain.dense(), rtol=1e-10, atol=1e-12)
    assert abs(float(scaled.error) / scale / float(plain.error) - 1) < 1e-6


def test_autocast_changes_nothing(factorize):
    A = torch.randn(9, 12, generator=torch.Generator().manual_seed(0))
    plain = factorize(A, rank=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = factorize(A, rank=4)
    for a, b in zip(plain, inside, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_batches_are_their_items(factorize_batch):
    items = [X.float() for X in zoo(9, 12, generator=5).values()]
    A = torch.stack(items).reshape(2, -1, 9, 12)
    for stops in ({"rank": 3}, {"rtol": 0.2}):
        found = factorize_batch(A, **stops)
        dense, rank, error = (X.reshape(-1, *X.shape[2:]) for X in (found.dense(), found.rank, found.error))
        for i, item in enumerate(items):
            alone = factorize_batch(item, **stops)
            size = float(item.norm())
            torch.testing.assert_close(dense[i], alone.dense(), rtol=0, atol=1e-5 * size + 1e-30)
            assert int(rank[i]) == int(alone.rank)
            assert abs(float(error[i] - alone.error)) <= 1e-4 * size


def as_operators(A):
    """The same matrix in every form that is known by products."""
    yield "scipy csr", scipy.sparse.csr_array(A.numpy())
    yield "scipy coo matrix", scipy.sparse.coo_matrix(A.numpy())
    yield "torch coo", A.to_sparse()
    yield "LinearOperator", scipy.sparse.linalg.aslinearoperator(A.numpy())
    yield "with mH", Operator(A)


class Operator:
    """What a user may have: a shape, a dtype, @ and an adjoint."""

    def __init__(self, A):
        self.entries, self.shape, self.dtype = A, A.shape, A.dtype

    def __matmul__(self, X):
        return self.entries @ X

    @property
    def mH(self):  # noqa: N802
        return Operator(self.entries.mH)


def test_sparse_matrices_and_operators_are_their_entries(factorize_products, check):
    A = zoo(20, 30, generator=5)["decades_2"] * (zoo(20, 30, generator=6)["gaussian"] > 0.5)
    for kind in (A, A + 2j * A.flip(0)):
        expected = factorize_products(kind, rank=6)
        for name, operator in as_operators(kind):
            found = factorize_products(operator, rank=6)
            assert check["distance"](found, kind) <= found.error * SLACK, name
            assert check["distance"](found, kind) <= 1.3 * check["distance"](expected, kind), name


class WrongAdjoint(Operator):
    @property
    def mH(self):  # noqa: N802
        return Operator(self.entries.mT)


def test_an_adjoint_that_is_none_is_refused(factorize_products):
    A = zoo(5, 7, generator=0)["gaussian"]
    with pytest.raises(ValueError, match="adjoint"):
        factorize_products(WrongAdjoint(A + 1j * A), rank=2)


BAD = {
    "rank 0": (torch.ones(4, 5), {"rank": 0}, ValueError, "between 1 and 4"),
    "rank above min(m, n)": (torch.ones(4, 5), {"rank": 5}, ValueError, "between 1 and 4"),
    "rank as a float": (torch.ones(4, 5), {"rank": 0.5}, TypeError, "rank"),
    "rank as a bool": (torch.ones(4, 5), {"rank": True}, TypeError, "rank"),
    "rtol 1": (torch.ones(4, 5), {"rtol": 1.0}, ValueError, "rtol"),
    "rtol negative": (torch.ones(4, 5), {"rtol": -0.1}, ValueError, "rtol"),
    "rtol nan": (torch.ones(4, 5), {"rtol": math.nan}, ValueError, "rtol"),
    "atol infinite": (torch.ones(4, 5), {"atol": math.inf}, ValueError, "atol"),
    "NaN": (torch.full((4, 5), math.nan), {"rank": 2}, ValueError, "NaN"),
    "infinite": (np.full((4, 5), np.inf), {"rank": 2}, ValueError, "NaN or infinite"),
    "no rows": (torch.ones(0, 5), {"rank": 1}, ValueError, "at least one row"),
    "no columns": (torch.ones(5, 0), {"rtol": 0.1}, ValueError, "at least one row"),
    "a vector": (torch.ones(5), {"rank": 1}, ValueError, "v\\[:, None\\]"),
    "integers": (torch.ones(4, 5, dtype=torch.int64), {"rank": 2}, TypeError, "double"),
    "objects": (np.array([[1, None]], dtype=object), {"rank": 1}, TypeError, "ndarray"),
    "a list": ([[1.0, 2.0]], {"rank": 1}, TypeError, "list"),
    "a string": ("matrix", {"rank": 1}, TypeError, "str"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(factorize, case):
    A, stops, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        factorize(A, **stops)
