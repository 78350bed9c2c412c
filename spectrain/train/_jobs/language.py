"""The job of ``spectrain train``: a language model from text."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from spectrain import data, nn, optim
from spectrain._files.write import write_file
from spectrain.train._jobs import adapters, beginning, samples
from spectrain.train._jobs import text as _text
from spectrain.train._jobs.averages import Averages
from spectrain.train._jobs.balance import experts, move_biases, penalty, violations
from spectrain.train._jobs.blank import BlankLikelihood, is_blank
from spectrain.train._jobs.held_out import HeldOut
from spectrain.train._jobs.logits import clip_logits
from spectrain.train._jobs.model import build_model, parametrisation
from spectrain.train._jobs.pace import Pace
from spectrain.train._jobs.per_head import head_rules
from spectrain.train._jobs.samples import Score, count, evaluate
from spectrain.train._mesh.blocks import compile_blocks, recompute
from spectrain.train._mesh.ranks import meets
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.job import AbstractJob, Judged, Measured, first_bad_tensor
from spectrain.train.config import EVERY_TOKEN, TrainConfig

_LOOKED_AT = ("blocks.*.attention", "blocks.*.feed_forward", "blocks.*.queries", "norm")

_CHANGED = "tokenizer: it normalises the text (as NFC does), and bytes are those of the text that it makes"


class LanguageJob(AbstractJob[TrainConfig]):
    """Next-token prediction on text, judged by bits a byte of held-out documents."""

    units = ("tokens", "bytes")
    model: nn.LanguageModel

    def __init__(self, config: TrainConfig, folder: RunFolder, *, resuming: bool) -> None:
        self.config = config
        self.folder = folder
        self.text = _text.load(config, tokenizer_file=beginning.tokenizer_file(config, folder, resuming=resuming))
        self.fingerprint = self.text.fingerprint
        self.stream = _text.stream(config, self.text)

    @classmethod
    def begun(cls, config: TrainConfig) -> TrainConfig:
        """With the shape of what ``--init-from`` and ``--lora-from`` name."""
        return adapters.inherit(beginning.inherit(config))

    @property
    def held_out(self) -> HeldOut:
        """What the job is judged by."""
        return HeldOut(self.text, self.config)

    def about_data(self) -> list[str]:
        """Documents, bytes and tokens of both parts, and the tokenizer."""
        text = self.text
        tokens = sum(map(len, text.sources)), len(text.validation)
        parts = zip(("training", "validation"), text.documents, text.bytes, tokens, strict=True)
        density = text.bytes[1] / max(1, len(text.validation))
        return [
            *([f"tokens: {text.origin}"] if text.origin else []),
            *(f"{part} text: {n} documents, {size:,} bytes, {count:,} tokens" for part, n, size, count in parts),
            *_text.about_stream(text, self.stream),
            f"tokenizer: {text.tokenizer.vocabulary_size} tokens, {density:.2f} bytes a token on held-out text",
            *([_CHANGED] if text.tokenizer.changes_text else []),
            *self.held_out.about(),
        ]

    def keep(self, folder: RunFolder) -> None:
        """Write the tokenizer, and what came with it."""
        write_file(folder.tokenizer, self.text.tokenizer.save)
        self.text.tokenizer.save_settings(folder.path)
        beginning.keep_generation(self.config, folder)

    def build_model(self, config: TrainConfig) -> nn.LanguageModel:
        """The language model of a full configuration."""
        model = build_model(config, vocabulary=self.text.tokenizer.vocabulary_size)
        scaled = parametrisation(config, model)
        if scaled is not None:
            scaled.initialise(generator=data.streams.generator(config.seed, "weights"))
        beginning.load_first_weights(model, config, self.folder)
        adapters.put_in(model, config, self.folder)
        return model

    def leave(self, folder: RunFolder) -> None:
        """Write the adapters, where there are any."""
        adapters.leave(self.model, self.config, folder)

    def build(self, config: TrainConfig, *, device: torch.device) -> None:
        """Make the model, and what watches over it."""
        super().build(config, device=device)
        nn.attention.watch_logits(self.model, on=config.qk_clip is not None)  # before anything is compiled
        self.averages = Averages(self.model, config, self.matrices())

    def divide_model(self) -> None:
        """Blocks that are computed again where asked; over ranks a part of the model on each, compiled by blocks."""
        if self.config.compile and self.ranks.mesh is not None:
            samples.check_compiler()
            compile_blocks(self.model.blocks)
        if self.config.recompute:
            recompute(self.model.blocks)
        if self.ranks.mesh is not None:
            from spectrain.train._mesh.divide import divide  # torch's FSDP2, which one process does without

            divide(self.model, self.model.blocks, self.ranks.mesh, experts=self.ranks.experts)

    def rules(self) -> Mapping[str, optim.Matrix]:
        """Heads apart, where ``--muon-per-head`` says so."""
        return head_rules(self.model) if self.config.muon_per_head else {}

    def parametrisation(self) -> optim.Parametrisation | None:
        """MuP, where ``--parametrisation`` says so."""
        return parametrisation(self.config, self.model)

    def accumulate(self, step: int) -> Measured:
        """Leave the gradient of the mean loss over all targets of batch ``step`` in ``p.grad``.

        Each micro-batch's summed loss is divided by the number of targets of the *whole* batch, so the
        gradient is that of the full batch also where micro-batches hold different numbers of targets.
        """
        began = time.perf_counter()
        inputs, targets, documents = self.batch(step)
        waited = time.perf_counter() - began
        nats, penalised = self.backward(inputs, targets, documents)
        score = self.over_ranks(Score(nats, *count(targets.cpu(), self.text.tokenizer.byte_lengths)))
        words = f"loss {score.loss:.3f}  {score.bits_per_byte:.3f} bits/byte"
        figures = {"bits_per_byte": score.bits_per_byte}
        if self.config.moe_penalty:
            (figures["moe_penalty"],) = self.ranks.sums(penalised)
        return Measured(score.loss, _seen(score), figures, words, waited)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Inputs, targets and, of packed documents, the number of each token's document: this rank's rows."""
        rows = self.stream.rows(self.ranks.share(self.stream.numbers(step)))
        inputs, targets, *borders = (part.to(self.device) for part in rows)
        return inputs, targets, borders[0] if borders else None

    def after_step(self, lr_factor: float) -> Mapping[str, object]:
        """Clip logits and move the biases of experts, where there are any, and average; figures of the first two."""
        limit = self.config.qk_clip
        clipped = {} if limit is None else clip_logits(self.model, limit, self.ranks)
        figures = {**clipped, **move_biases(self.model, self.ranks, lr_factor)}
        self.averages.update(lr_factor)
        return figures

    def state_dict(self) -> dict[str, Any]:
        """The averages, where there are any."""
        return self.averages.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the averages back."""
        self.averages.load_state_dict(state)

    def averaged(self) -> dict[str, Tensor] | None:
        """The weights that ``--average`` keeps."""
        return self.averages.averaged()

    def backward(self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None) -> tuple[float, float]:
        """Accumulate the gradient over micro-batches; return the sum of nats, and the experts' penalty."""
        (counted,) = self.ranks.sums(int((targets >= 0).sum()))
        total, nats, penalised = max(1, int(counted)), 0.0, 0.0
        parts = list(_micro_batches(inputs, targets, documents, self.config.micro_batch))
        for i, (x, y, owners) in enumerate(parts):
            meets(self.model, now=i == len(parts) - 1)
            with self.autocast:
                loss = self.likelihood(self.model, x, y, documents=owners, **self._padding(y, owners))
            mean = loss / total
            if self.config.moe_penalty:
                extra = penalty(self.model, share=int((y >= 0).sum()) / total)
                mean, penalised = mean + extra, penalised + extra.item()
            mean.backward()
            nats += loss.item()
        return nats, penalised

    def _padding(self, targets: Tensor, documents: Tensor | None) -> dict[str, Tensor]:
        """Which tokens there are, for experts: rows of whole documents are filled up, and the rest is no load."""
        padded = documents is not None and self.config.moe_experts is not None
        return {"counted": targets >= 0} if padded else {}

    @property
    def likelihood(self) -> Callable[..., Tensor]:
        """The sum of nats: compiled with ``--compile``; over ranks, whose weights meet in a forward, of all logits.

        There the blocks of the model are what is compiled.
        """
        if self.ranks.mesh is not None:
            return samples.likelihood_of_logits
        return samples.compiled_likelihood() if self.config.compile else samples.likelihood

    def first_bad_tensor(self, step: int) -> str:
        """Name the first tensor that is not finite on batch ``step``."""
        inputs, _, documents = self.batch(step)

        def forward() -> None:
            with self.autocast:
                self.model(inputs, documents=documents)

        return first_bad_tensor(self.model, forward, self.ranks)

    def validate(self, *, whole: bool) -> Judged:
        """Score the held-out text, as much as ``--final-eval-tokens`` says, or its first ``--eval-tokens`` tokens."""
        tokens = None if whole or self.config.eval_tokens >= EVERY_TOKEN else self.config.eval_tokens
        with self._loads() as loads:
            score = self.score(tokens=tokens)
        words = f"loss {score.loss:.3f}, {score.bits_per_byte:.3f} bits/byte"
        if whole:
            words = f"{self.held_out.words(score)}: loss {score.loss:.4f}, {score.bits_per_byte:.4f} bits/byte"
        balance = violations(experts(self.model), list(loads.values()))
        if balance:
            words += f", MaxVio {balance['moe_max_violation']:.3f}"
        others = self._score_averages(tokens)
        words += "".join(f", {name} {others[f'{name}_loss']:.4g}" for name in self.averages.names)
        return Judged(score.loss, _seen(score), {"bits_per_byte": score.bits_per_byte, **balance, **others}, words)

    def _loads(self) -> AbstractContextManager[dict[str, Any]]:
        """How experts are loaded inside. Where compiled models are made eager the compiler is loaded, used or not."""
        watched = self.config.compile or self.config.moe_experts is not None
        return nn.experts.expert_loads(self.model) if watched else nullcontext({})

    def _score_averages(self, tokens: int | None) -> dict[str, float]:
        """Loss and bits a byte of the averaged weights, of each kind that there is."""
        figures: dict[str, float] = {}
        for name in self.averages.names:
            with self.averages.applied(name) as known:
                score = self.score(tokens=tokens)
            figures |= {f"{name}_loss": score.loss, f"{name}_bits_per_byte": score.bits_per_byte, **known}
        return figures

    def score(self, *, tokens: int | None = None) -> Score:
        """Nats on the first ``tokens`` held-out tokens; without a number on those of ``--final-eval-tokens``."""
        self.model.eval()
        pace, total = Pace("tokens"), self.held_out.count(tokens)
        # A batch that does not count would count for the loads of experts: there every rank judges all.
        dealt, batches = self.config.moe_experts is None, self.held_out.batches(tokens)
        score = evaluate(
            self.model,
            self.ranks.deal(batches) if dealt else batches,
            byte_lengths=self.text.tokenizer.byte_lengths,
            autocast=self.autocast,
            device=self.device,
            end_of_text=self.text.tokenizer.end_of_text if self.config.packing == "documents" else None,
            score=BlankLikelihood() if self._is_blank() else self.likelihood,
            rows=self.config.micro_batch if self.config.compile else 0,
            told=lambda done: pace("validation", done, total),
        )
        self.model.train()
        return self.over_ranks(score) if dealt else score

    def _is_blank(self) -> bool:
        """Whether what a validation finds is known before: no expert has to be counted, and no graph made."""
        plain = self.likelihood is samples.likelihood and self.config.moe_experts is None
        return plain and is_blank(self.model)

    def over_ranks(self, score: Score) -> Score:
        """The score of all ranks together."""
        nats, tokens, size = self.ranks.sums(score.nats, score.tokens, score.bytes)
        return Score(nats, int(tokens), int(size))

    def sample(self, folder: RunFolder, *, step: int) -> None:
        """Append samples of this moment to ``samples.txt``."""
        if not self.config.sample_tokens:
            return
        # A graph for every length would be one too many. Where nothing is compiled, asking for none loads the compiler.
        eagerly = torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext()
        with self.autocast, eagerly, open(folder.samples, "a", encoding="utf-8") as file:
            for i, prompt in enumerate(samples.prompts(self.text.opening())):
                written = samples.write(
                    self.model,
                    self.text.tokenizer,
                    prompt,
                    tokens=self.config.sample_tokens,
                    context=self.config.longest,
                    generator=data.streams.generator(self.config.seed, "sample", step, i),
                )
                title = f"prompt {prompt.strip()!r}" if prompt else "no prompt"
                file.write(f"=== step {step}, {title}\n{written}\n")

    def summary(self, judged: Judged, *, steps: int) -> tuple[dict[str, object], list[str]]:
        """Loss and bits a byte, beside what ``xz`` makes of the same text."""
        xz = data.text.compressed_bits_per_byte(self.held_out.bytes_at_the_end())
        row: dict[str, object] = {
            "validation_loss": judged.loss,
            "bits_per_byte": judged.figures["bits_per_byte"],
            "xz_bits_per_byte": xz,
            "validation_bytes": judged.seen["bytes"],
            "validation_tokens": judged.seen["tokens"],
            "held_out_tokens": len(self.held_out),
            "epochs": self.stream.epoch(steps),
            **{
                name: value
                for name, value in judged.figures.items()
                if name.startswith(("moe_", "average_", "decayed_"))
            },
        }
        if isinstance(self.stream, data.Mixture):
            row["epochs_by_source"] = dict(zip(self.text.names, self.stream.epochs(steps), strict=True))
        return row, [f"xz -6 on the same bytes: {xz:.4f} bits/byte (it has seen nothing else, and needs no training)"]

    def matrices(self) -> set[torch.nn.Parameter]:
        """The weights of the linear layers and of the experts inside the blocks."""
        modules = self.model.blocks.modules()
        holders = (m for m in modules if isinstance(m, torch.nn.Linear) or hasattr(m, "logical_matrices"))
        return {p for m in holders for p in m.parameters(recurse=False) if p.ndim > 1}

    def rates(self) -> dict[torch.nn.Parameter, float]:
        """What ``--vector-lr``, ``--head-lr`` and ``--embedding-lr`` say; a tied head is the embedding."""
        config, model, matrices = self.config, self.model, self.matrices()
        rest = [p for p in model.parameters() if p not in matrices]
        named = {model.head.weight: config.head_lr, model.embedding.weight: config.embedding_lr}
        return {p: named.get(p, config.vector_lr) or 1.0 for p in rest}

    def watch_list(self) -> list[str]:
        """All parameters of the first and the last block: the rest lie between."""
        ends = ("blocks.0.", f"blocks.{self.config.depth - 1}.")
        return [name for name, _ in self.model.named_parameters() if name.startswith(ends)]

    @torch.no_grad()
    def activations(self) -> list[dict[str, object]]:
        """What queries, attention, feed-forward blocks and the last norm give on four held-out sequences at most."""
        rows = min(4, self.config.micro_batch)
        held_out = self.text.validation[: rows * self.config.block + 1]
        batches = data.validation_batches(held_out, block=self.config.block, batch=rows)
        inputs, _ = next(iter(batches))
        self.model.eval()
        with nn.activations.statistics(self.model, _LOOKED_AT) as seen, self.autocast:
            self.model(inputs.to(self.device))
        self.model.train()
        return [{"name": name, **found.row()} for name, found in seen.items()]

    def cost(self) -> str:
        """Floating-point operations of forward and backward."""
        return f"{6 * sum(p.numel() for p in self.model.parameters()) / 1e6:.3g} MFLOP a token"


def _seen(score: Score) -> dict[str, int]:
    return {"tokens": score.tokens, "bytes": score.bytes}


def _micro_batches(
    inputs: Tensor, targets: Tensor, documents: Tensor | None, size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    parts = inputs.split(size), targets.split(size)
    owners = documents.split(size) if documents is not None else [None] * len(parts[0])
    yield from zip(*parts, owners, strict=True)
