"""A job: what a run learns and how it is judged. The loop knows nothing else of it."""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import torch
from torch import Tensor, nn

from spectrain import nn as blocks
from spectrain import optim
from spectrain._arrays.spread import is_spread
from spectrain.train._mesh.ranks import ALONE, Ranks, name_ranks
from spectrain.train._run.config import Config
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.jobs import job_class


@dataclass(frozen=True)
class Measured:
    """What the gradient of one batch cost and found."""

    loss: float
    """Mean loss of the batch: what was differentiated."""
    seen: dict[str, int]
    """How much of each of the job's units the batch held."""
    figures: dict[str, float] = field(default_factory=dict)
    """More figures for the row of this step."""
    words: str = ""
    """The figures as a line on the screen says them."""
    data_seconds: float = 0.0
    """How long it waited for the batch."""


@dataclass(frozen=True)
class Judged:
    """What a validation found."""

    loss: float
    seen: dict[str, int]
    figures: dict[str, float]
    words: str


class AbstractJob(abc.ABC, Generic[Config]):
    """Data, model, loss and judgement of a run, by a configuration of its own class.

    Life: ``__init__`` reads the data; :meth:`build` makes the model of a full configuration; then the
    loop asks for gradients, validations and samples, and at the end for the summary. Batch ``step`` must
    be a function of the configuration and ``step`` alone, so that a resumed run needs no position.
    """

    config: Config
    """That of the run: as it was asked for until :meth:`build`, then full."""
    units: tuple[str, ...]
    """What batches consist of, by name; the first is the unit of speed."""
    model: nn.Module
    device: torch.device
    autocast: torch.autocast
    ranks: Ranks = ALONE
    """The processes that do this job together; only one that says so (``RunConfig.wish``) has several."""
    fingerprint: str
    """A digest of the data; a run resumes on the same data only."""

    @abc.abstractmethod
    def __init__(self, config: Config, folder: RunFolder, *, resuming: bool) -> None: ...

    @classmethod
    def begun(cls, config: Config) -> Config:
        """The configuration of a new run, with what another run decides where this one goes on from that."""
        return config

    @classmethod
    def of(cls, given: Any) -> "Callable[..., AbstractJob[Config]]":
        """What makes a job out of what the caller of ``train`` gave; the jobs of the command know all themselves."""
        raise ValueError(f"job= goes with train.JobConfig; {cls.__name__} knows what it trains. Leave it out.")

    @abc.abstractmethod
    def about_data(self) -> list[str]:
        """Lines for the screen about what was read."""

    @abc.abstractmethod
    def keep(self, folder: RunFolder) -> None:
        """Write what the trained model will need besides its weights."""

    def leave(self, folder: RunFolder) -> None:
        """Write at the end what the trained model is besides its weights."""

    @abc.abstractmethod
    def build_model(self, config: Config) -> nn.Module:
        """The model of a full configuration, at its initial weights."""

    def build(self, config: Config, *, device: torch.device) -> None:
        """Make the model of a full configuration, which also says its precision."""
        self.config, self.device = config, device
        self.model = self.build_model(config).to(device)
        self.divide_model()
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.autocast == "bfloat16")

    def divide_model(self) -> None:
        """Give every rank its part of the model, where there are several."""
        assert self.ranks.alone, f"{type(self).__name__} is a job of one process"

    @abc.abstractmethod
    def accumulate(self, step: int) -> Measured:
        """Leave the gradient of the mean loss over batch ``step`` in ``p.grad``, whatever the micro-batches."""

    def after_step(self, lr_factor: float) -> Mapping[str, object]:
        """Whatever must follow an optimizer step of ``lr_factor`` times the peak rate; figures for the step's row."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold besides model and optimizer, such as averaged weights."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        assert not state, f"{type(self).__name__} has no state of its own"

    def averaged(self) -> dict[str, Tensor] | None:
        """A state dict of averaged weights, to be kept beside the model's own at the end; None where there are none."""
        return None

    @abc.abstractmethod
    def first_bad_tensor(self, step: int) -> str:
        """Name the first tensor that is NaN or infinite on batch ``step``."""

    @abc.abstractmethod
    def validate(self, *, whole: bool) -> Judged:
        """Judge the model on held-out data: on all of it, or on the part that is used on the way."""

    @abc.abstractmethod
    def sample(self, folder: RunFolder, *, step: int) -> None:
        """Append something to look at; draws depend on the configuration and ``step`` only."""

    @abc.abstractmethod
    def summary(self, judged: Judged, *, steps: int) -> tuple[dict[str, object], list[str]]:
        """The job's part of ``summary.json`` after the last validation, and lines for the screen."""

    @abc.abstractmethod
    def matrices(self) -> set[nn.Parameter]:
        """The parameters that decay where AdamW trains all: those that Muon would take."""

    def rates(self) -> Mapping[nn.Parameter, float]:
        """Learning rates of parameters outside of the matrices, as multiples of ``--lr``; 1 where nothing is said."""
        return {}

    def rules(self) -> Mapping[str, Any]:
        """How ``optim.route`` is to see parameters otherwise than by their modules, by name."""
        return {}

    def heads(self) -> Sequence[str] | None:
        """Patterns of the names of output heads, for ``optim.route``; None: what the modules say."""
        return None

    def parametrisation(self) -> optim.Parametrisation | None:
        """How learning rates and decay follow from roles and width; None: one rate for all."""
        return None

    @abc.abstractmethod
    def watch_list(self) -> list[str]:
        """Names of the parameters whose spectra are recorded."""

    def activations(self) -> list[dict[str, object]]:
        """Statistics of inner outputs on held-out data, a row a name, recorded where spectra are."""
        return []

    @abc.abstractmethod
    def cost(self) -> str:
        """What one unit of data costs, in words."""


@torch.no_grad()
def first_bad_tensor(model: nn.Module, forward: Callable[[], object], ranks: Ranks = ALONE) -> str:
    """Name the first tensor that is NaN or infinite: weights, then outputs as computed, then gradients.

    ``forward`` runs the model on the batch in question. Of several ranks those are named that have it; all say the
    same.
    """
    for look in (_bad_weight, lambda model: _bad_output(model, forward), _bad_gradient):
        said = ranks.gather(look(model))
        found = next((words for words in said if words), None)
        if found is not None:
            where = [rank for rank, words in enumerate(said) if words == found]
            return f"{found} is not finite" + ("" if ranks.alone else f" on {name_ranks(where)}")
    return "the loss is not finite although weights, outputs and gradients are"


def _bad_weight(model: nn.Module) -> str | None:
    return next((f"weight {name}" for name, p in model.named_parameters() if not is_finite(p)), None)


def _bad_output(model: nn.Module, forward: Callable[[], object]) -> str | None:
    with blocks.capture(model, "*") as seen:
        forward()
    for name, outputs in seen.items():
        if not all(is_finite(output) for output in outputs if isinstance(output, Tensor)):
            return f"the output of {name or 'the model'}"
    return None


def _bad_gradient(model: nn.Module) -> str | None:
    graded = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    return next((f"the gradient of {name}" for name, grad in graded if not is_finite(grad)), None)


def is_finite(tensor: Tensor) -> bool:
    """Whether all entries are, of a tensor that is spread those on this rank."""
    held = tensor.to_local() if is_spread(tensor) else tensor
    return bool(held.isfinite().all())


def load_job(
    config: Config, folder: RunFolder, *, resuming: bool, ranks: Ranks = ALONE, given: Any = None
) -> AbstractJob[Config]:
    """Read the data of a configuration's job; on each rank, which must all find the same.

    ``given``: what the caller of ``train`` gave to be trained.
    """
    kind: type[AbstractJob[Config]] = job_class(config.job)
    make = kind if given is None else kind.of(given)
    job = ranks.by_all(lambda: make(config, folder, resuming=resuming))
    job.ranks = ranks
    ranks.same("data", f"digest {job.fingerprint}", cure="Give all ranks the same files, and the same tokenizer.")
    return job
