"""Tokenizers of other projects: their end of text, their normalizer, and what would make a wrong number is refused."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from spectrain import data

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def made(*special, normalizer=None, added=(), alphabet=ALPHABET, **model):
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, [], **model))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.add_special_tokens([*special])
    backend.add_tokens([*added])
    return backend


def saved(backend, folder, **said):
    backend.save(str(folder / "tokenizer.json"))
    for name, content in said.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / "tokenizer.json"


SAYS = {
    "a name": {"tokenizer_config": {"eos_token": "</s>"}},
    "an object": {"tokenizer_config": {"eos_token": {"content": "</s>", "special": True}}},
    "a number of the model": {"config": {"eos_token_id": 257}},
    "several numbers": {"config": {"eos_token_id": [257, 256]}, "tokenizer_config": {"bos_token": "<s>"}},
}


@pytest.mark.parametrize("said", SAYS.values(), ids=SAYS)
def test_the_files_beside_it_say_which_token_ends_a_text(said, tmp_path):
    tokenizer = data.load_tokenizer(saved(made("<s>", "</s>"), tmp_path, **said))
    assert tokenizer.end_of_text == 257
    assert tokenizer.decode([*tokenizer.encode("a"), 256, 257]) == "a"
    assert tokenizer.byte_lengths[256:].tolist() == [0, 0]
    (tmp_path / "again").mkdir()
    tokenizer.save(tmp_path / "again" / "tokenizer.json")
    tokenizer.save_settings(tmp_path / "again")
    again = data.load_tokenizer(tmp_path / "again" / "tokenizer.json")
    assert again.same_as(tokenizer)
    assert again.end_of_text == 257


def test_two_that_end_texts_otherwise_are_not_the_same(tmp_path):
    first = data.load_tokenizer(saved(made("<s>", "</s>"), tmp_path, tokenizer_config={"eos_token": "</s>"}))
    second = data.load_tokenizer(saved(made("<s>", "</s>"), tmp_path, tokenizer_config={"eos_token": "<s>"}))
    assert not first.same_as(second)


def test_a_normalizer_is_taken_only_where_that_is_asked_for_and_bytes_are_of_its_text(tmp_path):
    file = saved(made("<|endoftext|>", normalizer=normalizers.NFC()), tmp_path)
    with pytest.raises(data.text.DataError, match="changes the text"):
        data.load_tokenizer(file)
    tokenizer = data.load_tokenizer(file, exact=False)
    assert tokenizer.changes_text
    ids = tokenizer.encode("cafe\u0301")
    assert tokenizer.decode(ids) == "caf\u00e9"
    assert tokenizer.byte_lengths[ids].sum() == len("caf\u00e9".encode())


def test_truncation_and_padding_that_came_in_the_file_do_nothing(tmp_path):
    backend = made("<|endoftext|>")
    backend.enable_truncation(5)
    backend.enable_padding(length=9, pad_id=3)
    tokenizer = data.load_tokenizer(saved(backend, tmp_path))
    assert tokenizer.decode(tokenizer.encode("a text of some length")) == "a text of some length"
    assert len(tokenizer.encode("abc")) == 3


def test_ids_without_a_token_and_added_tokens_have_their_bytes(tmp_path):
    backend = made("<|endoftext|>", added=["dé dé"])
    said = json.loads(backend.to_str())
    said["added_tokens"][-1]["id"] = 260
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    tokenizer = data.load_tokenizer(tmp_path / "tokenizer.json")
    if tokenizer.vocabulary_size == 261:  # some versions of the library number added tokens anew
        assert tokenizer.byte_lengths[257:260].tolist() == [0, 0, 0]
    ids = tokenizer.encode("x dé dé y")
    assert tokenizer.decode(ids) == "x dé dé y"
    assert tokenizer.byte_lengths[ids].sum() == len("x dé dé y".encode())


REFUSED = {
    "no end": (lambda: made("<s>"), {}, r"no token <\|endoftext\|>.*tokenizer_config.json.*one of <s>"),
    "no special token": (lambda: made(), {}, "it has no special token, so add one first"),
    "a name that it has not": (
        lambda: made("<s>"), {"tokenizer_config": {"eos_token": "</s>"}}, "names eos_token '</s>', and .* no such",
    ),
    "chance": (lambda: made("<|endoftext|>", dropout=0.5), {}, "drops merges by chance"),
    "a byte missing": (lambda: made("<|endoftext|>", alphabet=ALPHABET[:-1]), {}, "1 of 256 bytes have no token"),
    "no bytes": (lambda: made("<|endoftext|>", alphabet=[*ALPHABET, "\u2581"]), {}, "not a byte-level tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_named(make, said, words, tmp_path):
    with pytest.raises(data.text.DataError, match=words):
        data.load_tokenizer(saved(make(), tmp_path, **said), exact=False)


def test_tokens_that_swallow_spaces_are_refused_where_they_do(tmp_path):
    greedy = AddedToken("<x>", lstrip=True, special=False, normalized=False)
    tokenizer = data.load_tokenizer(saved(made("<|endoftext|>", added=[greedy]), tmp_path))
    assert tokenizer.decode(tokenizer.encode("a b")) == "a b"
    with pytest.raises(data.text.DataError, match="it adds or drops some"):
        tokenizer.encode("a   <x> b")


def words(*, metaspace):
    """Words with U+2581 for a space and bytes where there is none, in either of the ways that Llama 2's are saved."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", "\u2581a"]
    model = models.BPE(
        {t: i for i, t in enumerate(tokens)}, [("\u2581", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    backend = Tokenizer(model)
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=False)
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


@pytest.mark.parametrize("metaspace", [False, True])
def test_tokens_that_are_words_stand_for_their_bytes_and_a_space_in_front(metaspace, tmp_path):
    backend = words(metaspace=metaspace)
    file = saved(backend, tmp_path, tokenizer_config={"eos_token": "</s>"})
    with pytest.raises(data.text.DataError, match="a space put in front"):
        data.load_tokenizer(file)
    tokenizer = data.load_tokenizer(file, exact=False)
    for text in ("a b", "b\u00e9\n  a", "\U0001f600 </s>a"):
        ids = tokenizer.encode(text)
        there = Tokenizer.from_file(str(file))
        there.encode_special_tokens = True
        assert ids.tolist() == there.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
        assert tokenizer.byte_lengths[ids].sum() == len(text.encode()) + 1
    assert tokenizer.puts_space_in_front
    asked = data.shards.Asked(own=tokenizer)
    (tmp_path / "text.txt").write_text("a b\n" * 100)
    with pytest.raises(data.text.DataError, match="puts a space in front"):
        data.shards.prepare_found(
            data.shards.find([[tmp_path / "text.txt"]]), tmp_path / "out", asked, workers=1, told=lambda *_: None
        )
