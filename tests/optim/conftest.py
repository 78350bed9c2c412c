"""Truth for the optimizer: msign by SVD in float64, and the step written out as its formula."""

import pytest
import torch

from spectrain import matfun


def polar(X):
    """U V^T over the singular values above rounding noise, by SVD in float64."""
    U, S, Vh = torch.linalg.svd(X.to(torch.float64), full_matrices=False)
    return (U * (S[..., :1] * 1e-10 < S).to(S.dtype).unsqueeze(-2)) @ Vh


@pytest.fixture
def exact_msign(monkeypatch):
    """msign by SVD, where a test is about the optimizer and needs its argument's exact polar factor."""

    def msign(matrices, *, out_dtype=None, **_):
        return [polar(X).to(out_dtype or X.dtype) for X in matrices]

    monkeypatch.setattr(matfun, "msign", msign, raising=False)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
