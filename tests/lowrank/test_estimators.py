"""The scikit-learn estimators: scikit-learn's own checks, and what each promises."""

import numpy as np
import pytest
import scipy.sparse

pytest.importorskip("sklearn")

from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.kernel_approximation import Nystroem as Uniform
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from spectrain.lowrank.estimators import CUR, ColumnSelector, InterpolativeDecomposition, Nystroem

ESTIMATORS = [
    ColumnSelector(),
    InterpolativeDecomposition(),
    CUR(),
    CUR(core="cross"),
    Nystroem(),
    Nystroem(kernel="linear", rtol=1e-3),
    Nystroem(landmarks="uniform"),
]


@parametrize_with_checks(ESTIMATORS)
def test_the_checks_of_scikit_learn_pass(estimator, check):
    check(estimator)


def scaled(load):
    X = load().data
    return (X - X.mean(0)) / np.maximum(X.std(0), 1e-9)


def best(X, rank):
    return np.linalg.norm(np.linalg.svd(X, compute_uv=False)[rank:])


@pytest.mark.parametrize("kind", [InterpolativeDecomposition, CUR])
def test_transform_and_back_is_near_the_data(kind):
    for load in (load_iris, load_breast_cancer, load_digits):
        X = scaled(load)
        rank = max(2, X.shape[1] // 3)
        model = kind(rank).fit(X)
        Y = model.transform(X)
        assert Y.shape == (len(X), rank)
        error = np.linalg.norm(X - model.inverse_transform(Y))
        assert best(X, rank) <= error * (1 + 1e-9)
        assert error <= model.error_ * (1 + 1e-6)
        assert error <= 2.5 * best(X, rank)
        by_error = kind(rtol=0.3).fit(X)
        assert np.linalg.norm(X - by_error.inverse_transform(by_error.transform(X))) <= 0.3 * np.linalg.norm(X)
        wrong = np.linalg.norm(X - model.inverse_transform(Y[:, ::-1]))
        assert wrong > 1.5 * error


@pytest.mark.parametrize("core", ["optimal", "cross"])
def test_cur_is_of_real_rows_and_columns(core):
    X = scaled(load_breast_cancer)
    model = CUR(5, core=core).fit(X)
    np.testing.assert_array_equal(model.C_, X[:, model.columns_])
    np.testing.assert_array_equal(model.R_, X[model.rows_])
    pinv = np.linalg.pinv
    truth = pinv(model.C_) @ X @ pinv(model.R_) if core == "optimal" else pinv(model.C_[model.rows_])
    np.testing.assert_allclose(model.U_, truth, rtol=0, atol=1e-10 * np.abs(truth).max())
    others = np.setdiff1d(np.arange(30), model.columns_)
    spoilt = X.copy()
    spoilt[:, others] = 7
    np.testing.assert_array_equal(model.transform(spoilt), model.transform(X))
    if core == "cross":  # exact on the chosen rows, each its own coordinate, and on the chosen columns
        np.testing.assert_allclose(model.transform(X[model.rows_]), np.eye(5), atol=1e-10)
        np.testing.assert_allclose(model.inverse_transform(model.transform(X))[:, model.columns_], model.C_, atol=1e-9)
    assert list(model.get_feature_names_out()) == [f"cur{i}" for i in range(5)]


WRONG_WEIGHTS = {
    "no core": lambda m, X: X[:, m.columns_],
    "the transposed core": lambda m, X: X[:, m.columns_] @ m.U_.T,
    "the core between the chosen alone": lambda m, X: X[:, m.columns_] @ np.linalg.inv(m.C_[m.rows_]),
    "the first columns": lambda m, X: X[:, : len(m.columns_)] @ m.U_,
    "columns in increasing order": lambda m, X: X[:, np.sort(m.columns_)] @ m.U_,
    "one percent too large": lambda m, X: 1.01 * X[:, m.columns_] @ m.U_,
}


@pytest.mark.parametrize("wrong", WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS)
@pytest.mark.parametrize("load", [load_iris, load_breast_cancer, load_digits])
def test_the_error_of_cur_rejects_other_weights(wrong, load):
    X = scaled(load)
    model = CUR(max(2, X.shape[1] // 3)).fit(X)
    assert np.linalg.norm(X - model.inverse_transform(model.transform(X))) <= model.error_
    assert np.linalg.norm(X - model.inverse_transform(wrong(model, X))) > model.error_ * (1 + 1e-6)


BAD_CUR = {
    "no component": ({"n_components": 0}, "between 1 and 4"),
    "more than features": ({"n_components": 5}, "between 1 and 4"),
    "a negative tolerance": ({"rtol": -0.1}, "rtol must be in"),
    "an unknown core": ({"core": "best"}, "core"),
}


@pytest.mark.parametrize(("options", "message"), BAD_CUR.values(), ids=BAD_CUR)
def test_cur_says_what_is_wrong(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        CUR(**options).fit(load_iris().data)


def test_the_selector_keeps_columns_in_order():
    X = scaled(load_breast_cancer)
    model = ColumnSelector(5).fit(X)
    np.testing.assert_array_equal(model.transform(X), X[:, np.sort(model.selected_idx_)])
    assert model.get_support().sum() == 5
    with pytest.raises(ValueError, match="between 1 and 30"):
        ColumnSelector(31).fit(X)


@pytest.mark.parametrize("landmarks", ["rpcholesky", "uniform", np.arange(40)])
def test_nystroem_approximates_the_kernel(landmarks):
    X = scaled(load_digits)[:400]
    model = Nystroem(gamma=0.01, n_components=40, landmarks=landmarks, random_state=0).fit(X)
    K, Z = rbf_kernel(X, gamma=0.01), model.transform(X)
    rest = K - Z @ Z.T
    assert abs(np.trace(rest) - model.error_) < 1e-6 * len(X)
    assert model.trace_ == pytest.approx(len(X))
    np.testing.assert_allclose(rest[model.component_indices_], 0, atol=1e-6)
    known = Nystroem("precomputed", n_components=40, landmarks=landmarks, random_state=0).fit(K)
    np.testing.assert_allclose(known.transform(K) @ known.transform(K).T, Z @ Z.T, atol=1e-6)


def test_a_kernel_of_two_samples_is_the_named_kernel():
    X = scaled(load_iris)[:80]
    for landmarks in ("rpcholesky", "uniform"):
        how = {"n_components": 20, "landmarks": landmarks, "random_state": 0}
        pairs = Nystroem(lambda x, y, g: np.exp(-g * np.sum((x - y) ** 2)), kernel_params={"g": 0.3}, **how).fit(X)
        named = Nystroem("rbf", gamma=0.3, **how).fit(X)
        assert pairs.component_indices_.tolist() == named.component_indices_.tolist()
        np.testing.assert_allclose(pairs.transform(X), named.transform(X), atol=1e-9)


def test_nystroem_is_better_than_uniform_landmarks_where_there_are_outliers():
    draw = np.random.default_rng(0)
    X = np.concatenate([0.1 * draw.standard_normal((300, 2)), 20 * draw.standard_normal((12, 2))])
    K = rbf_kernel(X, gamma=0.5)
    error = lambda model: np.trace(K) - np.square(model.fit_transform(X)).sum()  # noqa: E731
    ours = np.mean([error(Nystroem(gamma=0.5, n_components=20, random_state=s)) for s in range(10)])
    theirs = np.mean([error(Uniform(gamma=0.5, n_components=20, random_state=s)) for s in range(10)])
    assert ours < 0.2 * theirs


def test_nystroem_serves_in_a_pipeline():
    X, y = load_digits(return_X_y=True)
    model = make_pipeline(Nystroem(gamma=5e-4, n_components=150, random_state=0), LinearSVC(random_state=0))
    assert model.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.9


def counts():
    """Few words in many texts, as text processing has it: rank 6 and a little noise, most entries zero."""
    draw = np.random.default_rng(0)
    topics = draw.poisson(2.0, (6, 60)) * (draw.random((6, 60)) < 0.3)
    texts = draw.poisson(1.0, (120, 6)) * (draw.random((120, 6)) < 0.3)
    return (texts @ topics + (draw.random((120, 60)) < 0.02)).astype(np.float64)


SPARSE = {
    "csr_array": scipy.sparse.csr_array, "csc_matrix": scipy.sparse.csc_matrix, "coo_array": scipy.sparse.coo_array,
}  # fmt: skip


@pytest.mark.parametrize("sparse", SPARSE.values(), ids=SPARSE)
@pytest.mark.parametrize("kind", [InterpolativeDecomposition, CUR])
def test_sparse_data_are_taken_as_they_are(kind, sparse):
    X = counts()
    model = kind(8, random_state=0).fit(sparse(X))
    Y = model.transform(sparse(X))
    error = np.linalg.norm(X - model.inverse_transform(Y))
    assert best(X, 8) <= error * (1 + 1e-9)
    assert error <= model.error_ * (1 + 1e-6)
    assert error <= 2.5 * best(X, 8)
    np.testing.assert_allclose(Y.toarray() if scipy.sparse.issparse(Y) else Y, model.transform(X), atol=1e-12)
    if kind is InterpolativeDecomposition:
        assert scipy.sparse.issparse(Y)
        np.testing.assert_array_equal(Y.toarray(), X[:, model.columns_])


@pytest.mark.parametrize("sparse", SPARSE.values(), ids=SPARSE)
def test_the_selector_and_the_kernel_of_sparse_data(sparse):
    X = counts()
    chosen = ColumnSelector(8, random_state=0).fit(sparse(X))
    np.testing.assert_array_equal(chosen.transform(sparse(X)).toarray(), X[:, np.sort(chosen.selected_idx_)])
    how = {"gamma": 1e-3, "n_components": 30, "random_state": 0}
    model, dense = Nystroem(**how).fit(sparse(X)), Nystroem(**how).fit(X)
    K, Z = rbf_kernel(X, gamma=1e-3), model.transform(sparse(X))
    assert abs(np.trace(K - Z @ Z.T) - model.error_) < 1e-6 * len(X)
    assert model.component_indices_.tolist() == dense.component_indices_.tolist()
    np.testing.assert_allclose(dense.transform(X), Z, atol=1e-9)
    fewer = Nystroem(gamma=1e-3, n_components=30, landmarks="uniform", random_state=0).fit(sparse(X))
    assert not np.allclose(fewer.transform(X) @ fewer.transform(X).T, Z @ Z.T, atol=1e-6)


NEED_ENTRIES = {
    "the cross": lambda A: CUR(4, core="cross").fit(A),
    "a kernel's matrix": lambda A: Nystroem("precomputed", n_components=4).fit(A @ A.T),
}


@pytest.mark.parametrize("fit", NEED_ENTRIES.values(), ids=NEED_ENTRIES)
def test_what_needs_all_entries_refuses_sparse_data(fit):
    with pytest.raises(TypeError, match="dense data is required"):
        fit(scipy.sparse.csr_array(counts()))
