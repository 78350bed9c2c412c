"""Requests at the edges of what numbers and tensors can be: one clear error each, never NaN or inf."""

import math

import numpy as np
import pytest
import torch

from spectrain import matfun
from spectrain.testing import relative_error

FUNCTIONS = {
    "msign": matfun.msign,
    "msign(steps=)": lambda X: matfun.msign(X, steps=3),
    "polar": matfun.polar,
    "mclip": lambda X: matfun.mclip(X, 0, 1),
    "mstep": matfun.mstep,
    "mapply": lambda X: matfun.mapply(torch.sqrt, X),
    "msoftclip": lambda X: matfun.msoftclip(X, 1.0),
    "mthreshold": lambda X: matfun.mthreshold(X, 0.5),
    "mpsd": matfun.mpsd,
    "mroot": lambda X: matfun.mroot(X, 2),
    "spectral_norm": matfun.spectral_norm,
    "effective_rank": matfun.effective_rank,
}
BAD = {
    "sparse": (lambda: torch.eye(3).to_sparse(), TypeError, "sparse_coo"),
    "csr": (lambda: torch.eye(3).to_sparse_csr(), TypeError, "sparse_csr"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8), TypeError, "dequantize"),
    "meta": (lambda: torch.empty(3, 3, device="meta"), TypeError, "meta device"),
    "int32": (lambda: torch.eye(3, dtype=torch.int32), TypeError, "int32"),
    "bool": (lambda: torch.eye(3, dtype=torch.bool), TypeError, "bool"),
    "float8": (lambda: torch.eye(3).to(torch.float8_e4m3fn), TypeError, "float8"),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning", "ignore:.*quant.*")
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_dense_floating_matrix_with_values(name, bad):
    make, kind, match = BAD[bad]
    with pytest.raises(kind, match=rf"^{name.partition('(')[0]}.*{match}"):
        FUNCTIONS[name](make())


def test_dtypes_of_results_that_do_not_exist():
    X = torch.eye(3)
    for function in (
        matfun.msign,
        matfun.polar,
        matfun.mstep,
        matfun.mpsd,
        lambda X, **o: matfun.mclip(X, 0, 1, **o),
        lambda X, **o: matfun.mthreshold(X, 1, **o),
        lambda X, **o: matfun.mapply(torch.sqrt, X, **o),
        lambda X, **o: matfun.msoftclip(X, 1, **o),
    ):
        with pytest.raises(TypeError, match="out_dtype must be"):
            function(X, out_dtype=torch.int32)
    with pytest.raises(TypeError, match="out_dtype must be"):
        matfun.plan((3, 3), torch.int64)


def test_results_near_the_largest_number():
    top = torch.finfo(torch.float64).max
    X = torch.tensor([[0.9 * top, 0.0], [0.0, -0.7 * top]], dtype=torch.float64)
    assert matfun.polar(X).H.tolist() == [[0.9 * top, 0.0], [0.0, 0.7 * top]]
    tall = torch.full((2, 1), torch.finfo(torch.float32).max)  # H is sqrt(2) times that
    for call in (
        matfun.polar,
        lambda X: matfun.mclip(X, 1e39, math.inf),
        lambda X: matfun.mapply(lambda s: 10 * s, X),
    ):
        with pytest.raises(ValueError, match="entries beyond"):
            call(tall)
    assert (
        relative_error(
            matfun.polar(tall, out_dtype=torch.float64).H,
            torch.full((1, 1), 2**0.5 * float(tall[0]), dtype=torch.float64),
        )
        < 1e-6
    )


def test_requests_that_no_number_fulfils():
    X = torch.eye(3)
    for bad, match in (
        (lambda: matfun.mclip(X, math.inf, math.inf), "lower must be finite"),
        (lambda: matfun.msign(X, tol=math.inf), "tol must be a finite"),
        (lambda: matfun.mapply(torch.sqrt, X, rtol=math.nan), "rtol must be"),
        (lambda: matfun.mapply(lambda s: 1 / (s - 1), X), "f is inf"),
        (lambda: matfun.plan((-1, 5)), "whole numbers"),
        (lambda: matfun.effective_rank(X, power=math.inf), "finite"),
    ):
        with pytest.raises(ValueError, match=match):
            bad()
    assert torch.equal(matfun.mclip(X, 0, math.inf), X)
    assert matfun.plan((0, 5)).stages
    soft = matfun.msoftclip(torch.eye(2, dtype=torch.float64), 1e-200)  # its square is below the smallest number
    assert relative_error(soft * 1e200, torch.eye(2, dtype=torch.float64)) < 1e-14


@pytest.mark.parametrize("power", [0.5, 1, 2, 30, 1000])
def test_effective_rank_of_large_powers_and_its_slope_at_zeros(power):
    """Against the entropy in exponents; at power >= 2 a zero singular value has the slope 0."""
    s = [1.0, 0.9, 0.9, 0.5, 0.0]
    X = torch.diag(torch.tensor([*s[:4], 1.0], dtype=torch.float64))
    X[4, 4] = 0.0
    weights = [math.exp(power * math.log(v)) for v in s[:4]]
    p = [w / sum(weights) for w in weights]
    truth = math.exp(-sum(v * math.log(v) for v in p if v > 0))
    Z = X.clone().requires_grad_()
    rank = matfun.effective_rank(Z, power=power)
    assert float(rank.detach()) == pytest.approx(truth, rel=1e-12)
    (slope,) = torch.autograd.grad(rank, Z)
    assert slope.isfinite().all()
    step = 1e-6
    up, down = (
        float(matfun.effective_rank(X + torch.diag(torch.tensor([0, 0, 0, d, 0.0])), power=power))
        for d in (step, -step)
    )
    assert float(slope[3, 3]) == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-8)
    assert slope[4, 4] == 0


def test_modes_of_torch_change_no_value():
    """autocast, inference mode, deterministic mode, float64 as the default dtype, meta as the default device."""
    X = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) * 3
    calls = {name: (lambda X, f=f: f(X @ X.mT if f is FUNCTIONS["mroot"] else X)) for name, f in FUNCTIONS.items()}
    for name, call in calls.items():
        plain = call(X)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = call(X) if name != "mroot" else plain  # the product above is autocast's
        with torch.inference_mode():
            inference = call(X)
        found = [autocast, inference]
        torch.use_deterministic_algorithms(True)
        torch.set_default_dtype(torch.float64)
        try:
            found.append(call(X))
            with torch.device("meta"):
                found.append(call(X))
        finally:
            torch.use_deterministic_algorithms(False)
            torch.set_default_dtype(torch.float32)
        for other in found:
            pairs = zip(plain, other, strict=True) if isinstance(plain, tuple) else [(plain, other)]
            assert all(torch.equal(a, b) for a, b in pairs), name


@pytest.mark.parametrize("function", [matfun.msign, lambda X: matfun.mclip(X, 0, 1)], ids=["msign", "mclip"])
def test_a_mask_is_never_ignored(function):
    with pytest.raises(TypeError, match=r"mask of a masked array would be ignored"):
        function(np.ma.masked_invalid(np.array([[1.0, np.nan], [2.0, 3.0]])))
