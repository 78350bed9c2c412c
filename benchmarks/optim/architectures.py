"""Where the parameters of known architectures go: models of transformers, timm and diffusers, from configurations."""

import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import _record
from benchmarks._program import MissingError, main
from benchmarks._record import Found
from spectrain.optim import route
from spectrain.optim._routing.heads import name_pattern

FEW = 4  # pieces of one weight; more are heads

DECODERS = (
    "DeepseekV3", "Falcon", "FalconMamba", "GPTNeoX", "Gemma3", "GptOss", "Jamba", "Llama", "Llama4", "Mamba",
    "Mamba2", "Mistral", "Mixtral", "OPT", "Olmo2", "Olmoe", "Phi3", "Qwen2", "Qwen3", "Qwen3Moe",
)  # fmt: skip
PICTURES = (
    "beit_base_patch16_224", "cait_xxs24_224", "coatnet_nano_rw_224", "convnext_atto",
    "deit_tiny_distilled_patch16_224", "efficientnet_b0", "eva02_tiny_patch14_224", "gcvit_xxtiny", "hiera_tiny_224",
    "levit_128s", "maxvit_tiny_rw_224", "mobilenetv3_small_050", "mvitv2_tiny", "pvt_v2_b0", "resnet18",
    "samvit_base_patch16", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "tiny_vit_5m_224",
    "vit_tiny_patch16_224", "xcit_nano_12_p16_224",
)  # fmt: skip

# Settings are those of the configuration where they are not the package's own: fewer layers, as the rest is alike.
ARCHITECTURES: dict[str, dict[str, dict[str, Any]]] = {
    "transformers": {
        **{f"{name}ForCausalLM": {"num_hidden_layers": 2} for name in DECODERS},
        "DeepseekV3ForCausalLM": {"num_hidden_layers": 5},
        "BloomForCausalLM": {"n_layer": 2},
        "CodeGenForCausalLM": {"n_layer": 2},
        "GPT2LMHeadModel": {"n_layer": 2},
        "GPTBigCodeForCausalLM": {"n_layer": 2},
        "MptForCausalLM": {"n_layers": 2},
        "RecurrentGemmaForCausalLM": {"num_hidden_layers": 3},
        "XLNetLMHeadModel": {"n_layer": 2},
        "BertForPreTraining": {"num_hidden_layers": 2},
        "BertModel": {"num_hidden_layers": 2},
        "DebertaModel": {"num_hidden_layers": 2},
        "DistilBertForSequenceClassification": {"n_layers": 2},
        "ModernBertForSequenceClassification": {},
        "PerceiverForMaskedLM": {},
        "RobertaForSequenceClassification": {"num_hidden_layers": 2},
        "BartForConditionalGeneration": {"encoder_layers": 2, "decoder_layers": 2},
        "T5ForConditionalGeneration": {"num_layers": 2, "num_decoder_layers": 2},
        "WhisperForConditionalGeneration": {"encoder_layers": 2, "decoder_layers": 2},
        "Wav2Vec2ForCTC": {"num_hidden_layers": 2},
        "CLIPModel": {},
        "SiglipModel": {},
        "Dinov2Model": {"num_hidden_layers": 2},
        "SamModel": {},
        "SegformerForSemanticSegmentation": {},
        "SwinForImageClassification": {},
        "ViTForImageClassification": {"num_hidden_layers": 2},
        "ViTMAEForPreTraining": {"num_hidden_layers": 2},
    },
    "timm": {name: {} for name in PICTURES},
    "diffusers": {
        "AutoencoderKL": {},
        "AutoencoderKLWan": {},
        "AutoencoderTiny": {},
        "ControlNetModel": {},
        "DiTTransformer2DModel": {"num_layers": 2},
        "FluxTransformer2DModel": {"num_layers": 1, "num_single_layers": 1},
        "PixArtTransformer2DModel": {"num_layers": 2},
        "SD3Transformer2DModel": {"num_layers": 2},
        "UNet2DConditionModel": {},
        "UNet2DModel": {},
        "VQModel": {},
        "WanTransformer3DModel": {"num_layers": 2},
    },
}


def make(package: str, name: str) -> nn.Module:
    """The model without memory; ImportError where its package is not here."""
    settings = ARCHITECTURES[package][name]
    library = importlib.import_module(package)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if package == "timm":
            return library.create_model(name, **settings)
        kind = getattr(library, name)
        return kind(kind.config_class(**settings)) if package == "transformers" else kind(**settings)


def describe(model: nn.Module) -> dict[str, Any]:
    """What ``route`` does with a model, counted: tensors and matrices of Muon, what is known of modules, heads."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        routes = route(model)
    rows = routes.rows
    params = {name: p for group in routes for name, p in group["params"]}
    moved = [
        (group["matrix"], reason) for group in routes if group["algorithm"] == "muon" for reason in group["reasons"]
    ]
    muon = sum(params[row["name"]].numel() for row in rows if row["algorithm"] == "muon")
    kinds = {
        row["reason"].partition(" of ")[0] for row in rows if row["algorithm"] == "adamw" and " of " in row["reason"]
    }
    heads = {name_pattern(row["name"]) for row in rows if row["reason"].startswith("output head")}
    tied = {"tied" for row in rows if row["reason"].startswith("embedding, tied")}
    return {
        "to Muon": len(moved),
        "share": muon / sum(p.numel() for p in params.values()),
        "divided": ", ".join(sorted(set(_divided(moved)))) or "-",
        "tables": ", ".join(sorted(kinds & {"positions", "tokens", "biases", "rates"})) or "-",
        "output heads": ", ".join(sorted(heads) or sorted(tied)) or "none",
        "a guess": "yes" if any("Nothing says which" in str(each.message) for each in said) else "",
    }


def _divided(moved: list[tuple[dict[str, Any], str]]) -> Iterator[str]:
    """How weights of several matrices are cut, in words."""
    for matrix, reason in moved:
        pieces = len(matrix.get("split", ()))
        if matrix.get("batch"):
            yield "stacks, in x out" if matrix.get("transposed") else "stacks"
        if (" of " in reason and matrix.get("groups", 1) > 1) or pieces > FEW:
            yield "by head"
        elif pieces:
            yield f"in {pieces}"


def measure(*, packages: tuple[str, ...] = ("transformers", "timm", "diffusers"), only: tuple[str, ...] = ()) -> Found:
    """Route every architecture of the packages, or those named."""
    rows = []
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingError(f"{package} is not installed") from error
        for name in ARCHITECTURES[package]:
            if not only or name in only:
                rows.append({"package": package, "model": name, **describe(make(package, name))})
    body = table(rows)
    versions = {package: importlib.import_module(package).__version__ for package in packages}
    figures = {"count": len(rows), "guesses": sum(bool(row["a guess"]) for row in rows)}
    whole = {"routing.md": lambda page: put(body, versions, page)} if not only else {}
    return Found(rows=rows, body=body, figures=figures, data={"versions": versions}, pages=whole)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a page has them: shares in percent."""
    return _record.table(list(rows[0]), ([cell(value) for value in row.values()] for row in rows))


def cell(value: object) -> str:
    if isinstance(value, float):
        return f"{100 * value:.0f} %"
    return str(value).replace("*", r"\*")


def put(body: str, versions: dict[str, str], page: Path) -> None:
    """Write the table between the marks of the page."""
    head, rest = page.read_text(encoding="utf-8").split("<!-- measured -->\n", 1)
    of = ", ".join(f"{package} {version}" for package, version in versions.items())
    text = f"{head}<!-- measured -->\nOf {of}:\n\n{body}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(
        "architectures",
        "Of {count} architectures none is refused, and of {guesses} the output head is a guess that a warning names",
        measure,
        smoke={"packages": ("transformers",), "only": ("GPT2LMHeadModel",)},
    )
