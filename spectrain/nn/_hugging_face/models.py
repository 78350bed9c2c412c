"""Models to and from Hugging Face's folders, where the architecture is the same."""

import copy
import functools
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from spectrain._files.write import write_file, write_json
from spectrain.nn._hugging_face import experts
from spectrain.nn._hugging_face.arguments import arguments_of, family_of, model_of, read_config
from spectrain.nn._hugging_face.config import attentions, config_of, family_for
from spectrain.nn._hugging_face.families import DEEPSEEK, Family
from spectrain.nn._hugging_face.files import shapes_in, tensors_in
from spectrain.nn._hugging_face.weights import to_ours, to_theirs
from spectrain.nn._models.adapter import adapted, merge
from spectrain.nn._models.language_model import LanguageModel

_HEAD, _TABLE = "lm_head.weight", "model.embed_tokens.weight"
_FREQUENCIES = re.compile(r"model\.layers\.(\d+)\.self_attn\.rotary_emb\.inv_freq")


def to_hugging_face(
    model: LanguageModel,
    folder: str | Path,
    *,
    context: int | None = None,
    end_of_text: int | None = None,
    begin_of_text: int | None = None,
    family: str | None = None,
) -> Path:
    """Write ``config.json`` and ``model.safetensors`` that transformers loads, with the same logits.

    Grouped-query attention goes out as Llama, with a window as Mistral, with biases of queries, keys and values as
    Qwen 2, with ``qk_norm`` as Qwen 3 (without gains as gains of one), with norms behind what they belong to as OLMo 2;
    a latent as DeepSeek-V3, with :class:`MoE` where there is one and their routers are the same. ``family`` asks for
    one by its ``model_type``: ``"mistral"`` without a window is what ``"llama"`` is. Normalised embeddings are
    written normalised, as a table of their own, so a tied head is no longer tied; adapters are written merged.
    ``context`` (default: the model's) is the longest sequence they are told of; ``end_of_text`` the token that ends a
    text, and begins one unless ``begin_of_text`` does.

    ``norm_eps=None`` is written as the number that torch adds, the rounding of the dtype that it computes in: float32
    for bfloat16 and float16.

    Raises ``ValueError`` naming what has no counterpart there: shared keys and values, sinks, log n, partial
    RoPE without a latent, another feed-forward block, experts without a latent, without a shared one, by another
    router, parameters of several dtypes, blocks that differ, norms that add different numbers: they have one for
    all, but for latents, where it is 1e-6; and a setting that the ``family`` has not.
    """
    config, tensors = described(
        model, context=context, end_of_text=end_of_text, begin_of_text=begin_of_text, family=family
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    write_file(
        folder / "model.safetensors",
        lambda temporary: safetensors.torch.save_file(tensors, str(temporary), metadata={"format": "pt"}),
    )
    return folder


def described(
    model: LanguageModel,
    *,
    context: int | None = None,
    end_of_text: int | None = None,
    begin_of_text: int | None = None,
    family: str | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a model is there: its configuration and its tensors by name, as :func:`to_hugging_face` writes them."""
    if any(True for _ in adapted(model)):
        model = cast(LanguageModel, merge(copy.deepcopy(model)))
    kind = family_for(model, family)
    config = config_of(model, kind)
    context = context or model.context
    config |= {"max_position_embeddings": context} if context else {}
    begin = end_of_text if begin_of_text is None else begin_of_text
    config |= {"bos_token_id": begin, "eos_token_id": end_of_text, "dtype": str(model.head.weight.dtype)[6:]}
    weights = _theirs(model, kind)
    if model.embedding_norm:
        weights[_TABLE] = F.rms_norm(model.embedding.weight.detach(), (model.embedding.embedding_dim,))
    if config["tie_word_embeddings"]:
        del weights[_HEAD]
    return config, {name: w.contiguous().clone() for name, w in weights.items()}


def from_hugging_face(folder: str | Path) -> LanguageModel:
    """The model in a folder that transformers wrote: Llama, Mistral, Qwen 2, Qwen 3, OLMo 2, DeepSeek-V3.

    Experts are balanced by the sign rule from the bias that comes with them. Where the configuration ties the head to
    the embedding, the embedding is taken, and a ``UserWarning`` tells of an ``lm_head`` in the file that is another
    table (transformers before 5 ties them, 5 uses both). The dtype is the widest in the file, routers keep their own.
    Dropout of attention, which plays no part in ``eval()``, is not carried over.

    Each key of ``config.json`` is honoured, known to change no logit, or refused; each tensor has a place, and each
    place a tensor.

    Raises ``ValueError`` where there is no ``config.json``, naming the setting that has no
    counterpart here, the number that is missing or cannot be, or the tensor that does not fit.
    """
    found = read_folder(folder)
    model = model_of(found.config)
    ours = found.weights(model)
    _cast(model, ours)
    model.load_state_dict(ours)
    return model.eval()


@dataclass(frozen=True)
class Pretrained:
    """A folder of Hugging Face's whose configuration and tensors fit each other; the tensors are not read yet."""

    folder: Path
    config: dict[str, Any]
    family: Family

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of :class:`LanguageModel`, and ``feed_forward_bias``; ``ValueError`` for a latent."""
        if self.family is DEEPSEEK:
            raise ValueError(
                f"{self.folder} is a {self.family.name}: nn.from_hugging_face reads it, and train does not."
            )
        return arguments_of(self.config)

    def weights(self, model: LanguageModel) -> dict[str, Tensor]:
        """The tensors under the names that they have in ``model``, which is one of this configuration."""
        theirs = tensors_in(self.folder)
        _check_frequencies(theirs, model)
        if self.config["tie_word_embeddings"]:
            theirs = _tie(theirs, self.folder)
        routed, theirs = experts.to_ours(theirs, model)
        interleaved = self.config.get("rope_interleave", True)
        return to_ours(theirs, attentions(model), self.family, interleaved=interleaved) | routed


def read_folder(folder: str | Path) -> Pretrained:
    """What is in a folder, checked: keys of the configuration, then names and shapes of all tensors, by their heads.

    Raises ``ValueError`` as :func:`from_hugging_face` does.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        what = "no config.json" if folder.is_dir() else "no such folder"
        raise ValueError(f"{folder}: {what}; give the folder that transformers' save_pretrained wrote.")
    config = read_config(folder / "config.json")
    found = Pretrained(folder, config, family_of(config))
    with torch.device("meta"):
        model = model_of(config)
    wanted = {name: tuple(w.shape) for name, w in _theirs(model, found.family).items()}
    _check_tensors(folder, shapes_in(folder), wanted, tied=config["tie_word_embeddings"])
    return found


def _theirs(model: LanguageModel, family: Family) -> dict[str, Tensor]:
    """All parameters under their names."""
    ours = {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False)}
    return to_theirs(ours, attentions(model), family) | experts.to_theirs(model)


def _check_tensors(
    folder: Path, there: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], *, tied: bool
) -> None:
    """``ValueError`` for the first tensor that is missing, has another shape, or has no place."""
    one_table = {_HEAD, _TABLE} if tied else set()
    for name, shape in wanted.items():
        if name not in there and not (name in one_table and one_table & there.keys()):
            raise ValueError(f"{folder} has no tensor {name}, which its config.json asks for.")
        if there.get(name, shape) != shape:
            raise ValueError(f"{folder} does not fit its config.json: {name} is {there[name]}, and {shape} is meant.")
    for name in there:
        if name not in wanted and not _FREQUENCIES.fullmatch(name):
            raise ValueError(f"{folder}: {name} has no counterpart in the model that config.json describes.")


def _check_frequencies(theirs: dict[str, Tensor], model: LanguageModel) -> None:
    """Take out frequencies of positions, which older files hold; ``ValueError`` where they are others than ours."""
    for name in list(theirs):
        if found := _FREQUENCIES.fullmatch(name):
            held, layer = theirs.pop(name), int(found[1])
            ours = attentions(model)[layer].rotary.frequencies(held.device) if layer < len(model.blocks) else None
            if ours is None or held.shape != ours.shape or not torch.allclose(held.to(ours), ours, rtol=1e-2):
                raise ValueError(f"{name} holds other frequencies than those that config.json says.")


def _tie(weights: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """One table under both names, the embedding's where both are there: the configuration says that they are one."""
    head, table = weights.get(_HEAD), weights.get(_TABLE)
    table = head if table is None else table
    assert table is not None  # one of them is there, as was checked
    if head is not None and not torch.equal(head, table):
        warnings.warn(
            f"{folder}: config.json ties the head to the embedding, but lm_head.weight is there and is another table; "
            "it is left out. If the head is its own, write tie_word_embeddings: false.",
            stacklevel=4,
        )
    return weights | {_TABLE: table, _HEAD: table}


def _cast(model: LanguageModel, weights: dict[str, Tensor]) -> None:
    """Take the widest dtype of the weights; routers keep their own, which is float32 in transformers' files."""
    routers = {f"blocks.{i}.feed_forward": moe for i, moe in experts.layers(model).items()}
    apart = tuple(f"{name}.{part}" for name in routers for part in ("router.", "bias", "loads", "tokens", "histogram"))
    dtypes = [w.dtype for name, w in weights.items() if w.is_floating_point() and not name.startswith(apart or ("-",))]
    model.to(functools.reduce(torch.promote_types, dtypes))
    for name, moe in routers.items():
        moe.router.to(weights[f"{name}.router.weight"].dtype)
