"""Keras 3 on torch: Muon moves a kernel as it moves the weight of the same Linear, which is its transpose."""

import pytest
import torch
from torch import nn

from spectrain import optim


@pytest.fixture
def layers(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    keras = pytest.importorskip("keras", reason="keras is an extra: the integrations")
    if keras.backend.backend() != "torch":
        pytest.skip("keras was loaded with another backend")
    return keras


RIGHT, WRONG = optim.Matrix(transposed=True), optim.Matrix()


def difference(keras, matrix):
    """How far a Keras model is from its twin of torch after three steps with this rule for its kernels."""
    model = keras.Sequential([keras.layers.Dense(12, "relu", name="hidden"), keras.layers.Dense(3, name="out")])
    X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20) % 3
    model(X)
    twin = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    kernels = [layer.kernel.value for layer in model.layers]
    with torch.no_grad():
        for linear, kernel in zip((twin[0], twin[2]), kernels, strict=True):
            linear.weight.copy_(kernel.T)
            linear.bias.zero_()
    rules = {"*out/kernel": "adamw", "*/kernel": matrix}
    for each, given in ((model, rules), (twin, None)):
        optimizer = optim.Muon(each, lr=1e-2, rules=given, scale="spectral")
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(each(X), y).backward()
            optimizer.step()
    return max(
        float((kernel.T - linear.weight).detach().abs().max())
        for linear, kernel in zip((twin[0], twin[2]), kernels, strict=True)
    )


def test_a_kernel_moves_as_the_weight_of_a_linear_map(layers):
    assert difference(layers, RIGHT) < 1e-5
    assert difference(layers, WRONG) > 1e-3  # sqrt(out / in) of the other way round


def test_a_model_without_rules_is_told_what_to_write(layers):
    model = layers.Sequential([layers.layers.Dense(12), layers.layers.Dense(3)])
    model(torch.zeros(1, 6))
    with pytest.raises(
        ValueError, match=r"/kernel\"?: \"muon\",  # out 6 x in 12; stored in x out: Matrix\(transposed"
    ):
        optim.Muon(model)
