import lzma
import random
import shutil
import subprocess

import pytest

from spectrain import data

TEXTS = {
    "prose": "It was a dark and stormy night; the rain fell in torrents.\n" * 50 + "The end.\n",
    "one byte": "x",
    "not ASCII": "Zażółć gęślą jaźń\n" * 300,
    "longer than a chunk": "".join(random.Random(0).choices("abcdefgh \n", k=1_200_000)),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_it_is_the_size_that_lzma_gives_in_one_go(text):
    plain = text.encode()
    packed = lzma.compress(plain, format=lzma.FORMAT_XZ, preset=6)
    assert data.text.compressed_bits_per_byte(text) == 8 * len(packed) / len(plain)


@pytest.mark.skipif(not shutil.which("xz"), reason="the program xz is not installed")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_it_is_the_size_that_xz_gives(text):
    plain = text.encode()
    packed = subprocess.run(["xz", "-6", "-T1", "-c"], input=plain, capture_output=True, check=True).stdout
    assert data.text.compressed_bits_per_byte(text) == 8 * len(packed) / len(plain)


def test_a_fair_choice_of_eight_letters_needs_three_bits():
    text = "".join(random.Random(1).choices("abcdefgh", k=400_000))
    assert 3 < data.text.compressed_bits_per_byte(text) < 3.5


def test_an_empty_text_has_no_figure():
    with pytest.raises(ValueError, match="empty"):
        data.text.compressed_bits_per_byte("")
