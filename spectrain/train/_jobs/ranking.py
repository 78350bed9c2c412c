"""What a search without learning finds, Okapi BM25 over words; how good a search is; the best mixture of two."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def words(text: str) -> list[str]:
    """Lower-case words, identifiers cut at underscores, capitals and digits.

    >>> words("parseHTTPDate(utc_offset=0)")
    ['parse', 'http', 'date', 'utc', 'offset', '0']
    """
    return [word.lower() for word in _WORD.findall(text)]


class BM25:
    """``sum_w idf(w) f (k1 + 1) / (f + k1 (1 - b + b |d| / mean |d|))`` over the words w of a query, f times in d.

    ``idf(w) = log(1 + (N - n_w + 1/2) / (n_w + 1/2))``, n_w the number of the N documents that hold w.

    Source: Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond" (2009).

    >>> BM25(["open a file", "close the door"]).scores(["door"]).argmax()
    np.int64(1)
    """

    def __init__(self, documents: Sequence[str], *, k1: float = 1.2, b: float = 0.75) -> None:
        counts = [Counter(words(document)) for document in documents]
        self.vocabulary = {word: i for i, word in enumerate(sorted({word for count in counts for word in count}))}
        rows = np.repeat(np.arange(len(counts)), [len(count) for count in counts])
        columns = np.array([self.vocabulary[word] for count in counts for word in count], dtype=np.int64)
        often = np.array([f for count in counts for f in count.values()], dtype=np.float64)
        lengths = np.array([count.total() for count in counts], dtype=np.float64)
        holding = np.bincount(columns, minlength=len(self.vocabulary))
        idf = np.log1p((len(counts) - holding + 0.5) / (holding + 0.5))
        damped = often + k1 * (1 - b + b * lengths[rows] / max(lengths.mean(), 1.0))
        weights = idf[columns] * often * (k1 + 1) / damped
        self.weights = sparse.csr_matrix((weights, (rows, columns)), shape=(len(counts), len(self.vocabulary)))

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """The score of every document for every query: ``(queries, documents)``."""
        known = [Counter(word for word in words(query) if word in self.vocabulary) for query in queries]
        rows = np.repeat(np.arange(len(known)), [len(count) for count in known])
        columns = np.array([self.vocabulary[word] for count in known for word in count], dtype=np.int64)
        often = np.array([f for count in known for f in count.values()], dtype=np.float64)
        table = sparse.csr_matrix((often, (rows, columns)), shape=(len(known), len(self.vocabulary)))
        found: np.ndarray = (table @ self.weights.T).toarray()
        return found


@dataclass(frozen=True)
class Ranking:
    """Figures of a search in which query i belongs to document i."""

    mrr: float
    """Mean of 1 / rank."""
    recall_1: float
    recall_10: float


def ranking(scores: np.ndarray) -> Ranking:
    """Judge ``(queries, documents)`` scores. Of equal scores the right one counts as the last: a tie is no find.

    >>> ranking(np.array([[2.0, 1.0], [3.0, 3.0]]))
    Ranking(mrr=0.75, recall_1=0.5, recall_10=1.0)
    """
    own = scores[np.arange(len(scores)), np.arange(len(scores))]
    ranks = (scores >= own[:, None]).sum(axis=1)
    return Ranking(float((1 / ranks).mean()), float((ranks == 1).mean()), float((ranks <= 10).mean()))


def standardise(scores: np.ndarray) -> np.ndarray:
    """Each query's scores with mean 0 and standard deviation 1, so that two kinds can be added."""
    spread = scores.std(axis=1, keepdims=True)
    return (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)


def mix(learned: np.ndarray, bm25: np.ndarray, share: float) -> np.ndarray:
    """``share`` of the learned scores and the rest of BM25's, both standardised."""
    return share * standardise(learned) + (1 - share) * standardise(bm25)


def best_share(
    learned: np.ndarray, bm25: np.ndarray, *, shares: Sequence[float] = tuple(np.linspace(0, 1, 21))
) -> float:
    """The share with the largest MRR; to be found on other queries than those it is judged by."""
    return float(max(shares, key=lambda share: ranking(mix(learned, bm25, float(share))).mrr))
