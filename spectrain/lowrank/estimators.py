"""The factorizations as scikit-learn estimators; needs the extra ``spectrain[sklearn]``.

Their parameters are stored as they are given and checked in ``fit``, as scikit-learn wants it. SciPy's sparse
matrices are taken as they are, by their products: only a kernel that is given as its matrix, and the cross of CUR, need
all entries.

>>> from sklearn.datasets import load_iris
>>> X = load_iris().data
>>> int(ColumnSelector(2).fit(X).get_support().sum()), InterpolativeDecomposition(2).fit_transform(X).shape
(2, (150, 2))
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from spectrain import lowrank
from spectrain._arrays.kinds import Array

Matrix = NDArray[Any]


class _Checked(TransformerMixin, BaseEstimator):
    """Data are checked as scikit-learn does: float64 or float32, finite, the features that were fitted."""

    def _data(self, X: Array, *, reset: bool) -> Any:
        if not reset:
            check_is_fitted(self)
        kinds = ["csr", "csc"] if self._takes_sparse() else False  # both give columns by their indices
        return validate_data(self, X, accept_sparse=kinds, dtype=[np.float64, np.float32], reset=reset)

    def _takes_sparse(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._takes_sparse()
        return tags

    def _count(self, X: Any, wanted: int | None) -> int:
        """Return the number of components: as told, or half of the features as far as there are samples."""
        return wanted if wanted is not None else max(1, min(X.shape[0], X.shape[1] // 2))


class ColumnSelector(SelectorMixin, _Checked):
    """Keep ``n_components`` features so that the others are near linear combinations of them.

    ``method``, ``refine`` are those of :func:`spectrain.lowrank.select_columns`; None components: half of the features.
    ``selected_idx_`` holds the indices in the order chosen.
    """

    def __init__(
        self, n_components: Any = None, *, method: Any = "auto", refine: Any = False, random_state: Any = None
    ) -> None:
        self.n_components, self.method, self.refine, self.random_state = n_components, method, refine, random_state

    def fit(self, X: Array, y: Any = None) -> "ColumnSelector":
        """Choose the features of X (samples, features)."""
        X = self._data(X, reset=True)
        rank = self._count(X, self.n_components)
        seed = _seed(self.random_state)
        self.selected_idx_ = lowrank.select_columns(X, rank, method=self.method, refine=self.refine, generator=seed)
        return self

    def _get_support_mask(self) -> Matrix:
        check_is_fitted(self)
        return np.isin(np.arange(self.n_features_in_), self.selected_idx_)


class InterpolativeDecomposition(_Checked):
    """X ~ X[:, columns_] @ Z_: transform keeps the columns, inverse_transform multiplies by Z_.

    Stops: ``n_components``, ``rtol`` (relative Frobenius error of the fitted data); neither: half of the features.
    ``error_`` bounds the error on the fitted data. See :func:`spectrain.lowrank.interpolative`.
    """

    def __init__(
        self,
        n_components: Any = None,
        *,
        rtol: Any = None,
        method: Any = "auto",
        refine: Any = False,
        random_state: Any = None,
    ) -> None:
        self.n_components, self.rtol, self.method = n_components, rtol, method
        self.refine, self.random_state = refine, random_state

    def fit(self, X: Array, y: Any = None) -> "InterpolativeDecomposition":
        """Choose the columns of X (samples, features), and write the others by them."""
        X = self._data(X, reset=True)
        found = lowrank.interpolative(
            X,
            rank=self._count(X, self.n_components) if self.rtol is None else self.n_components,
            rtol=self.rtol,
            method=self.method,
            refine=self.refine,
            generator=_seed(self.random_state),
        )
        self.columns_, self.Z_, self.error_ = found[0], found.Z, float(found.error)
        return self

    def transform(self, X: Array) -> Any:
        """Return X[:, columns_], sparse where X is."""
        return self._data(X, reset=False)[:, self.columns_]

    def inverse_transform(self, X: Array) -> Matrix:
        """Return X @ Z_, all features from the chosen ones."""
        check_is_fitted(self)
        return _times(X, self.Z_)

    def get_feature_names_out(self, input_features: Any = None) -> Matrix:
        """Return the names of the chosen features."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None) if input_features is None else input_features
        if names is None:
            names = [f"x{i}" for i in range(self.n_features_in_)]
        return np.asarray(names, dtype=object)[self.columns_]


class CUR(ClassNamePrefixFeaturesOutMixin, _Checked):
    """X ~ C_ @ U_ @ R_: transform gives X[:, columns_] @ U_, weights of the samples R_; inverse_transform adds them up.

    Stops: ``n_components`` (as many columns as rows), ``rtol`` (relative Frobenius error of the fitted data); neither:
    half of the features. C_ = X[:, columns_] and R_ = X[rows_] are of the fitted X, ``error_`` bounds the error on it.
    ``core``, ``method``, ``refine`` are those of :func:`spectrain.lowrank.cur`.
    """

    def __init__(
        self,
        n_components: Any = None,
        *,
        rtol: Any = None,
        core: Any = "optimal",
        method: Any = "auto",
        refine: Any = False,
        random_state: Any = None,
    ) -> None:
        self.n_components, self.rtol, self.core = n_components, rtol, core
        self.method, self.refine, self.random_state = method, refine, random_state

    def fit(self, X: Array, y: Any = None) -> "CUR":
        """Choose rows and columns of X (samples, features) and the core between them."""
        X = self._data(X, reset=True)
        found = lowrank.cur(
            X,
            rank=self._count(X, self.n_components) if self.rtol is None else self.n_components,
            rtol=self.rtol,
            core=self.core,
            method=self.method,
            refine=self.refine,
            generator=_seed(self.random_state),
        )
        self.rows_, self.columns_, self.error_ = found.rows, found.columns, float(found.error)
        self.C_, self.U_, self.R_ = found
        self._n_features_out = len(self.rows_)
        return self

    def transform(self, X: Array) -> Matrix:
        """Return X[:, columns_] @ U_, the weight of every sample R_; of X only these columns count."""
        return self._data(X, reset=False)[:, self.columns_] @ self.U_

    def inverse_transform(self, X: Array) -> Matrix:
        """Return X @ R_, all features from the weights."""
        check_is_fitted(self)
        return _times(X, self.R_)

    def _takes_sparse(self) -> bool:
        return self.core != "cross"


class Nystroem(ClassNamePrefixFeaturesOutMixin, _Checked):
    """A feature map whose inner products approximate a kernel: scikit-learn's, with better landmarks and an error.

    ``landmarks``: "rpcholesky", "uniform", or indices of samples (see :func:`spectrain.lowrank.nystrom`).
    ``kernel`` and its parameters as in scikit-learn: a name, a function k(x, y) of two samples that returns a number,
    or "precomputed": then fit takes K (samples, samples) and transform K (new, samples). ``n_components`` is at most
    the number of samples; with ``rtol`` as few as keep the trace of the rest below rtol times that of K. ``error_`` is
    that trace, exactly; ``trace_`` that of K.

    The features are those of :func:`spectrain.lowrank.nystrom`, K[new, landmarks] L^-H, not
    K[landmarks, landmarks]^(-1/2): they differ by a rotation.
    """

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        gamma: Any = None,
        coef0: Any = None,
        degree: Any = None,
        kernel_params: Any = None,
        n_components: Any = 100,
        rtol: Any = None,
        landmarks: Any = "rpcholesky",
        random_state: Any = None,
    ) -> None:
        self.kernel, self.gamma, self.coef0, self.degree = kernel, gamma, coef0, degree
        self.kernel_params, self.n_components, self.rtol = kernel_params, n_components, rtol
        self.landmarks, self.random_state = landmarks, random_state

    def fit(self, X: Array, y: Any = None) -> "Nystroem":
        """Choose the landmarks among the samples X (samples, features)."""
        X = self._data(X, reset=True)
        known = self.kernel == "precomputed"
        # A sparse matrix is no set of points: its rows are counted, and the kernel takes them by their numbers.
        by_number = issparse(X)
        found = lowrank.nystrom(
            X if known else self._of_rows(X) if by_number else self._kernel,
            points=None if known else np.arange(X.shape[0], dtype=np.float64) if by_number else X,
            rank=min(self.n_components, X.shape[0]),
            rtol=self.rtol,
            landmarks=self.landmarks,
            generator=_seed(self.random_state),
        )
        self.component_indices_, self.root_ = found.landmarks, found.root
        self.components_ = None if known else X[self.component_indices_]
        self.error_, self.trace_ = float(found.error), float(found.trace)
        self._n_features_out = len(self.component_indices_)
        return self

    def transform(self, X: Array) -> Matrix:
        """Return features of X (samples, features), whose inner products approximate the kernel."""
        X = self._data(X, reset=False)
        columns = X[:, self.component_indices_] if self.components_ is None else self._kernel(X, self.components_)
        return np.linalg.solve(self.root_.astype(np.float64), columns.astype(np.float64).T).T.astype(X.dtype)

    def _of_rows(self, X: Any) -> Any:
        """Return the kernel as a function of two arrays of numbers of rows."""
        return lambda i, j: self._kernel(X[i.astype(np.int64)], X[j.astype(np.int64)])

    def _kernel(self, A: Any, B: Any) -> Matrix:
        """Return the kernel between two sets of samples, in double precision."""
        parameters = dict(self.kernel_params or {})
        if not callable(self.kernel):
            given = {"gamma": self.gamma, "coef0": self.coef0, "degree": self.degree}
            parameters |= {key: value for key, value in given.items() if value is not None}
        wide = (M.astype(np.float64) for M in (A, B))
        return pairwise_kernels(*wide, metric=self.kernel, filter_params=True, **parameters)

    def _takes_sparse(self) -> bool:
        return self.kernel != "precomputed"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags


def _times(X: Any, F: Any) -> Matrix:
    return (X if issparse(X) else np.asarray(X)) @ F


def _seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))
