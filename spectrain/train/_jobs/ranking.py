"""How well scores put the right document first, and the best mixture of two scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


def standardised(scores: np.ndarray) -> np.ndarray:
    """Each query's scores with mean 0 and standard deviation 1, so that two kinds can be added."""
    spread = scores.std(axis=1, keepdims=True)
    return (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)


def mixed(learned: np.ndarray, bm25: np.ndarray, share: float) -> np.ndarray:
    """``share`` of the learned scores and the rest of BM25's, both standardised."""
    return share * standardised(learned) + (1 - share) * standardised(bm25)


def best_share(
    learned: np.ndarray, bm25: np.ndarray, *, shares: Sequence[float] = tuple(np.linspace(0, 1, 21))
) -> float:
    """The share with the largest MRR; to be found on other queries than those it is judged by."""
    return float(max(shares, key=lambda share: ranking(mixed(learned, bm25, float(share))).mrr))
