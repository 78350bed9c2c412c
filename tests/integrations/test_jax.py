"""JAX arrays in, JAX arrays out: of the same values as NumPy's, with bounds that are bounds in the digits JAX holds."""

import numpy as np
import pytest
import torch

from spectrain import lowrank, matfun

jax = pytest.importorskip("jax", reason="jax is an extra: the integrations")

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
K = (X @ X.T + np.eye(6)).astype(np.float32)
FUNCTIONS = {
    "msign": matfun.msign,
    "msign by steps": lambda A: matfun.msign(A, steps=5),
    "msign of a list": lambda A: matfun.msign([A, A]),
    "polar": matfun.polar,
    "mclip": lambda A: matfun.mclip(A, 0, 1),
    "mstep": matfun.mstep,
    "mapply": lambda A: matfun.mapply(torch.sqrt, A),
    "msoftclip": lambda A: matfun.msoftclip(A, 1.0),
    "mthreshold": lambda A: matfun.mthreshold(A, 1.0),
    "effective_rank": matfun.effective_rank,
    "spectral_norm": matfun.spectral_norm,
    "svd": lambda A: lowrank.svd(A, rank=2),
    "cur": lambda A: lowrank.cur(A, rank=2),
    "interpolative": lambda A: lowrank.interpolative(A, rank=2),
    "cr": lambda A: lowrank.cr(A, A.T, count=2),
    "pinv": lowrank.pinv,
    "pinv_factors": lowrank.pinv_factors,
    "select_columns": lambda A: lowrank.select_columns(A, 2),
    "approx_matmul": lambda A: lowrank.approx_matmul(A, A.T, count=2),
}
OF_SQUARES = {
    "mpsd": matfun.mpsd,
    "mroot": lambda A: matfun.mroot(A, 2),
    "nystrom": lambda A: lowrank.nystrom(A, rank=2),
    "the features of nystrom": lambda A: lowrank.nystrom(A, rank=2).features(A[:, :2]),
}
CASES = {**{name: (call, X) for name, call in FUNCTIONS.items()}, **{n: (call, K) for n, call in OF_SQUARES.items()}}


def parts(found):
    """Every array of a result: itself, what it unpacks into, its error and its product."""
    if hasattr(found, "chain"):
        return [*found, found.error, found.rank, found.dense()]
    return list(found) if isinstance(found, (tuple, list)) else [found]


@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize(("call", "A"), CASES.values(), ids=CASES)
def test_results_are_jaxs_and_their_values_those_of_numpy(call, A, wide):
    with jax.enable_x64(wide):
        theirs, ours = parts(call(jax.numpy.asarray(A))), parts(call(A))
        assert len(theirs) == len(ours)
        for a, b in zip(theirs, ours, strict=True):
            assert isinstance(a, jax.Array)
            assert not wide or a.dtype == b.dtype
            np.testing.assert_allclose(np.asarray(a), b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "complex64"])
def test_other_dtypes_stay_what_they_are(name):
    A = jax.numpy.asarray(X).astype(name)
    found = lowrank.svd(A, rank=2)
    for each in (matfun.msign(A), found.U, found.dense(), found @ A.T):
        assert (type(each), each.dtype) == (type(A), A.dtype)


def test_a_bound_in_fewer_digits_is_still_one():
    """Rounded to nearest, half of them would lie below the number that was proven."""
    for seed in range(20):
        A = np.random.default_rng(seed).standard_normal((6, 4)).astype(np.float32)
        told, proven = lowrank.cur(jax.numpy.asarray(A), rank=2).error, lowrank.cur(A, rank=2).error
        assert told.dtype == np.float32
        assert proven.dtype == np.float64
        assert proven <= float(told) <= proven * (1 + 1e-6)


def test_a_result_that_jax_does_not_hold_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r"msign: the result is of torch\.float64.*float32.*jax_enable_x64"):
        matfun.msign(jax.numpy.asarray(X), tol=1e-12, out_dtype=torch.float64)


def test_inside_of_jit_it_is_a_callback():
    """A traced array has no entries; what the page says to write instead gives the same."""
    A = jax.numpy.asarray(X)
    with pytest.raises(TypeError, match="Tracer"):
        jax.jit(matfun.msign)(A)
    inside = jax.jit(lambda A: jax.pure_callback(matfun.msign, jax.ShapeDtypeStruct(A.shape, A.dtype), A))
    np.testing.assert_array_equal(inside(A), matfun.msign(A))


def test_a_kernel_of_jax_points():
    points = jax.numpy.asarray(X)
    gauss = lambda A, B: jax.numpy.exp(-((A[:, None] - B[None]) ** 2).sum(-1))  # noqa: E731
    found = lowrank.nystrom(gauss, points=points, rank=3)
    rest = np.asarray(gauss(points, points) - found.dense())
    assert isinstance(found.F, jax.Array)
    assert abs(np.trace(rest) - float(found.error)) < 1e-5
    new = found.features(gauss(points[:2], points[np.asarray(found.landmarks)]))
    assert isinstance(new, jax.Array)
    np.testing.assert_allclose(np.asarray(new), np.asarray(found.F[:2]), atol=1e-5)


def test_every_function_of_the_doors_is_here():
    """But for those that take functions (cross), blocks that are read (RowBlocks) or give no arrays (plan)."""
    others = {"cross", "RowBlocks", "plan", "planning"}
    public = {name for door in (matfun, lowrank) for name in dir(door) if not name.startswith("_")} - others
    assert public == {name.split()[0] for name in CASES if not name.startswith("the ")}
