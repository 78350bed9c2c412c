"""The router on a zoo: module types decide, ties are seen, ambiguity is an error."""

import warnings

import pytest
import torch
from torch import nn

from spectrain.optim import Matrix, Muon, route


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.inner = nn.Linear(8, 8)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embedding.weight


class Transformer(nn.Module):
    """Depth-1 decoder whose blocks hold a Linear called output, and whose head is not registered last."""

    def __init__(self, layers=1):
        super().__init__()
        self.lm_head = nn.Linear(8, 20, bias=False)
        self.wte = nn.Embedding(20, 8)
        self.wpe = nn.Embedding(16, 8)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {"ln": nn.LayerNorm(8), "qkv": nn.Linear(8, 24), "output": nn.Linear(8, 8), "up": nn.Linear(8, 16)}
            )
            for _ in range(layers)
        )


class Hugging(nn.Module):
    """Says which module its head is, as transformers' models do."""

    def __init__(self):
        super().__init__()
        self.prediction = nn.Linear(8, 20)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.last = nn.Linear(8, 8)

    def get_output_embeddings(self):
        return self.prediction


class Conv1D(nn.Module):
    """As transformers' GPT-2 stores its weights: in x out, used as x @ W."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.ones(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))


class Experts(nn.Module):
    """Stacked experts that declare what they are."""

    logical_matrices = {"up": {"batch": 1}, "down": {"batch": 1, "transposed": True}, "router": "adamw"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.ones(4, 16, 8))
        self.down = nn.Parameter(torch.ones(4, 16, 8))
        self.router = nn.Parameter(torch.ones(4, 8))


class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(8, 6))
        self.cls = nn.Parameter(torch.ones(1, 1, 8))
        self.table = nn.Parameter(torch.ones(1, 5, 8))


def table(model, **settings):
    return {row["name"]: row for row in route(model, **settings).rows}


def muon(model, **settings):
    return {name: row["matrix"] for name, row in table(model, **settings).items() if row["algorithm"] == "muon"}


ZOO = {
    "multilayer perceptron": (
        lambda: nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)),
        {"0.weight": "12x6", "2.weight": "12x12"},
    ),
    "tied language model": (Tied, {"inner.weight": "8x8"}),
    "decoder with a head that is not last": (
        Transformer,
        {"blocks.0.qkv.weight": "24x8", "blocks.0.output.weight": "8x8", "blocks.0.up.weight": "16x8"},
    ),
    "head by get_output_embeddings": (
        Hugging,
        {"layers.0.weight": "8x8", "layers.1.weight": "8x8", "last.weight": "8x8"},
    ),
    "headless encoder": (
        lambda: nn.ModuleList(nn.Linear(8, 8) for _ in range(3)),
        {"0.weight": "8x8", "1.weight": "8x8", "2.weight": "8x8"},
    ),
    "one Linear alone": (lambda: nn.Linear(5, 4), {"weight": "4x5"}),
    "regression to one number": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 1)), {"0.weight": "4x5"}),
    "Conv1d": (lambda: nn.Conv1d(4, 8, 5), {"weight": "8x20"}),
    "Conv2d": (lambda: nn.Conv2d(3, 8, (3, 5)), {"weight": "8x45"}),
    "Conv3d": (lambda: nn.Conv3d(2, 8, 3), {"weight": "8x54"}),
    "pointwise convolution": (lambda: nn.Conv2d(4, 8, 1), {"weight": "8x4"}),
    "grouped convolution": (lambda: nn.Conv2d(8, 16, 3, groups=4), {"weight": "4 * 4x18"}),
    "depthwise convolution": (lambda: nn.Conv2d(8, 8, 3, groups=8), {}),
    "depthwise with multiplier": (lambda: nn.Conv1d(8, 16, 3, groups=8), {}),
    "transposed convolution": (lambda: nn.ConvTranspose2d(6, 4, 3), {"weight": "36x6"}),
    "grouped transposed convolution": (lambda: nn.ConvTranspose1d(8, 4, 3, groups=2), {"weight": "2 * 6x4"}),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2),
        {"in_proj_weight": "3 * 8x8", "out_proj.weight": "8x8"},
    ),
    "cross-attention": (
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6),
        {"q_proj_weight": "8x8", "k_proj_weight": "8x4", "v_proj_weight": "8x6", "out_proj.weight": "8x8"},
    ),
    "LSTM with projection": (
        lambda: nn.LSTM(6, 8, proj_size=4),
        {"weight_ih_l0": "4 * 8x6", "weight_hh_l0": "4 * 8x4", "weight_hr_l0": "4x8"},
    ),
    "GRU": (lambda: nn.GRU(6, 8), {"weight_ih_l0": "3 * 8x6", "weight_hh_l0": "3 * 8x8"}),
    "RNN cell": (lambda: nn.RNNCell(6, 8), {"weight_ih": "8x6", "weight_hh": "8x8"}),
    "GPT-2 of transformers": (
        lambda: nn.ModuleDict({"wte": nn.Embedding(20, 8), "c_attn": Conv1D(24, 8)}),
        {"c_attn.weight": "24x8"},
    ),
    "norms with two dimensions": (lambda: nn.LayerNorm((4, 8)), {}),
    "batch norm, group norm": (lambda: nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4)), {}),
    "embedding bag": (lambda: nn.EmbeddingBag(20, 8), {}),
    "declared experts": (Experts, {"up": "4 * 16x8", "down": "4 * 8x16"}),
    "shared Linear": (
        lambda: nn.ModuleDict({"a": (layer := nn.Linear(8, 8)), "b": layer, "head": nn.Linear(8, 4)}),
        {"a.weight": "8x8"},
    ),
}


@pytest.mark.parametrize(("make", "expected"), ZOO.values(), ids=ZOO)
def test_zoo(make, expected):
    model = make()
    assert muon(model) == expected
    assert set(table(model)) == {name for name, _ in model.named_parameters()}
    optimizer = Muon(model)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()


def test_reasons_are_said():
    reasons = {name: row["reason"] for name, row in table(Tied()).items()}
    assert reasons["embedding.weight"] == "embedding, tied to out.weight"
    assert reasons["inner.weight"] == "Linear"
    assert reasons["inner.bias"] == "bias"
    assert "lm_head" in table(Transformer())["lm_head.weight"]["reason"]
    assert "depthwise" in table(nn.Conv2d(8, 8, 3, groups=8))["weight"]["reason"]


def test_a_tie_holds_from_either_side():
    model = nn.ModuleDict({"out": nn.Linear(8, 20), "embedding": nn.Embedding(20, 8)})
    model["out"].weight = model["embedding"].weight
    assert muon(model) == {}
    assert table(model)["out.weight"]["reason"] == "embedding, tied to embedding.weight"


def test_ambiguity_is_an_error_that_names_everything():
    with pytest.raises(ValueError, match="Nothing says what") as error:
        route(Raw())
    for words in ("matrix  (8, 6)  of Raw", "table  (1, 5, 8)", '"table": "adamw",', "transposed=True"):
        assert words in str(error.value)
    assert "cls" not in str(error.value)
    with pytest.raises(ValueError, match="weight"):
        route(nn.Bilinear(3, 4, 5))


def test_what_is_printed_can_be_pasted():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Raw() for _ in range(2))
            self.stack = nn.Parameter(torch.ones(4, 8, 6))

    with pytest.raises(ValueError, match="paste it") as error:
        route(Mixed())
    pasted = str(error.value).partition("\nrules=")[2].partition("\n}")[0] + "\n}"
    rules = eval(pasted, {"Matrix": Matrix})
    assert set(rules) == {"blocks.*.matrix", "blocks.*.table", "stack"}
    found = table(Mixed(), rules=rules)
    assert (found["blocks.1.matrix"]["matrix"], found["stack"]["matrix"]) == ("8x6", "4 * 8x6")
    assert found["blocks.0.table"]["algorithm"] == "adamw"


@pytest.mark.parametrize("old", [False, True])
def test_the_direction_of_a_normed_weight_is_the_layers_matrix(old):
    layer = nn.Conv1d(8, 6, 3, groups=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        norm = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
        model = nn.ModuleDict(
            {"conv": norm(layer, dim=2), "head": nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))}
        )
    assert list(muon(model).values()) == ["2 * 3x12"]
    heads = [name for name, row in table(model).items() if row["reason"].startswith("output head")]
    assert heads == ["head.parametrizations.weight.original1"]
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4))
    assert list(muon(normed).values()) == ["4x6"]
    with pytest.raises(ValueError, match=r"parametrizations\.weight\.original"):
        route(nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)))


def test_weights_used_in_two_ways_are_an_error():
    a, b = nn.Linear(8, 8, bias=False), Conv1D(8, 8)
    b.weight = a.weight
    with pytest.raises(ValueError, match=r"0\.weight"):
        route(nn.ModuleList([a, b, nn.Linear(8, 2)]))


def test_rules_overrule_and_the_first_decides():
    rules = {"matrix": Matrix(transposed=True), "ta*": "adamw", "*": "muon"}
    with pytest.raises(ValueError, match="cls"):
        route(Raw(), rules=rules)
    found = table(Raw(), rules={"matrix": Matrix(transposed=True), "*": "adamw"})
    assert found["matrix"]["matrix"] == "6x8"
    assert found["table"]["algorithm"] == "adamw"
    assert muon(Tied(), rules={"embedding.weight": "muon"})["embedding.weight"] == "20x8"
    assert muon(Tied(), rules={"out.*": {"heads": (5,)}})["embedding.weight"] == "5 * 4x8"


def test_rules_that_match_nothing_are_errors():
    with pytest.raises(ValueError, match=r"match no parameter: blocks\.\*"):
        route(Tied(), rules={"blocks.*": "adamw"})


@pytest.mark.parametrize("rule", ["sgd", 3, {"head": 3}, None])
def test_rules_that_mean_nothing_are_errors(rule):
    with pytest.raises(ValueError, match=r"rule is one of|Matrix has no"):
        route(Tied(), rules={"inner.weight": rule})


def test_norm_and_embedding_alternatives_of_article_11416():
    model = Transformer()
    found = table(model, rules={"*.ln.weight": "sign", "wte.weight": "rows"})
    assert found["blocks.0.ln.weight"]["algorithm"] == "sign"
    assert abs(found["blocks.0.ln.weight"]["lr_factor"] - 0.2) < 1e-6
    assert abs(found["wte.weight"]["lr_factor"] - 0.2 * 8**0.5) < 1e-6


def test_factor_follows_the_logical_matrix():
    """Fused grouped-query attention: the key's factor is that of 16 x 64, not of the fused 96 x 64."""
    model = nn.ModuleDict({"qkv": nn.Linear(64, 96), "head": nn.Linear(64, 9)})
    rules = {"qkv.weight": Matrix(split=(64, 16, 16))}
    row = next(row for row in Muon(model, scale="spectral", rules=rules).rows if row["name"] == "qkv.weight")
    assert row["lr_factor"] == [0.5, 1.0]
    assert row["matrix"] == "64x64 + 2 * 16x64"


def test_decay_is_off_for_norms_and_biases_only():
    decay = {row["name"]: row["weight_decay"] for row in Muon(Transformer(), weight_decay=0.25).rows}
    assert {name for name, value in decay.items() if value == 0.0} == {
        name for name in decay if name.endswith("bias") or ".ln." in name
    }
    assert set(decay.values()) == {0.0, 0.25}


def test_explain_prints_what_it_returns(capsys):
    routes = route(Tied())
    assert routes.explain() == routes.rows
    printed = capsys.readouterr().out
    assert all(row["name"] in printed and row["reason"] in printed for row in routes.rows)
    optimizer = Muon(Tied(), scale="spectral")
    assert optimizer.explain() == optimizer.rows


def test_rows_are_plain_data():
    import json

    model = Transformer()
    rows = Muon(model).rows
    assert json.loads(json.dumps(rows)) == rows
    assert {"name", "shape", "matrix", "algorithm", "lr_factor", "weight_decay", "reason"} == set(rows[0])


def test_frozen_parameters_do_not_block_and_do_not_move():
    model = Raw()
    model.requires_grad_(False)
    assert set(table(model)) == {"cls"}
    layer = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    layer[0].weight.requires_grad_(False)
    assert "0.weight" in muon(layer)


def test_lazy_modules_are_refused_by_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"0\.weight.*one batch"):
        Muon(model)


def test_the_vectors_that_attention_adds_to_keys_and_values_are_vectors():
    rows = {row["name"]: row for row in route(nn.MultiheadAttention(16, 2, kdim=8, vdim=8, add_bias_kv=True)).rows}
    assert (rows["bias_k"]["algorithm"], rows["bias_k"]["weight_decay"]) == ("adamw", 0.0)
    assert rows["k_proj_weight"]["matrix"] == "16x8"
