"""Logical matrices: fused equals separate, stacked equals one by one, stored either way equals itself."""

import pytest
import torch
from torch import nn

from spectrain.optim import Matrix, Muon


def step(*params, steps=2, seed=0, **groups):
    """Two steps from given gradients; each item is (weights, gradients, matrix)."""
    made = []
    for W, _, matrix in params:
        made.append({"params": [nn.Parameter(W.clone())], "matrix": matrix})
    optimizer = Muon(made, lr=0.1, scale="spectral", tol=1e-10, **groups)
    for t in range(steps):
        for group, (_, grads, _) in zip(optimizer.param_groups, params, strict=True):
            group["params"][0].grad = grads[t].clone()
        optimizer.step()
    return [group["params"][0].detach() for group in optimizer.param_groups]


def drawn(shape, generator, count=3):
    W, *grads = torch.randn((count, *shape), generator=generator, dtype=torch.float64)
    return W, grads


def agree(a, b):
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_fused_attention_equals_separate_matrices(generator):
    W, grads = drawn((96, 64), generator)
    (fused,) = step((W, grads, {"split": (64, 16, 16)}))
    rows = [slice(0, 64), slice(64, 80), slice(80, 96)]
    separate = step(*[(W[r], [G[r] for G in grads], {}) for r in rows])
    agree(fused, torch.cat(separate))


def test_heads_equal_separate_heads(generator):
    W, grads = drawn((96, 64), generator)
    (heads,) = step((W, grads, {"split": (64, 16, 16), "heads": (4, 1, 1)}))
    separate = step(*[(W[i : i + 16], [G[i : i + 16] for G in grads], {}) for i in range(0, 96, 16)])
    agree(heads, torch.cat(separate))
    with pytest.raises(AssertionError):
        agree(heads, step((W, grads, {"split": (64, 16, 16)}))[0])


def test_heads_along_the_input_of_an_output_projection(generator):
    W, grads = drawn((24, 32), generator)
    (heads,) = step((W, grads, {"heads": (4,), "along": "in"}))
    separate = step(*[(W[:, i : i + 8], [G[:, i : i + 8] for G in grads], {}) for i in range(0, 32, 8)])
    agree(heads, torch.cat(separate, dim=1))


@pytest.mark.parametrize("transposed", [False, True])
def test_stacked_experts_equal_one_by_one(transposed, generator):
    W, grads = drawn((4, 16, 10), generator)
    (stacked,) = step((W, grads, {"batch": 1, "transposed": transposed}))
    single = step(*[(W[e], [G[e] for G in grads], {"transposed": transposed}) for e in range(4)])
    agree(stacked, torch.stack(single))


def test_two_batch_dimensions(generator):
    W, grads = drawn((2, 3, 6, 5), generator)
    (stacked,) = step((W, grads, {"batch": 2}))
    (flat,) = step((W.flatten(0, 1), [G.flatten(0, 1) for G in grads], {"batch": 1}))
    agree(stacked, flat.view_as(stacked))


def test_transposed_storage_equals_transposed_weights(generator):
    W, grads = drawn((12, 7), generator)
    (stored,) = step((W.T, [G.T for G in grads], {"transposed": True}))
    (plain,) = step((W, grads, {}))
    agree(stored, plain.T)
    with pytest.raises(AssertionError):  # scale="spectral" sees which side is out (article 11416, on Keras)
        agree(step((W.T, [G.T for G in grads], {}))[0], plain.T)


def test_convolution_equals_its_flattened_matrix(generator):
    W, grads = drawn((8, 3, 5, 5), generator)
    (conv,) = step((W, grads, {"flatten": True}))
    (flat,) = step((W.flatten(1), [G.flatten(1) for G in grads], {}))
    agree(conv.flatten(1), flat)


def test_grouped_convolution_equals_one_convolution_a_group(generator):
    W, grads = drawn((8, 3, 5), generator)
    (grouped,) = step((W, grads, {"flatten": True, "groups": 4}))
    single = step(*[(W[i : i + 2], [G[i : i + 2] for G in grads], {"flatten": True}) for i in range(0, 8, 2)])
    agree(grouped, torch.cat(single))


def test_transposed_convolution_is_the_adjoint_matrix(generator):
    """nn.ConvTranspose stores in x out x kernel; its matrix maps in to out*kernel."""
    W, grads = drawn((6, 4, 3), generator)
    (stored,) = step((W, grads, {"flatten": True, "transposed": True}))
    (plain,) = step((W.flatten(1).T, [G.flatten(1).T for G in grads], {}))
    agree(stored.flatten(1).T, plain)


def test_a_parameter_is_moved_alike_alone_and_among_others(generator):
    """Batching over parameters changes nothing beyond rounding (bound: tol of msign times the step)."""
    items = [(*drawn(shape, generator), {}) for shape in [(9, 4), (4, 9), (12, 4), (6, 6), (9, 4)]]
    for together, item in zip(step(*items), items, strict=True):
        agree(together, step(item)[0])


LAYOUTS = {
    "plain": (Matrix(), (6, 4)),
    "conv": (Matrix(flatten=True, groups=2), (6, 4, 3)),
    "transposed": (Matrix(transposed=True), (6, 4)),
    "everything": (
        Matrix(batch=1, transposed=True, split=(8, 4), heads=(2, 1), along="in"),
        (3, 6, 12),
    ),
}


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS.values(), ids=LAYOUTS)
def test_views_cover_every_entry_once_and_copy_nothing(layout, shape):
    tensor = torch.zeros(shape)
    for view in layout.views(tensor):
        view.add_(1)
    assert torch.equal(tensor, torch.ones(shape))
    assert layout.shapes(tensor.shape) == [tuple(view.shape) for view in layout.views(tensor)]
    assert Matrix.from_dict(layout.as_dict()) == layout


BAD = {
    "experts without batch": (Matrix(), (4, 8, 6), "batch=1"),
    "convolution without flatten": (Matrix(), (4, 8, 3, 3), "flatten=True"),
    "batch of vectors": (Matrix(batch=1), (4, 8), "batch"),
    "split that does not add up": (Matrix(split=(4, 5)), (8, 6), "adds up to 9"),
    "heads that do not divide": (Matrix(heads=(3,)), (8, 6), "do not divide"),
    "heads that do not divide in": (Matrix(heads=(4,), along="in"), (8, 6), "do not divide"),
    "groups that do not divide": (Matrix(groups=3), (8, 6), "groups"),
}


@pytest.mark.parametrize(("layout", "shape", "words"), BAD.values(), ids=BAD)
def test_layouts_that_do_not_fit_are_errors(layout, shape, words):
    with pytest.raises(ValueError, match=words):
        layout.views(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"group0\.0"):
        Muon([{"params": [nn.Parameter(torch.zeros(shape))], "matrix": layout}])


def test_layouts_that_cannot_be_meant():
    for bad in ({"split": (2, -1)}, {"groups": 0}, {"batch": -1}, {"split": (4, 4), "heads": (2,)}):
        with pytest.raises(ValueError, match="Matrix"):
            Matrix(**bad)
    with pytest.raises(ValueError, match="transpose"):
        Matrix.from_dict({"transpose": True})
