"""The job of ``spectrain embed``: find the document that answers a query."""

import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spectrain import data, nn, objectives
from spectrain._files.write import write_file
from spectrain.train._jobs.embed_config import EmbedConfig
from spectrain.train._jobs.ranking import BM25, Ranking, best_share, mix, ranking
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.job import AbstractJob, Judged, Measured, first_bad_tensor

Texts = list[Tensor]
Encoder = Callable[[Tensor], Tensor]


class EmbedJob(AbstractJob[EmbedConfig]):
    """Contrastive learning on pairs, judged by search among held-out documents, alone and together with BM25."""

    units = ("pairs",)
    model: torch.nn.ModuleDict

    def __init__(self, config: EmbedConfig, folder: RunFolder, *, resuming: bool) -> None:
        self.config = config
        self.pairs = data.read_pairs(config.data or None)
        self.fingerprint = _digest(self.pairs)
        rest, self.held_out = data.text.split_pairs(self.pairs, fraction=config.validation_fraction, seed=config.seed)
        half = config.validation_fraction / 2
        self.train, self.judged = data.text.split_pairs(rest, fraction=half, seed=config.seed, part="on the way")
        self.tokenizer = tokenizer_of(config, self.train) if not resuming else data.load_tokenizer(folder.tokenizer)
        self.queries, self.documents = self.encode_pairs(self.train)
        self.stream = data.streams.IndexStream(len(self.train), batch=config.batch_size, seed=config.seed)

    def about_data(self) -> list[str]:
        """How many pairs there are, and what BM25 makes of the held-out ones."""
        bm25 = ranking(self.lexical_scores(self.held_out))
        learn, judge, last = (f"{len(part):,}" for part in (self.train, self.judged, self.held_out))
        return [
            f"pairs, whole modules or groups each: {learn} to learn from, {judge} to judge on the way, {last} held out",
            f"BM25 on the held-out pairs: {_words(bm25)}",
        ]

    def keep(self, folder: RunFolder) -> None:
        """Write the tokenizer."""
        write_file(folder.tokenizer, self.tokenizer.save)

    def build_model(self, config: EmbedConfig) -> torch.nn.ModuleDict:
        """The encoders, and the loss over them."""
        model = build_encoders(config, vocabulary=self.tokenizer.vocabulary_size)
        loss = functools.partial(objectives.info_nce, temperature=config.temperature, symmetric=True)
        encoders = [self._within_autocast(model[tower(config, name)]) for name in ("query", "document")]
        self.contrastive = objectives.Contrastive(encoders, loss, chunk=config.micro_batch, collate=pad)
        return model

    def _within_autocast(self, encoder: torch.nn.Module) -> Encoder:
        def encode(tokens: Tensor) -> Tensor:
            with self.autocast:
                out: Tensor = encoder(tokens.to(self.device))
            return out.float()

        return encode

    def accumulate(self, step: int) -> Measured:
        """Leave the gradient of the loss over batch ``step`` in ``p.grad``: all its pairs against each other."""
        index = self.stream.batch(step).tolist()
        loss = self.contrastive.backward([self.queries[i] for i in index], [self.documents[i] for i in index]).item()
        return Measured(loss, {"pairs": len(index)}, words=f"loss {loss:.4f}")

    def first_bad_tensor(self, step: int) -> str:
        """Name the first tensor that is not finite on batch ``step``."""
        index = self.stream.batch(step).tolist()[: self.config.micro_batch]

        def forward() -> None:
            for name, texts in (("query", self.queries), ("document", self.documents)):
                self.vectors([texts[i] for i in index], name)

        return first_bad_tensor(self.model, forward)

    def encode_pairs(self, pairs: Sequence[data.text.Pair]) -> tuple[Texts, Texts]:
        """Token numbers of queries and documents, cut to their lengths."""
        return encode_pairs(self.tokenizer, pairs, self.config)

    @torch.no_grad()
    def vectors(self, texts: Texts, name: str) -> Tensor:
        """Unit vectors of texts, by the encoder of queries or of documents."""
        return vectors(self._within_autocast(self.model[tower(self.config, name)]), texts)

    def cosines(self, pairs: Sequence[data.text.Pair]) -> np.ndarray:
        """Cosines of every query with every document."""
        queries, documents = self.encode_pairs(pairs)
        found: np.ndarray = (self.vectors(queries, "query") @ self.vectors(documents, "document").mT).cpu().numpy()
        return found

    def lexical_scores(self, pairs: Sequence[data.text.Pair]) -> np.ndarray:
        """BM25's score of every document for every query."""
        return BM25([pair.document for pair in pairs]).scores([pair.query for pair in pairs])

    def validate(self, *, whole: bool) -> Judged:
        """Search among the held-out documents; on the way, among those that also set the share of the mixture."""
        share = best_share(self.cosines(self.judged), self.lexical_scores(self.judged))
        pairs = self.held_out if whole else self.judged
        scores, lexical = self.cosines(pairs), self.lexical_scores(pairs)
        alone, bm25, both = ranking(scores), ranking(lexical), ranking(mix(scores, lexical, share))
        loss = F.cross_entropy(torch.from_numpy(scores) / self.config.temperature, torch.arange(len(pairs))).item()
        figures = {
            f"{key}{ending}": value
            for ending, found in (("", alone), ("_bm25", bm25), ("_combined", both))
            for key, value in vars(found).items()
        }
        words = f"loss {loss:.4f}; learned {_words(alone)}; with BM25 {_words(both)}"
        return Judged(loss, {"pairs": len(pairs)}, {**figures, "share": share}, words)

    def sample(self, folder: RunFolder, *, step: int) -> None:
        """Append a few searches to ``samples.txt``: the query and the beginnings of what was found first."""
        pairs = self.held_out[:: max(1, len(self.held_out) // 4)][:4]
        queries, _ = self.encode_pairs(pairs)
        _, documents = self.encode_pairs(self.held_out)
        order = (self.vectors(queries, "query") @ self.vectors(documents, "document").mT).topk(3, dim=1).indices
        with open(folder.samples, "a", encoding="utf-8") as file:
            for pair, best in zip(pairs, order.tolist(), strict=True):
                found = "\n".join(f"{i + 1}. {_opening(self.held_out[j])}" for i, j in enumerate(best))
                file.write(f"=== step {step}, query {pair.query!r}\n{found}\nwanted: {_opening(pair)}\n")

    def summary(self, judged: Judged, *, steps: int) -> tuple[dict[str, object], list[str]]:
        """The figures of the last validation, and what learning adds to BM25."""
        f = judged.figures
        row: dict[str, object] = {"validation_loss": judged.loss, **f, "epochs": self.stream.epoch(steps)}
        mrr, recall = (f[f"{key}_combined"] - f[f"{key}_bm25"] for key in ("mrr", "recall_10"))
        gain = f"MRR {mrr:+.3f}, recall@10 {recall:+.3f}"
        return row, [f"together with BM25 (share {f['share']:.2f}, chosen on other modules) over BM25 alone: {gain}"]

    def matrices(self) -> set[torch.nn.Parameter]:
        """The weights of the linear layers."""
        linear = (m for m in self.model.modules() if isinstance(m, torch.nn.Linear))
        return {p for m in linear for p in m.parameters()}

    def watch_list(self) -> list[str]:
        """The matrices of all blocks: there are few."""
        return [name for name, p in self.model.named_parameters() if "blocks" in name and p.dim() == 2]

    def cost(self) -> str:
        """Floating-point operations of forward (twice) and backward."""
        tokens = self.config.query_tokens + self.config.document_tokens
        return f"up to {8 * tokens * sum(p.numel() for p in self.matrices()) / 1e6:.3g} MFLOP a pair"


def build_encoders(config: EmbedConfig, *, vocabulary: int) -> torch.nn.ModuleDict:
    """One encoder for both sides, or one each."""
    assert config.heads
    return torch.nn.ModuleDict(
        {
            name: nn.TextEncoder(
                vocabulary=vocabulary,
                width=config.width,
                depth=config.depth,
                heads=config.heads,
                generator=data.streams.generator(config.seed, "weights", name),
            )
            for name in dict.fromkeys(tower(config, side) for side in ("query", "document"))
        }
    )


def tower(config: EmbedConfig, name: str) -> str:
    """The encoder that takes queries or documents."""
    return name if config.two_towers else "text"


def tokenizer_of(config: EmbedConfig, pairs: Sequence[data.text.Pair]) -> data.Tokenizer:
    """A BPE of queries and documents."""
    texts = [data.text.Document(name=str(i), text=f"{pair.query}\n{pair.document}") for i, pair in enumerate(pairs)]
    return data.train_tokenizer("bpe", texts, vocabulary_size=config.vocabulary)


def encode_pairs(
    tokenizer: data.Tokenizer, pairs: Sequence[data.text.Pair], config: EmbedConfig
) -> tuple[Texts, Texts]:
    """Token numbers of queries and documents, cut to their lengths."""

    def cut(text: str, most: int) -> Tensor:
        return torch.from_numpy(tokenizer.encode(text)[:most].astype(np.int64))

    queries = [cut(pair.query, config.query_tokens) for pair in pairs]
    return queries, [cut(pair.document, config.document_tokens) for pair in pairs]


def pad(texts: list[Tensor]) -> Tensor:
    """Texts of different length as one table, -1 where there is nothing."""
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=-1)


@torch.no_grad()
def vectors(encode: Encoder, texts: Texts) -> Tensor:
    """Unit vectors of texts, sorted by length on the way so that little is padding."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = [encode(pad([texts[i] for i in order[at : at + 256]])) for at in range(0, len(order), 256)]
    return F.normalize(torch.cat(parts), dim=1)[torch.tensor(order).argsort()]


def _digest(pairs: Sequence[data.text.Pair]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(repr((pair.query, pair.document, pair.group)).encode("utf-8", errors="surrogatepass"))
    return digest.hexdigest()[:16]


def _words(found: Ranking) -> str:
    return f"MRR {found.mrr:.3f}, recall@10 {found.recall_10:.3f}"


def _opening(pair: data.text.Pair) -> str:
    return f"{pair.group}: {pair.document.strip().splitlines()[0][:90]}"
