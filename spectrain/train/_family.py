"""Members of a family of models that differ in width, over text that is read once."""

import dataclasses
from pathlib import Path

import torch

from spectrain.train import _step
from spectrain.train._device import choose_device
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run import session as _session
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.session import Session
from spectrain.train._studies.check_config import CheckConfig


class Family:
    """Sessions of every width and seed of a :class:`CheckConfig`; nothing is written."""

    def __init__(self, config: CheckConfig) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = dataclasses.replace(config, device=choose_device(config.device))
        self._jobs: dict[int, LanguageJob] = {}

    def session(self, width: int, seed: int, *, lr: float | None = None) -> Session:
        """A model at its initial weights with its optimizer and batches."""
        member, folder = self.config.member(width, seed, lr=lr), RunFolder(Path())
        if seed not in self._jobs:
            self._jobs[seed] = LanguageJob(member, folder, resuming=False)
        return _session.build(member, folder, self._jobs[seed])


def advance(session: Session) -> float:
    """One optimizer step; return the mean loss of its batch, before it.

    Raises FloatingPointError where numbers are no longer finite.
    """
    session.set_learning_rate()
    result = _step.step(session.job, session.optimizer, session.counters.step, clip=session.clip_gradients)
    session.job.after_step(session.lr_factor)
    session.counters.step += 1
    return result.measured.loss
