"""The variants of the update, beside their formulas written out in float64 with msign by SVD."""

import pytest
import torch
from torch import nn

from spectrain.optim import Matrix, Muon
from spectrain.optim._layout.held import Here
from spectrain.optim._variants.variant import Turn
from spectrain.optim._variants.variants import VARIANTS


def polar(X):
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    return U @ Vh


def gradients(shape, steps, generator):
    scale = torch.logspace(0, -3, shape[0], dtype=torch.float64)[:, None]  # rows of very different size
    return [torch.randn(shape, generator=generator, dtype=torch.float64) * scale for _ in range(steps)]


def normuon(grads, *, momentum=0.95, beta2=0.95, lr=0.1, wrong=""):
    """Li et al., arXiv 2510.05491, algorithm 1, with the Nesterov average; update brought back to msign's size.

    Columns in place of rows where out < in, whose rows have norm 1 already.
    """
    W, M = torch.zeros_like(grads[0]), torch.zeros_like(grads[0])
    across = int((len(W) >= len(W.mT)) != (wrong == "other lines"))
    v = torch.zeros_like(W.sum(across, keepdim=True))
    for G in grads:
        M = momentum * M + (1 - momentum) * G
        U = polar(momentum * M + (1 - momentum) * G)
        v = beta2 * v + (1 - beta2) * U.square().mean(across, keepdim=True)
        scaled = U / v.sqrt() if wrong != "no root" else U / v
        size = U.norm() if wrong != "unscaled" else scaled.norm()
        W = W - lr * (scaled / scaled.norm() * size if wrong != "plain" else U)
    return W


def adam(grads, *, momentum=0.95, beta2=0.95, lr=0.1, wrong=""):
    """msign of the Nesterov average divided by the root of the corrected second moment."""
    W, M, V = (torch.zeros_like(grads[0]) for _ in range(3))
    for t, G in enumerate(grads, start=1):
        M = momentum * M + (1 - momentum) * G
        V = beta2 * V + (1 - beta2) * (G.square() if wrong != "momentum squared" else M.square())
        N = momentum * M + (1 - momentum) * G
        denominator = (V / (1 - beta2**t if wrong != "uncorrected" else 1)).sqrt() + (1e-8 if wrong != "eps" else 1.0)
        W = W - lr * (polar(N / denominator) if wrong != "after" else polar(N) / denominator)
    return W


def muoneq(grads, *, momentum=0.95, lr=0.1, wrong=""):
    """Chang et al., arXiv 2603.28254, form R, with the Nesterov average: rows over their norms, then msign."""
    W, M = torch.zeros_like(grads[0]), torch.zeros_like(grads[0])
    for G in grads:
        M = momentum * M + (1 - momentum) * G
        N = momentum * M + (1 - momentum) * G if wrong != "of the momentum" else M
        norms = N.norm(dim=0 if wrong == "columns" else 1, keepdim=True)
        norms = norms.sqrt() if wrong == "half" else norms
        U = polar(N) / norms if wrong == "after" else polar(N if wrong == "plain" else N / norms)
        W = W - lr * U
    return W


def moved(variant, grads, **layout):
    p = torch.nn.Parameter(torch.zeros_like(grads[0]))
    optimizer = Muon([{"params": [p], "matrix": layout}], lr=0.1, weight_decay=0.0, scale="none", variant=variant)
    for G in grads:
        p.grad = G.clone()
        optimizer.step()
    return p.detach()


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
@pytest.mark.parametrize(("variant", "formula"), [("normuon", normuon), ("adam", adam), ("muoneq", muoneq)])
def test_the_variant_is_its_formula(exact_msign, generator, shape, variant, formula):
    grads = gradients(shape, 4, generator)
    torch.testing.assert_close(moved(variant, grads), formula(grads), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("variant", "formula", "wrong"),
    [
        ("normuon", normuon, "other lines"),
        ("normuon", normuon, "no root"),
        ("normuon", normuon, "unscaled"),
        ("normuon", normuon, "plain"),
        ("adam", adam, "momentum squared"),
        ("adam", adam, "eps"),
        ("adam", adam, "after"),
        ("muoneq", muoneq, "of the momentum"),
        ("muoneq", muoneq, "columns"),
        ("muoneq", muoneq, "half"),
        ("muoneq", muoneq, "after"),
        ("muoneq", muoneq, "plain"),
    ],
)
@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_the_check_rejects_other_formulas(exact_msign, generator, shape, variant, formula, wrong):
    grads = gradients(shape, 4, generator)
    assert (moved(variant, grads) - formula(grads, wrong=wrong)).abs().max() > 1e-6


@pytest.mark.parametrize("variant", [variant.name for variant in VARIANTS])
def test_fused_is_separate(generator, variant):
    """Each piece of a fused weight moves as if it were a parameter of its own, to the last bit."""
    grads = gradients((12, 6), 3, generator)
    fused = moved(variant, grads, split=(8, 4))
    for rows in (slice(0, 8), slice(8, 12)):
        assert torch.equal(fused[rows], moved(variant, [G[rows] for G in grads]))


def test_rows_of_a_transposed_weight_are_its_outputs(generator):
    grads = gradients((6, 9), 3, generator)
    stored = moved("normuon", [G.mT.contiguous() for G in grads], transposed=True)
    torch.testing.assert_close(stored.mT, moved("normuon", grads), rtol=0, atol=1e-13)


def test_stacked_matrices_are_those_of_one_each(exact_msign, generator):
    """Experts, and a fused weight of which one piece is tall and the other wide."""
    first, second = gradients((4, 7), 3, generator), gradients((4, 7), 3, generator)
    experts = [torch.stack(pair) for pair in zip(first, second, strict=True)]
    for i, found in enumerate(moved("normuon", experts, batch=1)):
        torch.testing.assert_close(found, normuon([G[i] for G in experts]), rtol=0, atol=1e-12)
    grads = gradients((12, 6), 4, generator)
    fused = moved("normuon", grads, split=(8, 4))
    for rows in (slice(0, 8), slice(8, 12)):
        torch.testing.assert_close(fused[rows], normuon([G[rows] for G in grads]), rtol=0, atol=1e-12)


def test_all_columns_of_a_wide_matrix_get_the_same_long_run_size(generator):
    """The columns of a plain msign keep the sizes that the gradient gives them; NorMuon's purpose is to end that."""
    scale = torch.logspace(0, -2, 9, dtype=torch.float64)
    grads = [torch.randn(3, 9, generator=generator, dtype=torch.float64) * scale for _ in range(60)]
    spread = {}
    for variant in ("plain", "normuon"):
        p, sizes = nn.Parameter(torch.zeros(3, 9, dtype=torch.float64)), []
        optimizer = Muon([p], lr=1.0, weight_decay=0.0, scale="none", momentum=0.0, variant=variant)
        for G in grads:
            before, p.grad = p.detach().clone(), G
            optimizer.step()
            sizes.append((p.detach() - before).square().sum(0))
        total = torch.stack(sizes[20:]).sum(0)
        spread[variant] = float(total.max() / total.min())
    assert spread["normuon"] < 2 < 20 < spread["plain"]


def old_state(shape):
    """As saved when the averages were of rows everywhere."""
    p = nn.Parameter(torch.zeros(shape))
    optimizer = Muon([("w", p)], variant="normuon")
    p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    state = optimizer.state_dict()
    new = state["state"][0].pop("line_second_moment")
    state["state"][0]["row_second_moment"] = torch.full((shape[0],), 0.25)
    return state, new


def test_a_state_of_rows_loads_where_rows_are_meant():
    state, _ = old_state((6, 4))
    optimizer = Muon([("w", nn.Parameter(torch.zeros(6, 4)))], variant="normuon")
    optimizer.load_state_dict(state)
    assert optimizer.state_dict()["state"][0]["line_second_moment"].tolist() == [0.25] * 6
    assert "row_second_moment" in state["state"][0]


def test_a_state_of_rows_of_a_wide_matrix_is_refused_by_name_and_its_advice_works():
    state, _ = old_state((4, 6))
    optimizer = Muon([("w", nn.Parameter(torch.zeros(4, 6)))], variant="normuon")
    with pytest.raises(ValueError, match=r"rows of w \(4, 6\).*torch.zeros\(6\)"):
        optimizer.load_state_dict(state)
    state["state"][0]["row_second_moment"] = torch.zeros(6)
    optimizer.load_state_dict(state)
    assert optimizer.state_dict()["state"][0]["line_second_moment"].shape == (6,)


def test_averages_of_another_length_are_refused():
    state, new = old_state((4, 6))
    state["state"][0] = {k: v for k, v in state["state"][0].items() if k != "row_second_moment"}
    state["state"][0]["line_second_moment"] = new[:5]
    with pytest.raises(ValueError, match=r"w.line_second_moment: saved \(5,\)"):
        Muon([("w", nn.Parameter(torch.zeros(4, 6)))], variant="normuon").load_state_dict(state)


def test_another_variant_is_refused_and_its_state_is_saved():
    p = torch.nn.Parameter(torch.zeros(4, 6))
    p.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    optimizer = Muon([p], variant="normuon")
    optimizer.step()
    state = optimizer.state_dict()
    assert state["state"][0]["line_second_moment"].shape == (6,)
    other = Muon([torch.nn.Parameter(torch.zeros(4, 6))], variant="normuon")
    other.load_state_dict(state)
    assert torch.equal(other.state_dict()["state"][0]["line_second_moment"], state["state"][0]["line_second_moment"])
    with pytest.raises(ValueError, match="normuon"):
        Muon([torch.nn.Parameter(torch.zeros(4, 6))]).load_state_dict(state)


@pytest.mark.parametrize("wrong", [{"variant": "shampoo"}, {"variant": "adam", "beta2": 1.0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=r"variant must be one of plain, adam, normuon|beta2 must be in \[0, 1\)"):
        Muon([torch.nn.Parameter(torch.zeros(2, 2))], **wrong)


def test_heads_along_the_input_have_rows_of_their_own(generator):
    grads = gradients((4, 6), 2, generator)
    apart = [moved("normuon", [G[:, c].contiguous() for G in grads]) for c in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(
        moved("normuon", grads, **Matrix(heads=(2,), along="in").as_dict()), torch.cat(apart, 1), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("size", [1e-30, 1e-42, 1.0, 1e30])
def test_rows_of_any_size_have_norm_one(size):
    p = nn.Parameter(torch.zeros(2, 4))
    optimizer = Muon([{"params": [p], "algorithm": "rows"}], lr=1.0, scale="none", weight_decay=0.0)
    p.grad = torch.zeros(2, 4)
    p.grad[1] = size
    optimizer.step()
    torch.testing.assert_close(p, torch.tensor([[0.0] * 4, [-0.5] * 4]))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_what_a_variant_promises(variant, generator):
    """Averages are not written to, updates keep their norm, looking again changes no state and says the same."""
    layout, size = Matrix(split=(5, 3)), torch.Size((8, 4))
    held, grad = Here([layout], [size]), torch.randn(size, generator=generator)
    (state,) = Muon(
        [{"params": [nn.Parameter(torch.ones(size))], "matrix": layout}], variant=variant.name
    ).state.values()
    again = []
    for advance in (True, False):
        average, update = grad.clone(), torch.randn(size, generator=torch.Generator().manual_seed(1))
        before, kept = update.clone(), {name: value.clone() for name, value in state.items()}
        found = [average]
        if variant.before is not None:
            found = variant.before(Turn(held, [average], [grad], [state], [0.5], advance))
        if variant.after is not None:
            variant.after(Turn(held, [update], [], [state], [0.5], advance))
        assert torch.equal(average, grad)
        for rows in (slice(0, 5), slice(5, 8)):
            torch.testing.assert_close(update[rows].norm(), before[rows].norm())
        unchanged = all(torch.equal(value, kept[name]) for name, value in state.items())
        assert unchanged == (not advance or not variant.keeps)
        again.append((found[0], update))
    for first, second in zip(*again, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_explain_says_what_a_variant_does(variant, capsys):
    Muon([nn.Parameter(torch.ones(2, 2))], variant=variant.name).explain()
    assert (f"variant {variant.name}: {variant.words}" in capsys.readouterr().out) == (variant.name != "plain")


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e30])
def test_muoneq_sees_no_scale_of_a_row(size):
    """A row of any size moves as one of usual size; one of zeros does not move, and hinders nobody."""
    grads = [torch.randn(5, 8, generator=torch.Generator().manual_seed(0))]
    usual = moved("muoneq", grads)
    scaled = grads[0].clone()
    scaled[1] *= size
    torch.testing.assert_close(moved("muoneq", [scaled]), usual, rtol=0, atol=1e-6 if size > 1e-40 else 2e-3)
    scaled[1] = 0
    found = moved("muoneq", [scaled])
    assert not found[1].any()
    rest = [row for row in range(5) if row != 1]
    torch.testing.assert_close(found[rest], moved("muoneq", [grads[0][rest]]), rtol=0, atol=1e-4)
