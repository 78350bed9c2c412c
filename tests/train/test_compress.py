"""Compression: the best factors for the inputs seen, neurons through nonlinearities, folders that load again."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from spectrain import train
from spectrain.train._compress import one_layer as factors
from spectrain.train._compress.one_layer import Seen
from spectrain.train._saved.factored import principal_adapter
from spectrain.train.config import TrainConfig


def layer_and_inputs(inputs=12, outputs=9, tokens=200):
    draw = torch.Generator().manual_seed(0)
    layer = factors.linear(torch.randn(outputs, inputs, generator=draw), torch.zeros(1))
    X = torch.randn(tokens, inputs, generator=draw) * torch.logspace(0, -2, inputs)
    seen = Seen(torch.zeros(inputs, 0, dtype=torch.float64)).and_also(X[:77]).and_also(X[77:])
    return layer, X.double(), seen


def test_what_is_kept_of_the_inputs_is_their_gram_matrix():
    _, X, seen = layer_and_inputs()
    torch.testing.assert_close(seen.L @ seen.L.mT, X.mT @ X)


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_svd_is_the_best_of_that_rank_for_the_inputs_and_truncation_is_not(rank):
    layer, X, seen = layer_and_inputs()
    Y = X @ layer.weight.detach().double().mT
    best = float(torch.linalg.svdvals(Y)[rank:].norm())

    def error(made):
        return float(torch.dist(made(X.float()).detach().double(), Y))

    assert error(factors.by_svd(layer, seen, rank)) == pytest.approx(best, rel=1e-4)
    wrong = {
        "truncated": factors.by_svd(layer, Seen.nothing(12), rank),
        "outputs": factors.by_id(layer, seen, rank),
        "rows and columns": factors.by_cur(layer, seen, rank),
    }
    for name, made in wrong.items():
        assert error(made) > best * 1.001, name
    assert error(wrong["outputs"]) <= (1 + rank) ** 0.5 * best * 1.001


def test_the_error_is_that_of_the_outputs():
    layer, X, seen = layer_and_inputs()
    made = factors.by_cr(layer, seen, 5)
    W = layer.weight.detach()
    V = torch.zeros_like(W).index_copy(1, made.indices, made.take.weight.detach())
    truth = torch.dist(made(X.float()).double(), X @ W.double().mT) / torch.linalg.norm(X @ W.double().mT)
    assert seen.error(W, V) == pytest.approx(float(truth.detach()), rel=1e-4)


@pytest.mark.parametrize("method", ["id", "cr"])
def test_neurons_that_repeat_or_die_cost_nothing(method):
    """Eight neurons, each three times or never: eight are enough through any nonlinearity."""
    draw = torch.Generator().manual_seed(1)
    gate, up = (torch.randn(8, 6, generator=draw).repeat(3, 1) for _ in range(2))
    down = factors.linear(torch.randn(5, 24, generator=draw), torch.zeros(1))
    if method == "cr":  # one weight for each term: copies must be read alike
        down.weight.data = down.weight.data[:, :8].repeat(1, 3)
    x = torch.randn(300, 6, generator=draw)
    hidden = torch.nn.functional.silu(x @ gate.mT) * (x @ up.mT)
    seen = Seen(torch.zeros(24, 0, dtype=torch.float64)).and_also(hidden)
    S, D = factors.neurons(down, seen, 8, method=method)
    kept = torch.nn.functional.silu(x @ gate[S].mT) * (x @ up[S].mT)
    torch.testing.assert_close(kept @ D.float().mT, down(hidden).detach(), atol=1e-3, rtol=1e-3)


def test_an_adapter_leaves_the_layer_as_it_was_and_trains_its_leading_directions():
    layer, X, _ = layer_and_inputs()
    adapter = principal_adapter(layer, rank=3)
    torch.testing.assert_close(adapter(X.float()), layer(X.float()), atol=1e-5, rtol=1e-5)
    W = adapter.correction.up.weight @ adapter.correction.down.weight
    np.testing.assert_allclose(
        torch.linalg.svdvals(W.detach())[:3], torch.linalg.svdvals(layer.weight.detach())[:3], rtol=1e-4
    )
    assert {name for name, p in adapter.named_parameters() if p.requires_grad} == {
        "correction.down.weight",
        "correction.up.weight",
    }


@pytest.fixture(scope="module")
def run(text_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(
        data=(str(text_folder),), depth=1, width=32, heads=2, vocabulary=300, block=16, batch_size=4, max_steps=30,
        lr=3e-3, warmup=2, eval_interval=30, eval_tokens=256, save_interval=30, spectrum_interval=0, sample_tokens=0,
        threads=1, autocast="off", muon_dtype="float32", device="cpu", out_dir=str(path),
    )  # fmt: skip
    train.train(config)
    return path


@pytest.mark.parametrize("method", ["svd", "id", "cur", "cr"])
def test_a_compressed_run_loads_writes_and_holds_its_table(method, run, tmp_path):
    out = train.compress(run, out_dir=tmp_path / "small", method=method, params=0.5, calibration_tokens=512)
    result = json.loads((out / "compress.json").read_text())
    loaded = train.load_run(out)
    original = train.load_run(run)
    linear = [m for m in loaded.model.blocks.modules() if isinstance(m, nn.Linear)]
    weights = sum(m.weight.numel() for m in linear)
    assert weights == result["linear_parameters"] <= 0.5 * result["linear_parameters_before"]
    assert weights == sum(row["parameters"] for row in result["units"])
    assert result["linear_parameters"] > 0.4 * result["linear_parameters_before"]
    assert result["loss_before"] == pytest.approx(json.loads((run / "summary.json").read_text())["validation_loss"])
    assert result["loss"] == pytest.approx(json.loads((out / "summary.json").read_text())["validation_loss"])
    ids = torch.arange(16)[None]
    assert (loaded.model(ids) - original.model(ids)).abs().max() > 0
    assert isinstance(loaded.sample("the norm", tokens=4), str)
    assert "| unit |" in (out / "compress.md").read_text()
    with pytest.raises(ValueError, match="compressed already"):
        train.compress(out, out_dir=tmp_path / "smaller", params=0.5)


def test_a_tolerance_is_kept_by_every_unit_and_a_tiny_one_changes_nothing(run, tmp_path):
    out = train.compress(run, out_dir=tmp_path / "a", method="svd", rtol=0.3, calibration_tokens=512)
    units = json.loads((out / "compress.json").read_text())["units"]
    assert all(unit["relative_error"] <= 0.3 for unit in units)
    assert any(unit["size"] for unit in units)
    same = train.compress(run, out_dir=tmp_path / "b", method="svd", rtol=1e-9, calibration_tokens=512)
    result = json.loads((same / "compress.json").read_text())
    assert result["loss"] == result["loss_before"]
    assert result["linear_parameters"] == result["linear_parameters_before"]


def test_healing_lowers_the_loss(run, tmp_path):
    out = train.compress(
        run, out_dir=tmp_path / "c", method="cr", params=0.3, calibration_tokens=512, finetune_steps=20
    )
    result = json.loads((out / "compress.json").read_text())
    assert result["loss"] < result["loss_compressed"]


BAD = {
    "both": ({"params": 0.5, "rtol": 0.1}, "not both"),
    "neither": ({}, "not both"),
    "all of it": ({"params": 1.0}, "below 1"),
    "a method": ({"params": 0.5, "method": "qr"}, "method"),
    "no calibration": ({"params": 0.5, "method": "id", "calibration_tokens": 0}, "above 0"),
    "negative steps": ({"params": 0.5, "finetune_steps": -1}, "0 or more"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_bad_arguments_are_told(arguments, words, tmp_path):
    with pytest.raises(Exception, match=words):
        train.compress(tmp_path / "run", out_dir=tmp_path / "out", **arguments)


def test_a_folder_that_is_no_run_and_one_that_is_taken(run, tmp_path):
    with pytest.raises(ValueError, match="not a run folder"):
        train.compress(tmp_path, out_dir=tmp_path / "out", params=0.5)
    with pytest.raises(ValueError, match="already holds a run"):
        train.compress(run, out_dir=run, params=0.5)
