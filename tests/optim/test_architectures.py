"""Models of transformers, timm and diffusers: the page's table, made again; and that the layouts are what they compute.

What a fused projection is cut into is compared with what reaches attention as query, key and value, and what a stack of
experts is with the formula of an expert, both in the packages' own forward passes.
"""

import importlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.optim.architectures import ARCHITECTURES, cell, describe, make
from spectrain.optim import Matrix, route
from spectrain.optim._routing.known import KNOWN

PAGE = (Path(__file__).parents[2] / "docs" / "routing.md").read_text(encoding="utf-8")
CASES = [(package, name) for package, models in ARCHITECTURES.items() for name in models]
# Of transformers, by the beginning of the name, with --full only: what they hold the others hold too.
ALIKE = (
    "DeepseekV3", "Jamba", "Mamba2", "Mistral", "OPT", "Olmo2", "Olmoe", "Qwen", "Mpt", "CodeGen", "Recurrent", "XLNet",
    "BertForP", "Deberta", "DistilBert", "Perceiver", "Bart", "T5", "Whisper", "Sam", "Segformer", "Siglip", "Swin",
    "ViTMAE",
)  # fmt: skip
ROWS = {
    tuple(line.strip("| ").split(" | ")[:2]): line
    for line in PAGE.partition("<!-- measured -->")[2].splitlines()
    if line.startswith("| ")
}


def package(name):
    """The package, or a skip where it is not installed or not of the version that the page tells of."""
    found = pytest.importorskip(name, reason=f"{name} is an extra: the integrations")
    return found, f"{name} {found.__version__}" in PAGE


def test_the_page_has_every_architecture_and_stops_nobody():
    assert set(CASES) <= set(ROWS)
    assert len(CASES) >= 60


def case(library, name):
    marks = [pytest.mark.full] if library == "transformers" and name.startswith(ALIKE) else []
    return pytest.param(library, name, marks=marks, id=name)


@pytest.mark.parametrize(("library", "name"), [case(*each) for each in CASES])
def test_a_row_of_the_page(library, name):
    _, same = package(library)
    found = describe(make(library, name))
    line = "| " + " | ".join([library, name, *map(cell, found.values())]) + " |"
    assert found["to Muon"] > 0
    if same:
        assert line == ROWS[library, name]


def rows_of(model, **settings):
    return {row["name"]: row for row in route(model, **settings).rows}


def layouts(model):
    return {name: Matrix.from_dict(group["matrix"]) for group in route(model) for name, _ in group["params"]}


SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 48, "vocab_size": 60,
         "pad_token_id": 0}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
FUSED = {
    "GPT-2": ("GPT2Model", {"n_embd": 32, "n_head": 4, "n_layer": 1, "vocab_size": 60}, "h.0.attn.c_attn.weight", 3),
    "GPT-NeoX": ("GPTNeoXModel", SMALL, "layers.0.attention.query_key_value.weight", 12),
    "Falcon, a key for all": ("FalconModel", SMALL, "h.0.self_attention.query_key_value.weight", 6),
    "Falcon, grouped": ("FalconModel", {**SMALL, "num_kv_heads": 2, "new_decoder_architecture": True},
                        "h.0.self_attention.query_key_value.weight", 8),
    "Phi-3, grouped": ("Phi3Model", GROUPED, "layers.0.self_attn.qkv_proj.weight", 3),
    "ModernBERT": ("ModernBertModel", SMALL, "layers.0.attn.Wqkv.weight", 3),
}  # fmt: skip


def attended(monkeypatch, run):
    """Which of query, key and value are not zero where attention is computed."""
    seen = []

    def watch(query, key, value, *args, **settings):
        seen.append(tuple(bool(x.abs().max() > 0) for x in (query, key, value)))
        return torch.zeros_like(query[..., : value.shape[-1]])

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watch)
    run()
    return seen[0]


def check_pieces(monkeypatch, model, name, count, run):
    """Each logical matrix alone must reach attention as one of query, key and value, and all three must come."""
    params = dict(model.named_parameters())
    matrix = layouts(model)[name]
    assert len(matrix.views(params[name].data)) == count
    for bias in (p for other, p in params.items() if other == name.replace("weight", "bias")):
        bias.data.zero_()
    kinds = set()
    for i in range(count):
        params[name].data.zero_()
        matrix.views(params[name].data)[i].normal_(generator=torch.Generator().manual_seed(i))
        found = attended(monkeypatch, run)
        assert sum(found) == 1, (i, found)
        kinds.add(found)
    assert len(kinds) == 3


@pytest.mark.parametrize(("kind", "settings", "name", "count"), FUSED.values(), ids=FUSED)
def test_a_fused_projection_is_cut_into_query_key_and_value(monkeypatch, kind, settings, name, count):
    transformers, _ = package("transformers")
    cls = getattr(transformers, kind)
    torch.manual_seed(0)
    model = cls(cls.config_class(**settings, attn_implementation="sdpa")).eval()
    check_pieces(monkeypatch, model, name, count, lambda: model(input_ids=torch.arange(1, 9)[None]))


@pytest.mark.parametrize(("name", "count"), [
    ("vit_tiny_patch16_224", 3), ("swin_tiny_patch4_window7_224", 3), ("coatnet_nano_rw_224", 12),
    ("eva02_tiny_patch14_224", 3),
])  # fmt: skip
def test_timms_too(monkeypatch, name, count):
    timm, _ = package("timm")
    model = timm.create_model(name).eval()
    for module in model.modules():
        module.fused_attn = True  # else some write the formula out, and there is nothing to watch
    size = model.default_cfg["input_size"]
    fused = next(n for n in dict(model.named_parameters()) if n.endswith("qkv.weight"))
    check_pieces(monkeypatch, model, fused, count, lambda: model(torch.randn(1, *size)))


WRONG = {
    "halves": Matrix(groups=2), "other thirds": Matrix(split=(16, 16, 32)), "turns": Matrix(groups=8), "one": Matrix(),
}  # fmt: skip


@pytest.mark.parametrize("matrix", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_cuts(monkeypatch, matrix):
    transformers, _ = package("transformers")
    model = transformers.Phi3Model(transformers.Phi3Config(**GROUPED, attn_implementation="sdpa")).eval()
    name = "layers.0.self_attn.qkv_proj.weight"
    monkeypatch.setitem(globals(), "layouts", lambda _: {name: matrix})
    with pytest.raises(AssertionError):
        check_pieces(monkeypatch, model, name, 3, lambda: model(input_ids=torch.arange(1, 9)[None]))


EXPERTS = {
    "Mixtral": ("mixtral", "MixtralConfig", "MixtralExperts", {"num_local_experts": 3}),
    "Qwen3-MoE": ("qwen3_moe", "Qwen3MoeConfig", "Qwen3MoeExperts", {"num_experts": 3, "moe_intermediate_size": 48}),
    "DeepSeek-V3": ("deepseek_v3", "DeepseekV3Config", "DeepseekV3Experts",
                    {"n_routed_experts": 3, "moe_intermediate_size": 48}),
    "Llama 4": ("llama4", "Llama4TextConfig", "Llama4TextExperts", {"num_local_experts": 3}),
    "Aria, in x out": ("aria", "AriaTextConfig", "AriaExperts", {"moe_num_experts": 3}),
}  # fmt: skip


@pytest.mark.parametrize(("place", "config", "kind", "settings"), EXPERTS.values(), ids=EXPERTS)
def test_experts_are_the_matrices_that_they_multiply_by(place, config, kind, settings):
    package("transformers")
    module = importlib.import_module(f"transformers.models.{place}.modeling_{place}")
    settings = {"hidden_size": 32, "intermediate_size": 48, **settings}
    experts = getattr(module, kind)(getattr(module, config)(**settings))
    for p in experts.parameters():
        nn.init.normal_(p, generator=torch.Generator().manual_seed(p.numel()))
    found = layouts(experts)
    gate_up = found["gate_up_proj"].views(experts.gate_up_proj.data)
    down = found["down_proj"].views(experts.down_proj.data)
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([
        down[i] @ (nn.functional.silu(gate_up[2 * i] @ x[i]) * (gate_up[2 * i + 1] @ x[i])) for i in range(3)
    ])  # fmt: skip
    chosen = () if kind == "Llama4TextExperts" else (torch.arange(3)[:, None], torch.ones(3, 1))
    with torch.no_grad():
        torch.testing.assert_close(experts(x, *chosen), expected, rtol=1e-4, atol=1e-3)


def test_gpt_oss_has_gate_and_up_in_turns():
    package("transformers")
    gpt = importlib.import_module("transformers.models.gpt_oss.modeling_gpt_oss")
    experts = gpt.GptOssExperts(gpt.GptOssConfig(hidden_size=32, intermediate_size=48, num_local_experts=3))
    rows = rows_of(experts)
    assert (rows["gate_up_proj"]["matrix"], rows["down_proj"]["matrix"]) == ("3 * 96x32", "3 * 32x48")
    assert rows["gate_up_proj_bias"]["algorithm"] == "adamw"
    assert rows["gate_up_proj_bias"]["weight_decay"] == 0.0


def test_a_module_that_contradicts_its_line_is_refused():
    transformers, _ = package("transformers")
    model = transformers.Phi3Model(transformers.Phi3Config(**GROUPED))
    model.layers[0].self_attn.num_key_value_heads = 3
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.qkv_proj\.weight  \(64, 32\)  of Linear"):
        route(model)


def test_encoders_have_no_head_and_classifiers_have_theirs():
    transformers, _ = package("transformers")
    small = {**SMALL, "num_labels": 3}
    bare = transformers.BertModel(transformers.BertConfig(**small))
    assert rows_of(bare)["pooler.dense.weight"]["algorithm"] == "muon"
    with_head = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**small))
    found = {name for name, row in rows_of(with_head).items() if row["reason"].startswith("output head")}
    assert found == {"classifier.out_proj.weight"}
    clip = make("transformers", "CLIPModel")
    assert {rows_of(clip)[f"{side}_projection.weight"]["algorithm"] for side in ("text", "visual")} == {"muon"}


def test_a_class_of_the_same_name_elsewhere_is_not_known():
    class MixtralExperts(nn.Module):
        is_transposed, has_gate, is_concatenated = False, True, True

        def __init__(self):
            super().__init__()
            self.gate_up_proj = nn.Parameter(torch.zeros(3, 96, 32))

    with pytest.raises(ValueError, match=r"gate_up_proj  \(3, 96, 32\)  of MixtralExperts"):
        route(MixtralExperts())


def test_every_line_has_its_source_and_stands_once():
    assert all(line.source and re.fullmatch(r"[\w.*?]+", line.parameter) for line in KNOWN)
    keys = [line[:3] for line in KNOWN]
    assert sorted({key for key in keys if keys.count(key) > 1}) == []
