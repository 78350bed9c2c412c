"""A tokenizer in GGUF's words: tokens, their types, merges, and the name of its pre-tokenizer in llama.cpp."""

import json
from typing import Any, TypeAlias

import tokenizers

from spectrain.data._text.document import DataError

Said: TypeAlias = dict[str, Any]
_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3, _QWEN2 = _CUTS % "{1,3}", _CUTS % ""
_GPT2 = "GPT-2's own"
_NAMES = {
    (_GPT2, False): "gpt-2",
    (_LLAMA3, True): "llama-bpe",
    (_LLAMA3, False): "dbrx",
    (_QWEN2, False): "qwen2",
}
"""By pattern, and by whether a pre-token that is a token is taken whole: its name there (src/llama-vocab.cpp)."""
_NEVER = "<none> <none>"
"""A merge of what no text has, since symbols begin as single characters: GGUF holds no empty list, and llama.cpp wants
one."""
_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5


def fields(backend: tokenizers.Tokenizer, *, end: int, settings: Said, rows: int) -> Said:
    """The fields that llama.cpp reads: ``tokenizer.ggml.*``, a chat template, and the whole ``tokenizer.json``.

    Rows of the embedding beyond the vocabulary are tokens that are not used. Raises DataError where llama.cpp has no
    such tokenizer.
    """
    said = json.loads(backend.to_str())
    added = {each["id"]: each for each in said["added_tokens"]}
    _refuse_unlike(said, added)
    tokens = {i: token for token, i in backend.get_vocab(with_added_tokens=True).items()}
    merges = [each if isinstance(each, str) else " ".join(each) for each in said["model"]["merges"]]
    found = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _name(said, any_will_do=not merges),
        "tokenizer.ggml.tokens": [tokens.get(i, f"[PAD{i}]") for i in range(rows)],
        "tokenizer.ggml.token_type": [_type(i, tokens, added, end) for i in range(rows)],
        "tokenizer.ggml.merges": merges or [_NEVER],
        **_special(backend, end=end, settings=settings),
        "tokenizer.huggingface.json": backend.to_str(),
    }
    template = settings.get("chat_template")
    return found | ({"tokenizer.chat_template": template} if isinstance(template, str) else {})


def _special(backend: tokenizers.Tokenizer, *, end: int, settings: Said) -> Said:
    """Numbers of tokens with a meaning; whether the first of them is put in front of a text, as the tokenizer does.

    One without a template of its own is put the token that separates documents in front of: texts began with it.
    """
    numbers = {role: backend.token_to_id(settings.get(f"{role}_token") or "") for role in ("bos", "pad")}
    begin = end if numbers["bos"] is None else numbers["bos"]
    written = backend.encode("x").ids if backend.post_processor is not None else [begin]
    return {
        "tokenizer.ggml.bos_token_id": begin,
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.padding_token_id": end if numbers["pad"] is None else numbers["pad"],
        "tokenizer.ggml.add_bos_token": written[0] == begin,
        "tokenizer.ggml.add_eos_token": len(written) > 1 and written[-1] == end,
    }


def _type(i: int, tokens: dict[int, str], added: dict[int, Said], end: int) -> int:
    if i not in tokens:
        return _UNUSED
    if i == end or (i in added and added[i]["special"]):
        return _CONTROL
    return _USER if i in added else _NORMAL


def _name(said: Said, *, any_will_do: bool) -> str:
    """Where merges may happen, by its name in llama.cpp; without merges, nowhere, and any name is right."""
    if any_will_do:
        return _NAMES[_GPT2, False]
    key = (_pattern(said["pre_tokenizer"]), bool(said["model"].get("ignore_merges")))
    if key not in _NAMES:
        raise DataError(
            "llama.cpp has no name for the pattern by which this tokenizer cuts text into words, and would make other "
            f"tokens without a word. It knows those of {', '.join(sorted(set(_NAMES.values())))}: train with such a "
            "tokenizer.json (--tokenizer FILE) or with --tokenizer bytes, or export in Hugging Face's format"
        )
    return _NAMES[key]


def _pattern(cuts: Said | None) -> str | None:
    """The pattern of a pre-tokenizer that cuts by one and then writes bytes; None for another kind."""
    parts = [] if cuts is None else cuts["pretokenizers"] if cuts["type"] == "Sequence" else [cuts]
    if not parts or parts[-1]["type"] != "ByteLevel" or parts[-1]["add_prefix_space"]:
        return None
    own = parts[-1].get("use_regex", True)
    if len(parts) == 1:
        return _GPT2 if own else None
    split = parts[0]
    plain = split["type"] == "Split" and split["behavior"] == "Isolated" and not split["invert"]
    pattern: str | None = split["pattern"].get("Regex") if plain and len(parts) == 2 and not own else None
    return pattern


def _refuse_unlike(said: Said, added: dict[int, Said]) -> None:
    model = said["model"]
    odd = [each["content"] for each in added.values() if each["lstrip"] or each["rstrip"] or each["single_word"]]
    faults = {
        "words that fall back to bytes, whose scores its file does not hold": model.get("byte_fallback"),
        "pieces within words or at their ends": model.get("continuing_subword_prefix")
        or model.get("end_of_word_suffix"),
        f"the token {odd[0] if odd else ''!r}, which takes spaces beside it or whole words only": bool(odd),
    }
    found = [fault for fault, there in faults.items() if there]
    if found:
        raise DataError(f"llama.cpp's tokenizers have no {'; '.join(found)}; export in Hugging Face's format")
