"""A trained run of ``spectrain embed`` as a search over its documents."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spectrain import data
from spectrain._files.read import NOT_FINITE, read_object
from spectrain.train._jobs.embed import build_encoders, encode_pairs, tower, vectors
from spectrain.train._jobs.embed_config import EmbedConfig
from spectrain.train._jobs.ranking import BM25, mix
from spectrain.train._run import recorded as _recorded
from spectrain.train._run.folder import RunFolder
from spectrain.train._saved.load import load_weights


@dataclass(frozen=True)
class Hit:
    """A document that was found."""

    score: float
    pair: data.text.Pair


class Search:
    """All documents of a run's data, embedded once; queries are answered by the mixture that the run chose.

    Raises ``ValueError`` for a folder that is no finished or checkpointed run of ``spectrain embed``.
    """

    def __init__(self, path: Path | str) -> None:
        folder = RunFolder(Path(path))
        if not folder.config.exists() or not folder.tokenizer.exists():
            raise ValueError(
                f"{path} is not a run folder of spectrain embed: config.json or tokenizer.json is missing."
            )
        self.config = _recorded.read_config(folder.config, EmbedConfig)
        self.tokenizer = data.load_tokenizer(folder.tokenizer)
        self.model = build_encoders(self.config, vocabulary=self.tokenizer.vocabulary_size)
        load_weights(self.model, folder)
        self.share = _share(folder)
        self.pairs = data.read_pairs(self.config.data or None)
        _, documents = encode_pairs(self.tokenizer, self.pairs, self.config)
        self.vectors = vectors(self.model[tower(self.config, "document")], documents)
        self.bm25 = BM25([pair.document for pair in self.pairs])

    @torch.no_grad()
    def __call__(self, query: str, *, top: int = 5) -> list[Hit]:
        """The documents that fit ``query`` best, best first.

        Raises ``ValueError`` for an empty query.
        """
        if not query.strip():
            raise ValueError("the query is empty; say what to look for.")
        asked, _ = encode_pairs(self.tokenizer, [data.text.Pair(query, " ", "")], self.config)
        learned = (vectors(self.model[tower(self.config, "query")], asked) @ self.vectors.mT).numpy()
        scores = mix(learned, self.bm25.scores([query]), self.share)[0]
        best = np.argsort(-scores, kind="stable")[:top]
        return [Hit(float(scores[i]), self.pairs[i]) for i in best]


def _share(folder: RunFolder) -> float:
    """The share of the learned score that the run chose; half and half where it has not ended."""
    if not folder.summary.exists():
        return 0.5
    return float(read_object(folder.summary, what="the summary.json of this run", constants=NOT_FINITE)["share"])
