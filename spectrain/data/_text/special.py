"""Which token ends a text, and other tokens of a meaning: what files beside a ``tokenizer.json`` say."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers

from spectrain._files.read import NOT_FINITE, read_object
from spectrain.data._text.document import DataError

END_OF_TEXT = "<|endoftext|>"
SETTINGS = "tokenizer_config.json"
_ROLES = ("bos_token", "eos_token", "pad_token")


def settings_beside(file: Path, backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """The ``tokenizer_config.json`` beside a ``tokenizer.json``, with what ``config.json`` says where it is silent.

    ``eos_token``, ``bos_token`` and ``pad_token`` are plain texts here. Raises DataError for files that cannot be read,
    and for a token that the tokenizer has not.
    """
    found = _object(file.with_name(SETTINGS))
    numbers = _object(file.with_name("config.json"))
    for role in _ROLES:
        said = found.get(role, _token(numbers.get(f"{role}_id"), backend))
        text = said.get("content") if isinstance(said, dict) else said
        found.pop(role, None)
        if text is None:
            continue
        if not isinstance(text, str) or backend.token_to_id(text) is None:
            raise DataError(f"{file.with_name(SETTINGS)} names {role} {text!r:.60}, and {file.name} has no such token")
        found[role] = text
    return found


def end_of_text(backend: tokenizers.Tokenizer, name: str | None) -> int:
    """The id of the token that ends a text: the one of this name, else ``<|endoftext|>``; a DataError without."""
    found = backend.token_to_id(END_OF_TEXT if name is None else name)
    if found is None:
        special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
        raise DataError(
            f"the tokenizer has no token {name or END_OF_TEXT}, which separates documents. Say which token does: put "
            f'a file {SETTINGS} beside it that holds {{"eos_token": "..."}}{_named(special)}'
        )
    return int(found)


def _named(special: Iterable[str]) -> str:
    some = ", ".join(list(special)[:8])
    return f", one of {some}" if some else "; it has no special token, so add one first (add_special_tokens)"


def _token(number: object, backend: tokenizers.Tokenizer) -> str | None:
    first = number[0] if isinstance(number, list) and number else number
    return backend.id_to_token(first) if isinstance(first, int) and not isinstance(first, bool) and first >= 0 else None


def _object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return read_object(file, what="what came with the tokenizer", constants=NOT_FINITE)
    except ValueError as error:
        raise DataError(str(error)) from None
