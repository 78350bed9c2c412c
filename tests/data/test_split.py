import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrain import data

POEMS = [data.text.Document(name=f"poem {i}", text=f"line {i}\n" * (1 + i % 7)) for i in range(200)]
BOOK = data.text.Document(name="book", text="".join(f"line {i}\n" for i in range(1000)))


def names(documents):
    return [document.name for document in documents]


def size(documents):
    return sum(len(document.text) for document in documents)


def check_split(split, documents, fraction):
    """What every split must satisfy, checked against the documents themselves."""
    train, validation = split(documents, fraction=fraction, seed=0)
    assert validation
    assert train
    assert all(d.text for d in validation)
    whole = {d.name: "" for d in documents}
    for d in [*train, *validation]:
        whole[d.name.removesuffix(" (end)")] += d.text
    assert whole == {d.name: d.text for d in documents}, "every character once, in order"
    assert not {d.text for d in train} & {d.text for d in validation} - {""}
    assert fraction / 3 * size(documents) <= size(validation) <= 1.5 * fraction * size(documents)
    shuffled = random.Random(1).sample(documents, len(documents))
    assert split(shuffled, fraction=fraction, seed=0) == (train, validation), "the order of the list"


CASES = {
    "many small": (POEMS, 0.05),
    "half": (POEMS, 0.5),
    "one book": ([BOOK], 0.1),
    "three volumes": ([data.text.Document(name=f"{v}", text=f"volume {v}\n" + BOOK.text) for v in range(3)], 0.1),
    "a book and a note": ([BOOK, data.text.Document(name="note", text="hello\n")], 0.1),
    "copies": ([*POEMS, *(data.text.Document(name=f"copy of {d.name}", text=d.text) for d in POEMS)], 0.1),
    "one line": ([data.text.Document(name="line", text="word " * 1000)], 0.1),
    "a title and one line": ([data.text.Document(name="t", text="title\n" + "word " * 1000)], 0.1),
}


@pytest.mark.parametrize("case", CASES)
def test_split(case):
    documents, fraction = CASES[case]
    check_split(data.split_documents, documents, fraction)


def by_position(documents, *, fraction, seed):
    count = max(1, round(len(documents) * fraction))
    return documents[:-count], documents[-count:]


def overlapping(documents, *, fraction, seed):
    train, validation = data.split_documents(documents, fraction=fraction, seed=seed)
    return [*train, *validation], validation


def dropping(documents, *, fraction, seed):
    train, validation = data.split_documents(documents, fraction=fraction, seed=seed)
    return train[1:], validation


def by_name_only(documents, *, fraction, seed):
    order = sorted(documents, key=lambda d: random.Random(f"{seed} {d.name}").random())
    count = max(1, round(len(documents) * fraction))
    return sorted(order[count:], key=lambda d: d.name), sorted(order[:count], key=lambda d: d.name)


WRONG = {
    "the last ones": (by_position, "many small"),
    "validation also trained on": (overlapping, "many small"),
    "a document lost": (dropping, "many small"),
    "copies on both sides": (by_name_only, "copies"),
    "a whole volume for a tenth": (by_name_only, "three volumes"),
    "nothing to train on": (lambda documents, *, fraction, seed: ([], list(documents)), "one book"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_check_rejects_wrong_splits(wrong):
    split, case = WRONG[wrong]
    with pytest.raises(AssertionError):
        check_split(split, *CASES[case])


def test_the_seed_decides():
    splits = [names(data.split_documents(POEMS, fraction=0.1, seed=seed)[1]) for seed in range(5)]
    assert len({tuple(split) for split in splits}) == 5


def test_a_book_is_cut_at_the_beginning_of_a_line():
    (train,), (end,) = data.split_documents([BOOK], fraction=0.1, seed=0)
    assert train.name == "book"
    assert end.name == "book (end)"
    assert train.text.endswith("\n")
    assert end.text.startswith("line ")


@given(st.lists(st.text(), min_size=1, max_size=8), st.floats(0.01, 0.99), st.integers(0, 5))
def test_any_texts_divide_completely_or_say_why_not(texts, fraction, seed):
    documents = [data.text.Document(name=str(i), text=text) for i, text in enumerate(texts)]
    try:
        train, validation = data.split_documents(documents, fraction=fraction, seed=seed)
    except data.DataError:
        assert max(map(len, texts)) < 2
        return
    whole = {str(i): "" for i in range(len(texts))}
    for d in [*train, *validation]:
        whole[d.name.removesuffix(" (end)")] += d.text
    assert list(whole.values()) == texts
    assert size(validation) > 0
    assert size(train) > 0


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_fraction_must_be_between_0_and_1(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        data.split_documents(POEMS, fraction=fraction, seed=0)


def test_too_little_to_divide():
    for documents in ([], [data.text.Document(name="a", text="")], [data.text.Document(name="a", text="x")]):
        with pytest.raises(data.DataError, match="cannot be divided"):
            data.split_documents(documents, fraction=0.1, seed=0)


def test_equal_names_are_refused():
    with pytest.raises(ValueError, match=r"2 documents.*'book'"):
        data.split_documents([BOOK, BOOK], fraction=0.1, seed=0)
