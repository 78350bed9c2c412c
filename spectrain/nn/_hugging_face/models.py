"""Models to and from Hugging Face's files, where the architecture is the same: Llama, Qwen 3, DeepSeek-V3."""

import functools
import re
import warnings
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from spectrain._files.read import read_json
from spectrain._files.write import write_file, write_json
from spectrain.nn._hugging_face import experts
from spectrain.nn._hugging_face.config import attentions, config_of, model_of, read_config
from spectrain.nn._hugging_face.weights import to_ours, to_theirs
from spectrain.nn._models.language_model import LanguageModel


def to_hugging_face(
    model: LanguageModel, folder: str | Path, *, context: int | None = None, end_of_text: int | None = None
) -> Path:
    """Write ``config.json`` and ``model.safetensors`` that transformers loads, with the same logits.

    Grouped-query attention goes out as Llama, with ``qk_norm`` as Qwen 3 (whose gains are then one), a latent as
    DeepSeek-V3, with :class:`MoE` where there is one and their routers are the same. Normalised embeddings are
    written normalised, as a table of their own, so a tied head is no longer tied. ``context`` (default: the model's)
    is the longest sequence they are told of.

    ``norm_eps=None`` is written as the number that torch adds, the rounding of the dtype that it computes in: float32
    for bfloat16 and float16.

    Raises ``ValueError`` naming what has no counterpart there: shared keys and values, windows, sinks, log n, partial
    RoPE without a latent, another feed-forward block, experts without a latent, without a shared one, by another
    router, parameters of several dtypes, blocks that differ, and norms that add different numbers: they have one for
    all, but for latents, where it is 1e-6.
    """
    kind, config = config_of(model)
    context = context or model.context
    config |= {"max_position_embeddings": context} if context else {}
    config |= {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "dtype": str(model.head.weight.dtype)[6:]}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    weights = to_theirs({name: p.detach() for name, p in model.named_parameters()}, attentions(model), kind)
    weights |= experts.to_theirs(model)
    if model.embedding_norm:
        weights["model.embed_tokens.weight"] = F.rms_norm(
            model.embedding.weight.detach(), (model.embedding.embedding_dim,)
        )
    weights["lm_head.weight"] = model.head.weight.detach()
    if config["tie_word_embeddings"]:
        del weights["lm_head.weight"]
    tensors = {name: w.contiguous().clone() for name, w in weights.items()}
    write_file(
        folder / "model.safetensors",
        lambda temporary: safetensors.torch.save_file(tensors, str(temporary), metadata={"format": "pt"}),
    )
    return folder


def from_hugging_face(folder: str | Path) -> LanguageModel:
    """The model in a folder that transformers wrote: Llama, Qwen 3 with gains of one, DeepSeek-V3.

    Experts are balanced by the sign rule from the bias that comes with them. Where the configuration ties the head to
    the embedding, the embedding is taken, and a ``UserWarning`` tells of an ``lm_head`` in the file that is another
    table (transformers before 5 ties them, 5 uses both). The dtype is the widest in the file, routers keep their own.
    Dropout of attention, which plays no part in ``eval()``, is not carried over.

    Raises ``FileNotFoundError`` where there is no ``config.json``, ``ValueError`` naming the setting that has no
    counterpart here, the number that is missing or cannot be, or the tensor that does not fit.
    """
    folder = Path(folder)
    config = read_config(folder / "config.json")
    model = model_of(config)
    weights = _read(folder)
    if config.get("tie_word_embeddings"):
        weights = _tie(weights, folder)
    routed, weights = experts.to_ours(weights, model)
    ours = to_ours(weights, attentions(model), config["model_type"], interleaved=config.get("rope_interleave", True))
    _cast(model, weights, routed)
    try:
        model.load_state_dict(ours | routed)
    except RuntimeError as error:
        raise ValueError(f"{folder} does not fit its config.json: {str(error).splitlines()[-1].strip()}") from None
    return model.eval()


def _tie(weights: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """One table under both names, the embedding's where both are there: the configuration says that they are one."""
    head, table = weights.get("lm_head.weight"), weights.get("model.embed_tokens.weight")
    table = head if table is None else table
    if table is None:
        return weights
    if head is not None and not torch.equal(head, table):
        warnings.warn(
            f"{folder}: config.json ties the head to the embedding, but lm_head.weight is there and is another table; "
            "it is left out. If the head is its own, write tie_word_embeddings: false.",
            stacklevel=3,
        )
    return weights | {"model.embed_tokens.weight": table, "lm_head.weight": table}


def _cast(model: LanguageModel, weights: dict[str, Tensor], routed: dict[str, Tensor]) -> None:
    """Take the widest dtype of the weights; routers keep their own, which is float32 in transformers' files."""
    body = [*weights.values(), *(w for name, w in routed.items() if ".experts." in name or ".shared." in name)]
    dtypes = [w.dtype for w in body if w.is_floating_point()] or [torch.float32]
    model.to(functools.reduce(torch.promote_types, dtypes))
    for i, moe in experts.layers(model).items():
        moe.router.to(routed[f"blocks.{i}.feed_forward.router.weight"].dtype)


def _read(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file in _files_of(folder):
        if not (folder / file).is_file():
            raise ValueError(f"{folder} has no {file}; other formats than safetensors are not read.")
        _refuse_link_out(folder, file)
        try:
            weights |= safetensors.torch.load_file(str(folder / file))
        except safetensors.SafetensorError as error:
            raise ValueError(f"{folder / file} is no whole safetensors file: {error}.") from None
    return weights


def _files_of(folder: Path) -> list[str]:
    """The names of the files of weights, each of a file in this folder.

    Names are plain: a folder from somebody else must not choose what is read elsewhere.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"]
    try:
        names = set(read_json(index, what="the index that came with the weights")["weight_map"].values())
        plain = {name for name in names if _is_plain(name)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} holds no weight_map from tensors to files ({error!r:.100}); get it anew.") from None
    if other := sorted(map(str, names - plain)):
        raise ValueError(
            f"{index}: weight_map names {other[0]!r:.200}; each must be the name of a .safetensors file in {folder} "
            "itself, without folders. Do not trust this folder, or put the file there and mend the name."
        )
    return sorted(plain)


def _is_plain(name: object) -> bool:
    """Whether a name is that of a file of weights and of no folder, on any system."""
    return isinstance(name, str) and bool(re.fullmatch(r"[^/\\:\0]+\.safetensors", name))


def _refuse_link_out(folder: Path, file: str) -> None:
    """ValueError for a link that leaves the folder, but for huggingface_hub's from ``snapshots/...`` to ``blobs``."""
    home, real = folder.resolve(), (folder / file).resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if home not in real.parents and real.parent != blobs:
        raise ValueError(f"{folder / file} is a link to {real}, outside of the folder; put the file itself there.")
