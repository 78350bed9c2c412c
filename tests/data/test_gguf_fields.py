"""A tokenizer in GGUF's fields: llama.cpp's definition of them makes our tokens, of text that is made to differ."""

import itertools
import json

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from spectrain import data

regex = pytest.importorskip("regex", reason="llama.cpp's patterns know classes of Unicode, Python's re does not")

SUFFIX = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_CPP = {  # src/llama-vocab.cpp; what no alternative takes is a word of its own there
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST,
    "dbrx": SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST,
    "qwen2": SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST,
}
CUTS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s" + REST
SAMPLE = (
    "The norm's 12345 values, they'll\n\n  go on;\tI'D say 'tis done.\r\n\r\n x²+y² = 99 "
    "naïve café 中文字 один два\u00a0три "
)
ADVERSARIAL = [
    SAMPLE, " a  b   c\n \n\t d", "\r\n\r\n\r\n", "1234567 89\u0660\u0661\u0662\u0663", "''''", "Ⅷ①²½ 𝟘𝟙𝟚𝟛",
    "DON'T don't I'LL we'Re'S'sx don’t", "'\u017f '\u017fx K'\u212aELVIN", "a\u0301e\u0308 \u0939\u093f\u0928\u094d",
    "\u3000\u2003x\u00a0\u00a0y\u1680z\u2028a\u2029b", "\x00\x01\x7f\ufeff\x1c\x1d a\x85 b\u200b\u200c", "\u01c5\u0345",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 ok", "trailing   ", "   leading", "a\n\n\nb \n c",
    "<|endoftext|> is text", "!!??\n..\r\n", "",
]  # fmt: skip


def backend(cuts, *, whole=False):
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=whole))
    made.decoder = decoders.ByteLevel()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if cuts is not None:
        split = pre_tokenizers.Split(tokenizers.Regex(cuts), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([SAMPLE * 9, "they'll 12 123 1234 \n\n  "], trainer)
    made.add_special_tokens(["<|endoftext|>", "<|pad|>"])
    made.add_tokens(["naïve"])  # a token of the user's
    return made


def tokenizer(made, folder, **settings):
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return data.load_tokenizer(folder)


def llama_tokens(said, text):
    """llama.cpp's ``llm_tokenizer_bpe``: tokens of the user's first, then words, then merges by rank."""
    numbers = {token: i for i, token in enumerate(said["tokenizer.ggml.tokens"])}
    types = said["tokenizer.ggml.token_type"]
    users = [token for token, i in numbers.items() if types[i] == 4]
    ranks = {tuple(pair.split(" ")): i for i, pair in enumerate(said["tokenizer.ggml.merges"])}
    byte_of = dict(zip(range(256), byte_characters(), strict=True))
    found = []
    for part in regex.split("(" + "|".join(map(regex.escape, users)) + ")", text) if users else [text]:
        if part in users:
            found.append(numbers[part])
            continue
        for word in regex.findall(LLAMA_CPP[said["tokenizer.ggml.pre"]], part):
            symbols = [byte_of[byte] for byte in word.encode()]
            if said["tokenizer.ggml.pre"] == "llama-bpe" and "".join(symbols) in numbers:
                symbols = ["".join(symbols)]
            found += [numbers[symbol] for symbol in merged(symbols, ranks)]
    return found


def merged(symbols, ranks):
    while len(symbols) > 1:
        rank, i = min((ranks.get(pair, 10**9), i) for i, pair in enumerate(itertools.pairwise(symbols)))
        if rank == 10**9:
            break
        symbols = [*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :]]
    return symbols


def byte_characters():
    """GPT-2's table, as it was published."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) if byte in kept else chr(256 + others.index(byte)) for byte in range(256)]


KINDS = {
    "gpt-2": (None, False),
    "llama-bpe": (CUTS % "{1,3}", True),
    "dbrx": (CUTS % "{1,3}", False),
    "qwen2": (CUTS % "", False),
}


@pytest.mark.parametrize("name", KINDS)
def test_llama_cpp_makes_our_tokens(name, tmp_path):
    cuts, whole = KINDS[name]
    ours = tokenizer(backend(cuts, whole=whole), tmp_path)
    said = ours.gguf()
    assert (said["tokenizer.ggml.model"], said["tokenizer.ggml.pre"]) == ("gpt2", name)
    for text in ADVERSARIAL:
        assert llama_tokens(said, text) == ours.encode(text).tolist(), text
    again = tokenizers.Tokenizer.from_str(said["tokenizer.huggingface.json"])
    assert again.get_vocab(with_added_tokens=True) == backend(cuts, whole=whole).get_vocab(with_added_tokens=True)


@pytest.mark.parametrize(("name", "wrong"), [("gpt-2", "qwen2"), ("dbrx", "qwen2"), ("dbrx", "gpt-2")])
def test_another_name_is_seen_to_make_other_tokens(name, wrong, tmp_path):
    cuts, whole = KINDS[name]
    ours = tokenizer(backend(cuts, whole=whole), tmp_path)
    said = ours.gguf() | {"tokenizer.ggml.pre": wrong}
    assert any(llama_tokens(said, text) != ours.encode(text).tolist() for text in ADVERSARIAL)


def test_bytes_are_the_same_by_any_name():
    ours = data.train_tokenizer("bytes", [])
    said = ours.gguf(rows=300)
    assert said["tokenizer.ggml.pre"] == "gpt-2"
    assert all(llama_tokens(said, text) == ours.encode(text).tolist() for text in ADVERSARIAL)
    assert said["tokenizer.ggml.merges"]  # GGUF has no empty list, and llama.cpp asks for it
    assert len(set(said["tokenizer.ggml.tokens"])) == len(said["tokenizer.ggml.token_type"]) == 300
    assert said["tokenizer.ggml.token_type"][255:259] == [1, 3, 5, 5]  # a byte, end-of-text, two rows without a token
    numbers = {key: said[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "padding")}
    assert numbers == {"bos": 256, "eos": 256, "padding": 256}
    assert (said["tokenizer.ggml.add_bos_token"], said["tokenizer.ggml.add_eos_token"]) == (True, False)


@pytest.mark.parametrize("adds", [False, True])
def test_tokens_of_a_meaning_are_those_of_the_tokenizer(adds, tmp_path):
    made = backend(None)
    made.add_special_tokens(["<|begin|>"])
    begin, end, pad = (made.token_to_id(token) for token in ("<|begin|>", "<|endoftext|>", "<|pad|>"))
    template = "<|begin|> $A" if adds else "$A"
    special = [("<|begin|>", begin)]
    made.post_processor = tokenizers.processors.TemplateProcessing(single=template, special_tokens=special)
    names = {"bos_token": "<|begin|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "chat_template": "hi"}
    said = tokenizer(made, tmp_path, **names).gguf()
    found = [said[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "padding")]
    assert found == [begin, end, pad]
    assert (said["tokenizer.ggml.add_bos_token"], said["tokenizer.chat_template"]) == (adds, "hi")
    assert [said["tokenizer.ggml.token_type"][i] for i in (*found, made.token_to_id("naïve"))] == [3, 3, 3, 4]


def test_our_pattern_has_no_name_there_and_is_refused():
    text = [data.text.Document(name="a", text="la la lala\n" * 9)]
    with pytest.raises(data.DataError, match=r"no name for the pattern .* --tokenizer bytes"):
        data.train_tokenizer("bpe", text, vocabulary_size=262).gguf()


def with_digits(made):
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), made.pre_tokenizer])


def with_greed(made):
    made.add_tokens([tokenizers.AddedToken("lala", lstrip=True)])


BAD = {"no name": with_digits, "the token 'lala', which takes spaces": with_greed}


@pytest.mark.parametrize(("words", "change"), BAD.items(), ids=BAD)
def test_what_llama_cpp_has_not_is_refused(words, change, tmp_path):
    made = backend(None)
    change(made)
    with pytest.raises(data.DataError, match=words):
        tokenizer(made, tmp_path).gguf()
