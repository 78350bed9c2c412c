"""Averages of the weights beside a run: one to judge and keep, and an estimate of what a decay phase would reach."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from spectrain import optim
from spectrain.train._mesh.ranks import let_go
from spectrain.train.config import TrainConfig

_PARTS = (16, 8, 4, 2)
"""Half-lives of a decay phase's estimate, as parts of it."""


def copies(config: TrainConfig) -> int:
    """How many averages of all weights a run keeps, each in float32.

    >>> copies(TrainConfig(average=0.1, decay_estimate=50, schedule="wsd"))
    5
    """
    return (config.average is not None) + len(_PARTS) * (config.decay_estimate is not None)


class Averages:
    """What ``--average`` and ``--decay-estimate`` ask for, of one model; nothing where they ask for nothing.

    ``average`` has a half-life that grows with the run: a share of the steps so far, as that of ``spectrain draw``.
    ``decayed`` takes in the weights of steps at the peak rate only, of which it estimates the decay. Over ranks each
    averages its own part of the weights.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, matrices: set[nn.Parameter]) -> None:
        self._model, self._config = model, config
        self._decaying = {name for name, p in model.named_parameters() if p in matrices}
        self._at_peak = False
        self._kept: dict[str, optim.WeightAverage] = {}
        if config.average is not None:
            self._kept["average"] = optim.WeightAverage(model, half_lives=[config.average])
        if config.decay_estimate is not None:
            lives = [config.decay_estimate / part for part in _PARTS]
            self._kept["decayed"] = optim.WeightAverage(model, half_lives=lives)

    def update(self, lr_factor: float) -> None:
        """Take in the weights after a step of ``lr_factor`` times the peak rate."""
        self._at_peak = lr_factor == 1.0
        for name, average in self._kept.items():
            if name == "average":
                average.update(math.log1p(1 / (average.updates + 1)))
            elif self._at_peak:
                average.update()

    @property
    def names(self) -> list[str]:
        """Those that can be judged now."""
        return [name for name in self._kept if self._ready(name)]

    @contextmanager
    def applied(self, name: str) -> Iterator[dict[str, float]]:
        """Inside, the model has the weights of that name; what is known of them besides, as figures."""
        let_go(self._model)
        kept = self._kept[name]
        weights, figures = (None, {}) if name == "average" else self._decayed(kept)
        with kept.applied(weights=weights):
            yield figures
        let_go(self._model)

    def averaged(self) -> dict[str, Tensor] | None:
        """A state dict of the model with averaged weights; None where there are none."""
        let_go(self._model)
        return self._kept["average"].averaged() if "average" in self.names else None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; empty where nothing is averaged."""
        kept: dict[str, Any] = {name: average.state_dict() for name, average in self._kept.items()}
        return {**kept, "at_peak": self._at_peak} if kept else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        for name, average in self._kept.items():
            average.load_state_dict(state[name])
        self._at_peak = state.get("at_peak", False)

    def _ready(self, name: str) -> bool:
        updates, decay = self._kept[name].updates, self._config.decay_estimate
        return updates > 0 if decay is None or name == "average" else self._at_peak and updates >= decay

    def _decayed(self, kept: optim.WeightAverage) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The estimate, in which only matrices have shrunk, and the error of its weights over time."""
        decay, config = self._config.decay_estimate, self._config
        assert decay is not None
        assert config.lr is not None
        plain, error = kept.decayed(decay)
        shrunk, other = kept.decayed(decay, shrink=config.lr * config.weight_decay)
        weights = {name: shrunk[name] if name in self._decaying else value for name, value in plain.items()}
        return weights, {"decayed_error": max(error, other)}
