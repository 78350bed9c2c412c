"""A job of one's own: somebody's module on somebody's examples, in the loop that trains all others."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from spectrain import data, optim
from spectrain.train._jobs.examples import digest, draws_of, fetch, to_device
from spectrain.train._jobs.own_config import JobConfig
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.job import AbstractJob, Judged, Measured, first_bad_tensor

_WATCHED = 3
_TAKEN = ("kind", "step", "loss", "seconds", "examples")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train and how it is judged: a module, examples, a loss. ``train.train(config, job=job)`` does the rest.

    ``model`` makes the module at its first weights; what it draws from torch's global generator belongs to the seed of
    the run. ``data`` and ``held_out`` are data sets with ``len`` and ``[i]``, as torch's; ``collate`` makes a batch of
    a list of examples (``default_collate`` where nothing is said). Data in tensors is
    ``data=range(n), collate=lambda i: (x[i], y[i])``. ``loss(model, batch)`` is the *mean* loss of the batch, a tensor
    of one number: under micro-batches means are weighted by the number of examples. ``judge(model, batch)`` gives more
    figures of a held-out batch by name, means over its examples.

    ``rules`` and ``heads`` are those of ``optim.route``, and say which parameters Muon moves where the module does not.

    Step t sees the examples that seed and t decide, each once in an epoch; dropout and augmentation that draw from
    torch's global generator belong to seed and t as well. So a run that was stopped goes on bit for bit. Examples that
    change when they are read twice (``random``, NumPy's global generator) are refused.

    Raises ``TypeError`` for a module instead of what makes it, for data without length; ``ValueError`` for empty data.

    >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    >>> job = Job(
    ...     model=lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)),
    ...     data=range(48), held_out=range(48, 64), collate=lambda i: x[i],
    ...     loss=lambda model, batch: (model(batch) - batch.flip(1)).square().mean(), heads=["2.weight"],
    ... )
    >>> len(job.data)
    48
    """

    model: Callable[[], torch.nn.Module]
    data: Any
    held_out: Any
    loss: Callable[[torch.nn.Module, Any], Tensor]
    judge: Callable[[torch.nn.Module, Any], Mapping[str, Any]] | None = None
    collate: Callable[[Any], Any] = default_collate
    rules: Mapping[str, Any] = field(default_factory=dict)
    heads: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what no run can begin with, naming the field."""
        if isinstance(self.model, torch.nn.Module):
            raise TypeError(
                "train.Job: model must make the module, got the module itself, whose weights a second run would begin "
                "with as the first left them. Give a function: model=lambda: Net(...)."
            )
        for name in ("data", "held_out"):
            examples = getattr(self, name)
            if isinstance(examples, torch.utils.data.DataLoader) or not _is_sized(examples):
                raise TypeError(
                    f"train.Job: {name} must have len() and [i], got {type(examples).__name__}: a run that goes on has "
                    "to find its place again. Give the data set itself, or data=range(n) and collate=, which gets "
                    "numbers of examples."
                )
            if not len(examples):
                raise ValueError(f"train.Job: {name} is empty; give one example at least.")


def _is_sized(examples: object) -> bool:
    return hasattr(examples, "__len__") and (hasattr(examples, "__getitem__") or hasattr(examples, "__getitems__"))


class OwnJob(AbstractJob[JobConfig]):
    """The loop's view of a :class:`Job`."""

    units = ("examples",)

    def __init__(self, config: JobConfig, folder: RunFolder, *, resuming: bool, given: Job | None = None) -> None:
        if given is None:
            raise ValueError("a run of train.JobConfig needs its job: train.train(config, job=train.Job(...)).")
        self.config, self.given = config, given
        self.device = torch.device("cpu")  # until the model is built
        self.stream = data.streams.IndexStream(len(given.data), batch=config.batch_size, seed=config.seed)
        self.fingerprint = self._digest()
        if self.fingerprint != self._digest():
            raise ValueError(
                "the first batch is another one when it is read again: a run that goes on would not see what it saw. "
                "Let examples draw from torch's global generator, which belongs to the step, or from one of their own "
                "seeded by their number (spectrain.data.streams.generator); not from random or numpy.random."
            )

    @classmethod
    def of(cls, given: Any) -> Callable[..., "OwnJob"]:
        """What makes the loop's view of a :class:`Job`."""
        return functools.partial(cls, given=given)

    def _digest(self) -> str:
        """A digest of the sizes, the first batch, and as many held-out examples."""
        held = self.given.held_out
        sizes = len(self.given.data), len(held)
        first = self._batch(self.stream.batch(0).tolist(), "step", 0)
        return digest(sizes, first, next(self._held_out(min(self.config.batch_size, len(held))))[0])

    def about_data(self) -> list[str]:
        """How many examples there are."""
        return [f"examples: {len(self.given.data):,} to learn from, {len(self.given.held_out):,} held out"]

    def keep(self, folder: RunFolder) -> None:
        """Nothing: the module is the caller's."""

    def build_model(self, config: JobConfig) -> torch.nn.Module:
        """The module as the job makes it, from draws that belong to the seed."""
        with draws_of(torch.device("cpu"), config.seed, "weights"):
            return self.given.model().train()

    def accumulate(self, step: int) -> Measured:
        """Leave the gradient of the mean loss over batch ``step`` in ``p.grad``."""
        numbers, total, waited = self.stream.batch(step), 0.0, 0.0
        for i, part in enumerate(numbers.split(self.config.micro_batch)):
            began = time.perf_counter()
            batch = self._batch(part.tolist(), "step", step, i)
            waited += time.perf_counter() - began
            with draws_of(self.device, self.config.seed, "model", step, i):
                share = self._loss(batch) * (len(part) / len(numbers))
                share.backward()
            total += share.item()
        return Measured(total, {"examples": len(numbers)}, words=f"loss {total:.4f}", data_seconds=waited)

    def _batch(self, numbers: Sequence[int], *keys: int | str, held_out: bool = False) -> Any:
        """A batch on the device; what its examples draw belongs to ``keys``."""
        examples = self.given.held_out if held_out else self.given.data
        with draws_of(torch.device("cpu"), self.config.seed, "examples", *keys):
            return to_device(fetch(examples, numbers, self.given.collate), self.device)

    def _loss(self, batch: Any) -> Tensor:
        with self.autocast:
            loss = self.given.loss(self.model, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"train.Job: loss must give the mean of a batch, a tensor of one number, got {got}.")
        return loss.float().reshape(())

    def first_bad_tensor(self, step: int) -> str:
        """Name the first tensor that is not finite on batch ``step``."""
        part = self.stream.batch(step)[: self.config.micro_batch].tolist()
        return first_bad_tensor(self.model, lambda: self._loss(self._batch(part, "step", step, 0)))

    @torch.no_grad()
    def validate(self, *, whole: bool) -> Judged:
        """The mean loss, and what the job judges besides, over the held-out examples or the first of them."""
        held = len(self.given.held_out)
        count = held if whole else min(self.config.eval_examples, held)
        sums: dict[str, float] = {}
        self.model.eval()
        for number, (batch, size) in enumerate(self._held_out(count)):
            with draws_of(self.device, self.config.seed, "held out", number):
                found = {"loss": self._loss(batch).item(), **self._judge(batch)}
            sums = {name: sums.get(name, 0.0) + size * value for name, value in found.items()}
        self.model.train()
        figures = {name: value / count for name, value in sums.items()}
        words = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        words = f"{held:,} held-out examples: {words}" if whole else words
        loss = figures.pop("loss")
        return Judged(loss, {"examples": count}, figures, words)

    def _held_out(self, count: int) -> Iterator[tuple[Any, int]]:
        """Batches of the first ``count`` held-out examples, with their sizes."""
        size = self.config.micro_batch
        for start in range(0, count, size):
            numbers = list(range(start, min(start + size, count)))
            yield self._batch(numbers, "held out", start, held_out=True), len(numbers)

    def _judge(self, batch: Any) -> dict[str, float]:
        if self.given.judge is None:
            return {}
        with self.autocast:
            found = self.given.judge(self.model, batch)
        taken = [name for name in _TAKEN if name in found]
        if taken:
            raise ValueError(f"train.Job: judge cannot call a figure {taken[0]!r}, which each row has; rename it.")
        return {name: float(value) for name, value in found.items()}

    def sample(self, folder: RunFolder, *, step: int) -> None:
        """Nothing: what a module makes is shown by a callback."""

    def summary(self, judged: Judged, *, steps: int) -> tuple[dict[str, object], list[str]]:
        """The figures of the last validation."""
        row = {"validation_loss": judged.loss, **judged.figures, "held_out_examples": judged.seen["examples"]}
        return {**row, "epochs": self.stream.epoch(steps)}, []

    @functools.cached_property
    def _routes(self) -> list[dict[str, Any]]:
        return optim.route(self.model, rules=self.given.rules, heads=self.given.heads)

    def matrices(self) -> set[torch.nn.Parameter]:
        """The parameters that Muon takes."""
        groups = (group for group in self._routes if group["algorithm"] == "muon")
        return {p for group in groups for _, p in group["params"]}

    def rules(self) -> Mapping[str, Any]:
        """Those of the job."""
        return self.given.rules

    def heads(self) -> Sequence[str] | None:
        """Those of the job."""
        return self.given.heads

    def watch_list(self) -> list[str]:
        """The first and the last matrices of Muon's."""
        matrices = self.matrices()
        names = [name for name, p in self.model.named_parameters() if p in matrices]
        return names if len(names) <= 2 * _WATCHED else names[:_WATCHED] + names[-_WATCHED:]

    def cost(self) -> str:
        """How many examples a step takes."""
        return f"{self.config.batch_size} examples a step"
