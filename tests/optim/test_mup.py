"""muP: the powers of the width of articles 10770 and 10795, roles by module graph, and all that must not lose them."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

from spectrain import optim
from spectrain.optim import Matrix, Muon, mup

WIDTHS = (64, 128, 256, 512)


class Chain(nn.Module):
    """In words: 20 kinds of tokens, a residual block, a head."""

    def __init__(self, width, *, tied=False, vocabulary=20):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(x + self.down(self.up(self.norm(x)).relu()))


class Attention(nn.Module):
    """One map, and what mup looks for in attention."""

    def __init__(self, width, *, head_dim):
        super().__init__()
        self.head_dim, self.scale = head_dim, head_dim**-0.5
        self.query = nn.Linear(width, width)


def exponent(values, widths=WIDTHS):
    """The power of the width that values follow, by least squares in logarithms."""
    x, y = (torch.tensor([math.log(v) for v in row], dtype=torch.float64) for row in (widths, values))
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


def factors(width, optimizer, key="lr_factor", **settings):
    groups = mup(Chain(width)).groups(optimizer, lr=1.0, weight_decay=1.0, **settings)
    return {name: group[key] for group in groups for name, _ in group["params"]}


ADAM = {"embedding.weight": 0, "up.weight": -1, "down.weight": -1, "head.weight": -1, "norm.weight": 0, "up.bias": 0}
MUON = {
    "match_rms_adamw": {"up.weight": -0.5, "down.weight": -0.5},
    "spectral": {"up.weight": 0, "down.weight": 0},
    "original": {"up.weight": 0, "down.weight": 0},
    "none": {"up.weight": 0, "down.weight": 0},
}


def test_adamw_rates_follow_the_table_of_article_10770():
    for name, power in ADAM.items():
        assert exponent([factors(w, "adamw")[name] for w in WIDTHS]) == pytest.approx(power, abs=1e-12), name


@pytest.mark.parametrize("scale", list(MUON))
def test_muon_rates_are_what_the_scale_mode_lacks(scale):
    """Also of inputs and outputs that Muon moves: the update's spectral norm is sqrt(out / in), times a constant."""
    for name, power in MUON[scale].items():
        found = [factors(w, "muon", scale=scale)[name] for w in WIDTHS]
        assert exponent(found) == pytest.approx(power, abs=1e-12), name
    for name in ADAM.keys() - MUON[scale].keys():
        assert exponent([factors(w, "muon", scale=scale)[name] for w in WIDTHS]) == pytest.approx(ADAM[name], abs=1e-12)


@pytest.mark.parametrize("scale", list(MUON))
def test_every_update_of_muon_has_the_spectral_norm_of_the_condition(scale, exact_msign):
    """Measured on real steps: input, hidden, output and a projection cut into heads along its input."""
    norms = {}
    for width in WIDTHS[:3]:
        model = nn.Sequential()
        for name, (out, in_) in {"first": (width, 7), "hidden": (2 * width, width), "last": (5, 2 * width)}.items():
            model.add_module(name, nn.Linear(in_, out, bias=False))
        model.add_module("heads", nn.Linear(width, width, bias=False))
        rules = {"last.weight": "muon", "heads.weight": Matrix(heads=(width // 16,), along="in")}
        roles = {"last.weight": "output", "heads.weight": "hidden"}
        scaled = mup(model, rules=rules, roles=roles)
        optimizer = Muon(scaled.groups("muon", lr=1.0, weight_decay=0.0, scale=scale), compute_dtype="float32")
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for p in model.parameters():  # of rank one: heads are aligned, the worst case that the factor is for
            p.grad = torch.outer(torch.linspace(1, 2, p.shape[0]), torch.linspace(1, 2, p.shape[1]))
        optimizer.step()
        for name, p in model.named_parameters():
            change = torch.linalg.matrix_norm(p.detach() - before[name], ord=2)
            norms.setdefault(name, []).append(float(change) / math.sqrt(p.shape[0] / p.shape[1]))
    for name, found in norms.items():
        assert exponent(found, WIDTHS[:3]) == pytest.approx(0, abs=0.03), (name, found)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_a_step_takes_from_a_weight_is_the_same_at_every_width(optimizer):
    """mup #73, #1, #56: decoupled decay shrank with the learning rate, and no check saw it."""
    taken = []
    for width in WIDTHS[:3]:
        model = Chain(width)
        groups = mup(model).groups(optimizer, lr=0.1, weight_decay=0.5)
        step = torch.optim.AdamW(groups) if optimizer == "adamw" else Muon(groups)
        before = model.up.weight.detach().clone()
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        step.step()
        taken.append(float(1 - (model.up.weight.detach() / before).median()))
    assert taken == pytest.approx([0.05] * 3, rel=1e-5)
    assert factors(512, "muon", "decay_factor", decay="independent")["up.weight"] == 1


def test_at_the_base_width_every_factor_is_one():
    for optimizer in ("adamw", "muon"):
        groups = mup(Chain(256), base_width=256).groups(optimizer, lr=0.5, weight_decay=0.25)
        found = {name: (group["lr"], group["lr_factor"]) for group in groups for name, _ in group["params"]}
        assert {name: rate for name, (rate, _) in found.items() if name != "down.weight"} == dict.fromkeys(
            found.keys() - {"down.weight"}, 0.5
        )
        assert found["down.weight"][1] == {"adamw": 0.5, "muon": 0.5**0.5}[optimizer]  # it reads 2 x the base width


@pytest.mark.parametrize("width", [64, 256])
def test_initial_weights(width):
    """Measured deviations against sqrt(min(1, out/in) / in), 1/in for the head, 1 for a table of rows."""
    model = Chain(width, vocabulary=1000)
    mup(model, base_width=256).initialise(generator=0)
    for p, std in (
        (model.embedding.weight, 1.0),
        (model.up.weight, width**-0.5),
        (model.down.weight, (0.5 / (2 * width)) ** 0.5),
        (model.head.weight, 16 / width),
    ):
        assert float(p.detach().std()) == pytest.approx(std, rel=0.03)
    assert not model.up.bias.any()
    assert bool((model.norm.weight == 1).all())
    table = nn.Sequential(nn.Embedding(9, 8, padding_idx=3), nn.Linear(8, 4), nn.Linear(4, 2))
    nn.init.zeros_(table[2].weight)
    mup(table).initialise(generator=torch.Generator().manual_seed(1))
    assert not table[0].weight[3].any()
    assert not table[2].weight.any()  # zero on purpose
    mup(table).initialise(generator=1, keep_zeros=False)
    assert table[2].weight.any()


def test_initialise_does_not_touch_the_global_generator():
    state = torch.get_rng_state()
    twice = [Chain(32) for _ in range(2)]
    state = torch.get_rng_state()
    for model in twice:
        mup(model).initialise(generator=5)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(twice[0].parameters(), twice[1].parameters(), strict=True))


def test_a_tied_head_is_multiplied_once():
    """With ||embedding row|| ~ sqrt(width), logits of an aligned feature grow as the width without the multiplier."""
    grown = []
    for width in WIDTHS:
        model = Chain(width, tied=True)
        for _ in range(2):  # a second call does not multiply again
            scaled = mup(model)
        assert [part.role for part in scaled.parts if part.name == "embedding.weight"] == ["tied"]
        nn.init.ones_(model.head.weight)
        grown.append(float(model.head(torch.ones(width)).detach().mean()))
    assert exponent(grown) == pytest.approx(0, abs=1e-5)
    assert not model.head(input=torch.zeros(512)).any()


def test_attention_of_growing_heads():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 64), "attention": Attention(64, head_dim=64)})
    model["head"] = nn.Linear(64, 5)
    for _ in range(2):
        mup(model, base_head_dim=16)
        assert model["attention"].scale == 4 / 64
    with pytest.raises(ValueError, match=r"no module has head_dim and one of scale"):
        mup(Chain(32), base_head_dim=16)
    wrapped = nn.Sequential(nn.Embedding(5, 64), nn.MultiheadAttention(64, 2), nn.Linear(64, 5))
    with pytest.raises(ValueError, match=r"1 divides logits by sqrt\(head_dim\).*Let the number of heads grow"):
        mup(wrapped, base_head_dim=16)
    assert mup(wrapped, base_head_dim=32) is not None


def same_rates(model, expected):
    return factors_of(mup(model)) == expected


def factors_of(scaled):
    return {row["name"]: (row["role"], row["lr_factor"], row["decay_factor"]) for row in scaled.rows()}


def test_a_copy_keeps_everything():
    """mup #59, #60: what stood on tensors was lost by copies, wrappers and torch.save."""
    model = Chain(64, tied=True)
    expected = factors_of(mup(model, base_width=16))
    model.eval()
    go = torch.arange(6)
    told = model(go)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)]
    for other in others:
        assert torch.equal(other(go), told)
        assert factors_of(mup(other, base_width=16)) == expected
    fresh = Chain(64, tied=True)
    fresh.load_state_dict(model.state_dict())
    assert factors_of(mup(fresh, base_width=16)) == expected
    assert torch.equal(fresh.eval()(go), told)
    assert not any(vars(p) for p in model.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_groups_survive_the_state_dict_and_schedulers(optimizer):
    make = torch.optim.AdamW if optimizer == "adamw" else Muon
    first = make(mup(Chain(64)).groups(optimizer, lr=0.1, weight_decay=0.2))
    saved = first.state_dict()
    second = make(mup(Chain(64)).groups(optimizer, lr=0.7, weight_decay=0.9))
    second.load_state_dict(saved)
    for key in ("lr", "weight_decay", "lr_factor", "role"):
        assert [g[key] for g in second.param_groups] == [g[key] for g in first.param_groups]
    schedule = optim.ScheduleLR(first, optim.WarmupDecay(steps=4))
    for _ in range(2):
        first.step()
        schedule.step()
    ratios = {group["lr"] / group["lr_factor"] for group in first.param_groups}
    assert max(ratios) == pytest.approx(min(ratios))
    assert max(ratios) == pytest.approx(0.05)


def test_compiled_and_eager_are_one(monkeypatch):
    """mup #60: torch.compile lost the shapes; here there is nothing to lose, and the hook is in the graph."""
    model = Chain(32, tied=True)
    mup(model, base_width=8)
    go = torch.arange(6)
    expected = model(go)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(go), expected)
    assert factors_of(mup(compiled, base_width=8)).keys() == {f"_orig_mod.{n}" for n in factors_of(mup(model))}


CONV = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 32, 1), nn.Linear(32, 10)]

TRANSFORMER = "input hidden hidden hidden hidden output"


@pytest.mark.parametrize(
    ("model", "roles"),
    [
        (nn.Sequential(nn.Linear(9, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 3)), "input hidden output"),
        (nn.Sequential(*CONV), "input vector hidden output"),
        (nn.Sequential(nn.Embedding(9, 8), nn.LSTM(8, 8), nn.Linear(8, 1)), "input hidden hidden output"),
        (nn.Sequential(nn.GRU(3, 8), nn.Linear(8, 2)), "input hidden output"),
        (nn.Sequential(nn.Embedding(9, 8), nn.TransformerEncoderLayer(8, 2), nn.Linear(8, 9)), TRANSFORMER),
    ],
    ids=["perceptron", "convolutions", "lstm", "gru", "transformer"],
)
def test_roles_come_from_the_module_graph(model, roles):
    found = [part.role for part in mup(model).parts if part.param.ndim > 1]
    assert found == roles.split()


def test_what_cannot_be_decided_is_an_error_with_its_cure():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 9)
            self.positions = nn.Parameter(torch.zeros(30, 8))

    with pytest.raises(ValueError, match=r"(?s)positions  \(30, 8\).*roles=\{'positions': 'hidden'\}.*'input'"):
        mup(Positions())
    (part,) = [part for part in mup(Positions(), roles={"positions": "input"}).parts if part.name == "positions"]
    assert (part.out, part.in_, part.width) == (8, 1, 8)
    blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
    with pytest.raises(ValueError, match=r"say which sides of these"):
        mup(nn.ModuleDict({"blocks": blocks, "head": nn.Linear(8, 3)}))
    with pytest.raises(ValueError, match=r"no output layer is to be seen.*roles=\{'blocks.2.weight': 'output'\}"):
        mup(nn.ModuleDict({"embed": nn.Embedding(5, 8), "blocks": blocks}))
    assert mup(nn.ModuleDict({"embed": nn.Embedding(5, 8), "blocks": blocks}), roles={"blocks.2.weight": "hidden"})
    with pytest.raises(ValueError, match=r"no input layer"):
        mup(nn.Sequential(nn.Linear(4, 1)))
    with pytest.raises(ValueError, match=r"has no matrix, so it has no width"):
        mup(nn.LayerNorm(4))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: mup(m, roles={"up.weight": "wide"}), "a role is one of input, hidden, output, tied, vector, got"),
        (lambda m: mup(m, roles={"upp.weight": "hidden"}), "matches no parameter"),
        (lambda m: mup(m, rules={"upp.weight": "muon"}), "match no parameter"),
        (lambda m: mup(m, base_width=0), "at least 1, got 0"),
        (lambda m: mup(m).groups("lion", lr=0.1), "one of adamw, muon, sgd, got 'lion'"),
        (lambda m: mup(m).groups("muon", lr=0.1, scale="sqrt_max"), "is not offered"),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(ValueError, match=said):
        call(Chain(16))


def test_explain_prints_what_it_returns(capsys):
    rows = mup(Chain(64)).explain("muon")
    said = capsys.readouterr().out
    assert all(row["name"] in said for row in rows)
    (up,) = [row for row in rows if row["name"] == "up.weight"]
    assert (up["role"], up["algorithm"], up["lr_factor"], up["decay_factor"]) == ("hidden", "muon", 2.0, 0.5)
    standard = mup(Chain(64)).standard()
    assert {row["lr_factor"] for row in standard.rows()} == {1.0}


def test_a_router_is_an_output():
    """Its other side is the number of experts, which does not grow: entries of 1/in, not of 1/sqrt(in)."""
    from spectrain import nn as own

    def router(width):
        moe = own.MoE(width, hidden=2 * width, experts=4, top_k=2)
        model = nn.Sequential(nn.Embedding(9, width), moe, nn.Linear(width, 9, bias=False))
        (row,) = [row for row in mup(model, base_width=16).rows("adamw") if "router" in row["name"]]
        return row["role"], row["std"] * width, row["lr_factor"] * width

    assert router(16) == router(64) == ("output", 4.0, 16.0)


class Gate(nn.Module):
    """A router by another name."""

    logical_matrices = {"weight": {}}  # noqa: RUF012

    def __init__(self, width, experts=4):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(experts, width))


def test_a_module_states_its_role_whatever_it_is_called():
    """A router was known by the name of its class: another name was hidden, another class of that name an output."""

    def role(kind, **options):
        model = nn.Sequential(nn.Embedding(9, 32), kind(32), nn.Linear(32, 9, bias=False))
        (row,) = [row for row in mup(model, **options).rows("adamw") if row["name"] == "1.weight"]
        return row["role"], row["reason"]

    told = type("Gate", (Gate,), {"width_roles": {"weight": "output"}})
    assert role(Gate) == ("hidden", "declared by Gate")
    assert role(type("Router", (Gate,), {}))[0] == "hidden"
    assert role(told) == ("output", "declared by Gate")
    assert role(told, roles={"1.*": "hidden"})[0] == "hidden"
    untyped = type("Table", (Gate,), {"logical_matrices": {}, "width_roles": {"weight": "input"}})
    model = nn.Sequential(untyped(32), nn.Linear(32, 32), nn.Linear(32, 9))
    (row,) = [row for row in mup(model).rows("adamw") if row["name"] == "0.weight"]
    assert row["role"] == "input"
    with pytest.raises(ValueError, match=r"got 'gate' for width_roles of 1\.weight"):
        role(type("Gate", (Gate,), {"width_roles": {"weight": "gate"}}))
    other = type("Other", (Gate,), {"width_roles": {"weight": "hidden"}})
    model = nn.Sequential(nn.Embedding(9, 32), told(32), other(32), nn.Linear(32, 9))
    model[2].weight = model[1].weight
    with pytest.raises(ValueError, match=r"share 1\.weight state other roles of it: output, hidden"):
        mup(model)


def updates_of_sgd(width, factors):
    """Spectral norms over sqrt(out / in) of three real steps; of vectors the root mean square of the entries."""
    torch.manual_seed(0)
    model = Chain(width, vocabulary=16)
    model.head.bias = nn.Parameter(torch.zeros(16))
    scaled = mup(model, base_width=64)
    scaled.initialise(generator=0)
    groups = scaled.groups("sgd", lr=0.5, weight_decay=0.0)
    for group in groups:
        group["lr"] *= factors(group) / group["lr_factor"]
    optimizer = torch.optim.SGD([{**g, "params": [p for _, p in g["params"]]} for g in groups])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    draw = torch.Generator().manual_seed(1)
    for _ in range(3):
        tokens = torch.randint(0, 16, (256,), generator=draw)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), (5 * tokens + 3) % 16).backward()
        optimizer.step()
    norms = {}
    for name, p in model.named_parameters():
        change = p.detach() - before[name]
        if p.ndim == 1:
            norms[name] = float(change.square().mean().sqrt())
            continue
        out, in_ = (p.shape[1], 1) if name.startswith("embedding") else p.shape
        norms[name] = float(torch.linalg.matrix_norm(change, ord=2)) / math.sqrt(out / in_)
    return norms


def powers_of_sgd(factors=lambda group: group["lr_factor"]):
    found = [updates_of_sgd(width, factors) for width in WIDTHS]
    return {name: exponent([norms[name] for norms in found]) for name in found[0]}


def test_sgd_moves_every_matrix_and_vector_alike_at_every_width():
    """Article 10795: eta ~ out / in; of vectors of features n, of the head's bias 1. Real gradients and steps."""
    powers = powers_of_sgd()
    assert max(map(abs, powers.values())) < 0.45, powers  # the tolerance of `spectrain check` for changes


WRONG_SGD = {
    "one rate for all": lambda g: 1.0,
    "vectors left out": lambda g: 1.0 if g["role"] == "vector" else g["lr_factor"],
    "the head left out": lambda g: 1.0 if g["role"] == "output" else g["lr_factor"],
    "upside down": lambda g: 1 / g["lr_factor"],
    "only vectors": lambda g: g["lr_factor"] if g["role"] == "vector" else 1.0,
}


@pytest.mark.parametrize("wrong", WRONG_SGD.values(), ids=WRONG_SGD)
def test_the_check_of_sgd_rejects_wrong_rates(wrong):
    powers = powers_of_sgd(wrong)
    assert max(map(abs, powers.values())) > 0.8, powers


def test_rates_and_decay_of_sgd_follow_the_table_of_article_10795():
    table = {"embedding.weight": 1, "up.weight": 0, "down.weight": 0, "head.weight": -1, "norm.weight": 1, "up.bias": 1}
    for name, power in table.items():
        assert exponent([factors(w, "sgd")[name] for w in WIDTHS]) == pytest.approx(power, abs=1e-12), name
        taken = [factors(w, "sgd")[name] * factors(w, "sgd", "decay_factor")[name] for w in WIDTHS]
        assert taken == pytest.approx([1.0] * len(WIDTHS))
    assert factors(256, "sgd")["norm.weight"] == factors(256, "sgd")["embedding.weight"] == 1.0
    tied = {row["name"]: row["lr_factor"] for row in mup(Chain(512, tied=True)).rows("sgd")}
    assert tied["embedding.weight"] == 2.0


def matrices(width):
    """Every role, a fused projection cut into heads, and a convolution; with (out, in) and the singular values."""
    model = nn.Sequential()
    model.add_module("first", nn.Conv2d(3, width, 5))
    model.add_module("fused", nn.Linear(width, 2 * width, bias=False))
    model.add_module("last", nn.Linear(width, 7))
    rules = {"fused.weight": Matrix(split=(width, width // 2, width // 2), heads=(4, 2, 2))}
    return model, mup(model, base_width=32, rules=rules)


def pieces(model, width):
    fused = model.fused.weight.detach().split([width, width // 2, width // 2])
    for W in (model.first.weight.detach().flatten(1), *fused, model.last.weight.detach()):
        yield torch.linalg.svdvals(W.double()) / math.sqrt(W.shape[0] / W.shape[1])


@pytest.mark.parametrize("method", ["spectral", "msign"])
def test_initial_weights_meet_the_spectral_condition_exactly(method):
    """Singular values by LAPACK in float64; normal weights of the same roles are off by up to a factor of two."""
    model, scaled = matrices(48)
    scaled.initialise(generator=3, method=method, norm=0.5)
    for S in pieces(model, 48):
        assert float(S.max()) == pytest.approx(0.5, rel=1e-4)
        if method == "msign":
            assert float(S.min()) == pytest.approx(0.5, rel=1e-3)
        else:
            assert float(S.min()) < 0.4
    scaled.initialise(generator=3)
    assert any(abs(float(S.max()) - 1) > 0.2 for S in pieces(model, 48))
    assert not model.last.bias.any()


def test_other_initialisations_leave_tables_and_zeros_alone_and_repeat():
    model = Chain(32)
    nn.init.zeros_(model.down.weight)
    mup(model).initialise(generator=0, method="msign", embedding_std=0.25)
    assert float(model.embedding.weight.detach().std()) == pytest.approx(0.25, rel=0.1)
    assert not model.down.weight.any()
    first = model.up.weight.detach().clone()
    mup(model).initialise(generator=0, method="msign", embedding_std=0.25)
    assert torch.equal(model.up.weight, first)
    for wrong in ({"method": "orthogonal"}, {"method": "msign", "norm": 0.0}):
        with pytest.raises(ValueError, match="method must be one of normal, spectral, msign and norm positive"):
            mup(model).initialise(generator=0, **wrong)
    with pytest.raises(ValueError, match="one of deviations"):
        mup(model).standard().initialise(generator=0, method="spectral")
