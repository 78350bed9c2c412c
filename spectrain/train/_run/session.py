"""A run in memory: job, optimizer and counters, built from a configuration or a checkpoint."""

import functools
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from spectrain import optim
from spectrain.train._mesh.bounds import Bounds
from spectrain.train._mesh.failing import shared
from spectrain.train._mesh.whole import gathered
from spectrain.train._run import checkpoint as _checkpoint
from spectrain.train._run.config import RunConfig
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.horizon import factors
from spectrain.train._run.job import AbstractJob, is_finite
from spectrain.train._run.machine import choose_device
from spectrain.train._run.optimizer import build_optimizer

if TYPE_CHECKING:
    from spectrain.train._run.writing import Writing


@dataclass
class Counters:
    """How far a run has come; stands in every checkpoint."""

    step: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    optimizer_seconds: float = 0.0
    data_seconds: float = 0.0
    step_seconds: list[float] = field(default_factory=list)

    def add(self, seen: dict[str, int]) -> None:
        """Count what a batch consisted of."""
        self.seen = {name: self.seen[name] + count for name, count in seen.items()}


@dataclass
class Session:
    """All that a run consists of between two steps."""

    config: RunConfig
    folder: RunFolder
    job: AbstractJob[Any]
    optimizer: torch.optim.Optimizer
    counters: Counters = field(default_factory=Counters)
    started: float = field(default_factory=time.perf_counter)
    _writing: "Writing | None" = None

    @property
    def model(self) -> torch.nn.Module:
        """The job's model."""
        return self.job.model

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None while a clock has still to tell."""
        return self.config.horizon

    @property
    def seconds(self) -> float:
        """Seconds spent so far, those before a resume included."""
        return self.counters.seconds + time.perf_counter() - self.started

    @property
    def lr_factor(self) -> float:
        """Where the schedule stands at this step: the share of the peak learning rate."""
        return factors(self.config, self.counters.step, steps=self.steps).lr

    def set_learning_rate(self) -> float:
        """Put this step's learning rate, and the decay where it moves, into the optimizer; return the rate."""
        assert self.config.lr is not None
        lr, decay = factors(self.config, self.counters.step, steps=self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * lr * group.get("lr_factor", 1.0)  # a factor of optim.mup
            if decay != 1.0:
                group["weight_decay"] = decay * group.setdefault("initial_weight_decay", group["weight_decay"])
        return self.config.lr * lr

    def clip_gradients(self) -> float:
        """Clip the gradients to the global norm of ``--clip``; return the norm of all of them.

        Matrices are one part and all else is another, each clipped by its own norm, so that what moves the matrices
        changes nothing elsewhere. Muon's matrices are left alone: their update has no scale that clipping could shrink.
        """
        limit = self.config.clip or math.inf
        if isinstance(self.optimizer, optim.Muon):
            return optim.clip_grad_norm_(self.optimizer, limit).total.item()
        matrices, rest = self._parts
        free = self.config.optimizer == "torch-muon"
        norms = [
            torch.nn.utils.clip_grad_norm_(matrices, math.inf if free else limit),
            torch.nn.utils.clip_grad_norm_(rest, limit),
        ]
        return math.hypot(*(gathered(norm).item() for norm in norms))

    @functools.cached_property
    def _parts(self) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
        """The matrices and all else: found once, since a step should not walk through the modules."""
        matrices = self.job.matrices()
        inside, outside = ([p for p in self.model.parameters() if (p in matrices) == held] for held in (True, False))
        return inside, outside

    def save(self) -> None:
        """Write a checkpoint of this moment; of several ranks while training goes on, until :meth:`settle`.

        Raises ``FloatingPointError`` naming the first weight that is not finite: nothing worth keeping.
        """
        self.settle()
        bad = next((name for name, p in self.model.named_parameters() if not is_finite(p)), None)
        name = next(filter(None, self.job.ranks.gather(bad)), None)
        if name is not None:
            raise shared(FloatingPointError(f"weight {name} is not finite after step {self.counters.step}"))
        state: dict[str, Any] = {
            "job": self.job.state_dict(),
            "counters": {**vars(self.counters), "seconds": self.seconds},
            "torch_rng": torch.get_rng_state(),
            "sizes": self.folder.sizes(),  # on the disk before the checkpoint that counts on them
        }
        place = {"step": self.counters.step, "keep": self.config.keep_last}
        if self.job.ranks.alone:
            state["optimizer"] = self.optimizer.state_dict()
            self._tell(_checkpoint.save(self.folder.checkpoints, self.model, state, config=self.folder.config, **place))
        else:
            from spectrain.train._run.writing import Writing  # torch's checkpoints, which one process does without

            self._writing = Writing(self.folder, self.model, self.optimizer, state, self.job.ranks, **place)

    def settle(self) -> None:
        """Wait for the checkpoint that is being written; ``OSError`` where it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.settle()
            self._tell(_checkpoint.at(self.folder.checkpoints, writing.step))

    def _tell(self, written: _checkpoint.Checkpoint) -> None:
        """Say that a checkpoint is on the disk."""
        self.folder.tell("checkpoint", {"step": written.step, "path": written.path})

    def restore(self, checkpoint: _checkpoint.Checkpoint) -> str | None:
        """Go back to the moment of a checkpoint, rows of metrics included; say what other versions wrote it, if any."""
        # Refuses what is damaged before anything here changes.
        state = _checkpoint.restore(checkpoint, self.model, self.optimizer, self.job.state_dict(), self.job.ranks)
        self.job.load_state_dict(state["job"])
        torch.set_rng_state(state["torch_rng"])  # last of the state: what loads may draw, as making the model did
        self.counters = Counters(**state["counters"])
        if self.job.ranks.first:  # rows after the checkpoint are lost from here on: only now is it certain to hold
            self.folder.cut(state["sizes"])
        self.started = time.perf_counter()
        return _checkpoint.other_versions(state)


def build(config: RunConfig, folder: RunFolder, job: AbstractJob[Any]) -> Session:
    """Model and optimizer of a full configuration (nothing left to measure)."""
    job.build(config, device=torch.device(choose_device(config.device)))
    counters, optimizer = Counters(seen=dict.fromkeys(job.units, 0)), build_optimizer(config, job)
    if config.bound is not None and not job.ranks.alone:
        Bounds(optimizer, bound=config.bound, by=config.bound_by)
    return Session(config=config, folder=folder, job=job, optimizer=optimizer, counters=counters)
