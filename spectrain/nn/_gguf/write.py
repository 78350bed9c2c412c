"""A model as one GGUF file, by the package ``gguf``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spectrain._extras import wanted_by
from spectrain._files.write import write_file
from spectrain.nn._gguf.settings import ARCHITECTURES, FREQUENCIES, frequency_factors, settings_of
from spectrain.nn._hugging_face.config import attentions
from spectrain.nn._hugging_face.models import described
from spectrain.nn._hugging_face.weights import pairs
from spectrain.nn._models.language_model import LanguageModel

if TYPE_CHECKING:
    import gguf

_NO_VOCABULARY = {"tokenizer.ggml.model": "no_vocab"}
_TYPES = {torch.float32: "ALL_F32", torch.float16: "MOSTLY_F16", torch.bfloat16: "MOSTLY_BF16"}


def to_gguf(
    model: LanguageModel,
    file: str | Path,
    *,
    context: int | None = None,
    family: str | None = None,
    vocabulary: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Path:
    """Write one file that llama.cpp loads, with the same logits: ``file``, whole or not at all.

    What :func:`to_hugging_face` writes as Llama, Mistral, Qwen 2, Qwen 3 or OLMo 2, in GGUF's names. llama.cpp turns
    pairs of neighbours ``(x_2i, x_2i+1)`` in a Llama, where transformers and we turn ``(x_i, x_i+d/2)``: rows of its
    queries and keys are written in that order. Llama 3's scaling of positions is the tensor ``rope_freqs``. Matrices
    keep their dtype (float32, float16, bfloat16), vectors are float32, as llama.cpp adds them.

    ``vocabulary`` are fields of the tokenizer by their GGUF names, as ``data.Tokenizer.gguf`` gives them; without, the
    file has no tokenizer, and llama.cpp takes and gives token numbers. ``context`` (default: the model's) is the
    longest text it is told of. A file that is there is replaced once the new one is whole.

    Needs the package ``gguf`` (``pip install 'spectrain[gguf]'``). Raises ``ValueError`` as :func:`to_hugging_face`
    does, and naming what llama.cpp does not compute: a latent, a window below ``context``, biases behind the heads
    outside of Llama, Llama 3's positions outside of Llama, YaRN with other numbers than the published; and for float64.

    Source: the specification, ``docs/gguf.md`` of ggml-org/ggml.
    """
    with wanted_by("GGUF"):
        import gguf
    config, tensors = described(model, context=context, family=family)
    rotary = attentions(model)[0].rotary
    settings = settings_of(config, rotary)
    dtype = model.head.weight.dtype
    if dtype not in _TYPES:
        raise ValueError(f"GGUF takes float32, float16 and bfloat16, and the model is {dtype}; write model.float().")
    architecture = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name or config["model_type"])
    writer.add_file_type(gguf.LlamaFileType[_TYPES[dtype]])
    for key, value in settings.items():
        _add(writer, f"{architecture}.{key}", value)
    for key, value in (vocabulary or _NO_VOCABULARY).items():
        _add(writer, key, value)
    for key, w in _theirs(tensors, config, architecture).items():
        _add_tensor(writer, key, w)
    if (factors := frequency_factors(rotary)) is not None:
        _add_tensor(writer, FREQUENCIES, factors)
    write_file(Path(file), lambda temporary: _write(writer, temporary))
    return Path(file)


def _theirs(tensors: Mapping[str, Tensor], config: Mapping[str, Any], architecture: str) -> dict[str, Tensor]:
    """The tensors under GGUF's names, rows of a Llama's queries and keys in its order."""
    import gguf

    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    found = {}
    for name, w in tensors.items():
        there = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if there is None:
            raise ValueError(f"GGUF has no name for {name} in {architecture}.")
        part = name.split(".")[-2]
        found[there] = interleaved(w, heads[part]) if architecture == "llama" and part in heads else w
    return found


def interleaved(w: Tensor, heads: int) -> Tensor:
    """Rows of a map to heads, or its biases, with what is turned together side by side."""
    return pairs(w.unflatten(0, (heads, -1)), 1).flatten(0, 1)


def _add(writer: "gguf.GGUFWriter", key: str, value: Any) -> None:
    add: dict[type, Callable[[str, Any], None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    add[type(value)](key, value)


def _add_tensor(writer: "gguf.GGUFWriter", key: str, w: Tensor) -> None:
    import gguf

    w = (w.float() if w.ndim == 1 else w).contiguous().cpu()
    if w.dtype == torch.bfloat16:  # NumPy has none: its bytes
        writer.add_tensor(key, w.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(key, w.numpy())


def _write(writer: "gguf.GGUFWriter", file: Path) -> None:
    try:
        writer.write_header_to_file(file)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
