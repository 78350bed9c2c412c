"""The check of muP: no fault in the correct model, and each planted mistake found and named."""

import json
import math

import pytest
import torch

from spectrain import nn, objectives, optim
from spectrain.train._studies.check import Member, check, check_config
from spectrain.train._studies.check_config import CheckConfig, TransferConfig
from spectrain.train._studies.lr_transfer import lr_transfer, summarise
from spectrain.train._studies.measure import size
from spectrain.train._studies.verdict import advice, judge, slope

WIDTHS = (64, 128, 256)
BASE = 128
TEXT = torch.randint(0, 32, (4096,), generator=torch.Generator().manual_seed(0)).repeat_interleave(2)


def batch(i):
    at = torch.arange(8) * 509 + 31 * i
    rows = torch.stack([TEXT[start : start + 33] for start in at])
    return rows[:, :-1], rows[:, 1:]


def experts(width):
    """A mixture of experts whose routing is not moved by anything but training."""
    return nn.MoE(width, experts=4, top_k=2, hidden=width, shared=1, activation="sigmoid", balance="none")


def member(
    width, seed, *, optimizer="adamw", scale="match_rms_adamw", tied=False, grow="heads", mistake=None, moe=False
):
    """A language model with muP, into which ``mistake`` may reach before the optimizer is made (groups) or after."""
    heads = 4 if grow == "head_dim" else width // 16
    model = nn.LanguageModel(
        vocabulary=32,
        width=width,
        depth=1,
        heads=heads,
        hidden=2 * width,
        tied=tied,
        feed_forward=(lambda _: experts(width)) if moe else None,
        generator=seed,
    )
    parts = optim.mup(model, base_width=BASE, base_head_dim=16 if grow == "head_dim" else None)
    parts.initialise(generator=seed, keep_zeros=False)
    lr = {"adamw": 2e-3, "match_rms_adamw": 2e-3}.get(scale if optimizer == "muon" else optimizer, 8e-3)
    groups = parts.groups(optimizer, lr=lr, adamw_lr=2e-3, weight_decay=0.1, scale=scale)
    groups = [dict(group, params=[one]) for group in groups for one in group["params"]]
    for group in groups:
        if "reasons" in group:
            group["reasons"] = group["reasons"][:1]
    by_name = {group["params"][0][0]: group for group in groups}
    if mistake is not None:
        mistake(model, by_name, width / BASE)
    made = torch.optim.AdamW(groups, betas=(0.9, 0.95)) if optimizer == "adamw" else optim.Muon(groups)

    def backward(i):
        model.zero_grad()
        inputs, targets = batch(i)
        loss = objectives.negative_log_likelihood(model(inputs), targets) / targets.numel()
        loss.backward()

    return Member(model, made, backward, parts)


def checked(*, seeds=(0, 1), steps=8, **settings):
    return check(lambda width, seed: member(width, seed, **settings), widths=WIDTHS, seeds=seeds, steps=steps)


CORRECT = [
    {"optimizer": "adamw"},
    *({"optimizer": "muon", "scale": scale} for scale in ("match_rms_adamw", "spectral")),
    {"optimizer": "adamw", "tied": True},
    {"optimizer": "muon", "scale": "spectral", "grow": "head_dim"},
    *(pytest.param({"optimizer": "muon", "scale": scale}, marks=pytest.mark.full) for scale in ("original", "none")),
]


@pytest.mark.parametrize("settings", CORRECT, ids=lambda s: "-".join(map(str, s.values())))
def test_the_correct_model_passes(settings):
    found = checked(**settings)
    assert found["suspect"] is None, found["suspect"]
    assert found["ok"]


def as_a_hidden_one(model, groups, n):
    """The rate that a router had which was taken for a map from the width to the width."""
    router = groups["blocks.0.feed_forward.router.weight"]
    assert router["role"] == "output"
    router["lr"] *= n**0.5


def test_the_router_of_experts_is_seen_by_its_update():
    """Taken for a hidden matrix its updates grow with the width."""

    def found(mistake):
        options = {"optimizer": "muon", "moe": True, "mistake": mistake}
        return check(lambda w, s: member(w, s, **options), widths=(64, 128), what="spectrum", steps=1)

    assert found(None)["suspect"] is None
    wrong = found(as_a_hidden_one)["suspect"]
    assert (wrong["kind"], wrong["name"]) == ("update", "blocks.0.feed_forward.router.weight")


@pytest.mark.full
@pytest.mark.parametrize("settings", CORRECT[:5], ids=lambda s: "-".join(map(str, s.values())))
def test_mixtures_of_experts_pass(settings):
    found = checked(**settings, moe=True)
    assert found["suspect"] is None, found["suspect"]


def hidden(groups):
    return [group for group in groups.values() if group["role"] == "hidden"]


def rate(power, *, role="hidden", key="lr"):
    def mistake(model, groups, n):
        for group in groups.values():
            if group["role"] == role:
                group[key] *= n**power

    return mistake


def deviation(name, power):
    def mistake(model, groups, n):
        with torch.no_grad():
            model.get_parameter(name).mul_(n**power)

    return mistake


def one_layer(model, groups, n):
    groups["blocks.0.feed_forward.down.weight"]["lr"] *= n


def plain_attention(model, groups, n):
    for block in model.blocks:
        block.attention.scale = block.attention.shape.head_dim**-0.5


def no_multiplier(model, groups, n):
    model.head._forward_pre_hooks.clear()
    model.head._forward_pre_hooks_with_kwargs.clear()


def loud_branch(model, groups, n):
    class Loud(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * n**0.5

    model.blocks[0].attention.output.__class__ = Loud


MISTAKES = {  # what is planted: (settings, mistake, parameter or module to be named, words of the cure)
    "AdamW's rate does not fall with the width": ({}, rate(1), "blocks.0", "(64 / width)"),
    "it falls as the root of the width": ({}, rate(0.5), "blocks.0", "(64 / width)"),
    "it falls as the square": ({}, rate(-1), "blocks.0", "(width / 64)"),
    "one layer was forgotten": ({}, one_layer, "feed_forward.down.weight", "learning rate x (64 / width)"),
    "the head's rate does not fall": ({}, rate(1, role="output"), "head.weight", "learning rate x (64 / width)"),
    "the embedding's rate falls": ({}, rate(-1, role="input"), "embedding.weight", "learning rate x (width / 64)"),
    "the gains' rate falls": ({}, rate(-1, role="vector"), "norm.weight", "learning rate x (width / 64)"),
    "decay was left as it was": ({}, rate(-1, key="weight_decay"), "query.weight", "weight decay x (width / 64)"),
    "deviation does not fall": ({}, deviation("blocks.0.attention.query.weight", 0.5), "query.weight", "initial dev"),
    "the head starts as a hidden matrix": ({}, deviation("head.weight", 0.5), "head.weight", "deviation x sqrt(64"),
    "small embeddings": ({}, deviation("embedding.weight", -0.5), "embedding.weight", "deviation x sqrt(width"),
    "a loud branch": ({}, loud_branch, "blocks.0.attention.output", "sqrt(64 / width)"),
    "attention over the root of large heads": ({"grow": "head_dim"}, plain_attention, "attention", "scale of the log"),
    "a tied head without multiplier": ({"tied": True}, no_multiplier, "head", "(64 / width)"),
    "Muon's default scale without multiplier": (
        {"optimizer": "muon"}, rate(0.5), "query.weight", "learning rate x sqrt(64 / width)",
    ),
    "Muon's decay left as it was": (
        {"optimizer": "muon"}, rate(-0.5, key="weight_decay"), "query.weight", "weight decay x sqrt(width / 64)",
    ),
    "AdamW's rule for Muon": (
        {"optimizer": "muon", "scale": "spectral"}, rate(-1), "query.weight", "learning rate x (width / 64)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MISTAKES))
def test_each_planted_mistake_is_found_and_named(name):
    """gpt-neox #956: a shipped muP was wrong until somebody looked at a plot; mup #73: decay, which no plot shows."""
    settings, mistake, blamed, cure = MISTAKES[name]
    found = checked(mistake=mistake, seeds=(0,), **settings)
    assert not found["ok"]
    assert blamed in found["suspect"]["name"]
    assert cure in found["suspect"]["multiplier"]


def test_coordinates_alone_see_decay_and_rates():
    """mup #73: the coordinate check passed although weight decay was wrong."""
    for mistake in (rate(-1, key="weight_decay"), rate(1)):
        found = check(
            lambda width, seed, m=mistake: member(width, seed, mistake=m), widths=WIDTHS, what="coordinates", steps=8
        )
        assert not found["ok"]
        assert {row["kind"] for row in found["judged"]} == {"decay", "start", "activation", "change", "logits"}


def test_sizes_are_spectral_norms_over_the_root_of_the_sides():
    model = torch.nn.Sequential(
        torch.nn.Embedding(9, 48), torch.nn.Linear(48, 96, bias=False), torch.nn.Linear(96, 9, bias=False)
    )
    table, middle, head = optim.mup(model).parts
    wide = torch.zeros(96, 48)
    wide[0, 0] = 3.0
    assert size(wide, middle) == pytest.approx(3 / math.sqrt(2), rel=1e-6)
    assert size(torch.full((9, 48), 2.0), table) == pytest.approx(2)
    ones = torch.ones(9, 96)  # of rank one: here both norms are equal, but for the root of the fixed side
    assert size(ones, head) == pytest.approx(float(torch.linalg.matrix_norm(ones, 2)) / 3 / math.sqrt(9 / 96), rel=1e-6)


def rows(kind, values, role="hidden"):
    return [{"kind": kind, "name": "w", "role": role, "width": w, "seed": 0, "value": v} for w, v in values.items()]


@pytest.mark.parametrize(
    ("kind", "values", "role", "ok"),
    [
        ("weight", {64: 1.0, 256: 1.1}, "hidden", True),
        ("weight", {64: 1.0, 256: 2.0}, "hidden", False),
        ("start", {64: 1.0, 256: 0.5}, "output", True),  # logits may start small
        ("start", {64: 1.0, 256: 0.5}, "hidden", False),
        ("update", {64: 1.0, 256: 0.5}, "output", False),  # but may not stand still
        ("decay", {64: 0.0, 256: 0.0}, "hidden", True),
        ("decay", {64: 1e-3, 256: 0.0}, "hidden", False),
        ("activation", {64: 1.0, 256: math.inf}, "hidden", False),
        ("change", {64: 1.0, 256: math.nan}, "hidden", False),
    ],
)
def test_judgement(kind, values, role, ok):
    (row,) = judge(rows(kind, values, role), [kind])
    assert row["ok"] is ok


def test_the_slope_is_the_exponent_and_the_advice_its_inverse():
    assert slope({w: 7 * w**-1.5 for w in (3, 5, 90)}) == pytest.approx(-1.5)
    assert advice("update", 1.1, 64) == "learning rate x (64 / width)"
    assert advice("weight", 0.4, 32) == "initial deviation x sqrt(32 / width)"
    assert advice("update", -1.6, 64) == "learning rate x (width / 64)^1.5"


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("".join(f"{i} times {i + 1} is {i * (i + 1)}.\n" for i in range(700)), encoding="utf-8")
    return (str(file),)


def test_the_model_of_spectrain_train_passes(tmp_path, text):
    config = CheckConfig(data=text, widths=(32, 64), head_dim=16, depth=1, steps=2, seeds=(0,), optimizer="muon")
    found = check_config(config, "spectrum", folder=tmp_path / "out")
    assert found["ok"]
    written = json.loads((tmp_path / "out" / "check.json").read_text())
    assert written["kind"] == "spectrum"
    assert written["judged"][0].keys() >= {"name", "kind", "exponent", "spread", "ok", "values"}


def test_a_sweep_goes_on_where_it_stopped_and_refuses_another(tmp_path, text):
    config = TransferConfig(
        data=text, widths=(32, 64), head_dim=16, depth=1, steps=2, rates=(1e-3, 1e-2), block=16, batch_size=2
    )
    first = lr_transfer(config, folder=tmp_path)
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == len(first["rows"]) >= 4
    stamps = [run.stat().st_mtime_ns for run in runs]
    runs[0].unlink()
    assert lr_transfer(config, folder=tmp_path)["rows"] == first["rows"]
    assert [run.stat().st_mtime_ns for run in runs[1:]] == stamps[1:]
    with pytest.raises(ValueError, match=r"another optimizer\. Give another --out-dir"):
        lr_transfer(TransferConfig(data=text, widths=(32, 64), head_dim=16, depth=1, steps=2, rates=(1e-3, 1e-2),
                                   block=16, batch_size=2, optimizer="muon"), folder=tmp_path)  # fmt: skip


def test_a_best_rate_that_moves_by_four_fails():
    def found(best):
        return summarise(
            [
                {"width": w, "lr": lr, "seed": 0, "loss": 2 + math.log(lr / at) ** 2}
                for w, at in best.items()
                for lr in (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
            ]
        )

    good, bad = found({64: 4e-3, 512: 2e-3}), found({64: 8e-3, 512: 2e-3})
    assert (good["ok"], bad["ok"]) == (True, False)
    assert bad["moved"] == pytest.approx(4)
    assert found({64: 3e-3, 512: 3e-3})["vertex"][64] == pytest.approx(3e-3)
    between = found({64: 4.8e-3, 512: 1.8e-3})  # one step on the grid, 2.7 in truth
    assert (between["moved"], between["drift"], between["ok"]) == (
        pytest.approx(2), pytest.approx(4.8 / 1.8), False
    )  # fmt: skip
    diverged = [{"width": w, "lr": 1e-3, "seed": 0, "loss": None} for w in (64, 128)]
    assert not summarise(diverged)["ok"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"widths": (64,)}, "at least two different"),
        ({"widths": (64, 100)}, "multiples of 2 x --head-dim = 64"),
        ({"steps": 0}, "at least one"),
        ({"lr": -1.0}, "--lr must be positive"),
    ],
)
def test_bad_configurations(settings, said):
    with pytest.raises(ValueError, match=said):
        CheckConfig(**settings)
