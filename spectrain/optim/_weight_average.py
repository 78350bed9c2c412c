"""Averages of the weights over training, several at once, and any other half-life after the fact."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from spectrain.optim._layout.spread import local, spread_like
from spectrain.optim._profile import combination, decayed_profile, profile
from spectrain.optim._schedule import TAILS

FAR = 0.1  # relative error from which a synthesized average is another one
Buffers: TypeAlias = Literal["live", "average"]


class WeightAverage:
    r"""Exponential averages of a model's weights, one for each of several half-lives.

    After ``update(amount)`` the average of half-life h is

        A_t = sum_s 2^(-(n_t - n_s) / h) w_s theta_s / sum_s 2^(-(n_t - n_s) / h) w_s,    w_s = 1 - 2^(-amount_s / h),

    n_t the amount so far, in the unit in which the half-lives are given: steps (amount 1, the default), tokens, or
    anything else that adds up. The initial weights are not part of it, so that no warm-up of the decay is needed.

    Averages are kept in ``dtype`` (float32) whatever the weights are, and lie on ranks as the weights do. ``buffers``:
    ``"live"`` leaves buffers such as a balancing bias as they are in the model; ``"average"`` averages those of
    floating point (batch-norm statistics); a mapping from patterns of names to these two decides one by one, ``"live"``
    where none matches. Cost: one pass over the weights for each half-life and update.

    Raises ValueError for half-lives that are not positive, RuntimeError for saving or updating inside ``applied``.
    Several averages give any half-life between them afterwards (``synthesize``; Karras et al., arXiv 2312.02696), and
    an estimate of what a decay of the learning rate would give (``decayed``).

    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(model, half_lives=[1.0])
    >>> for value in (2.0, 5.0):
    ...     _ = model.weight.data.fill_(value)
    ...     average.update()
    >>> with average.applied():
    ...     model.weight.item()
    4.0
    >>> model.weight.item()
    5.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        half_lives: Sequence[float | int],
        buffers: Buffers | Mapping[str, Buffers] = "live",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        lives = tuple(float(life) for life in half_lives)
        if not lives or not all(0 < life < float("inf") for life in lives) or len(set(lives)) < len(lives):
            raise ValueError(f"WeightAverage: half_lives must be positive, finite and distinct, got {half_lives}.")
        rules = dict(buffers) if isinstance(buffers, Mapping) else {"*": buffers}
        names = [name for name, _ in model.named_buffers()]
        idle = [pattern for pattern in rules if pattern != "*" and not any(fnmatchcase(n, pattern) for n in names)]
        if any(rule not in ("live", "average") for rule in rules.values()) or idle:
            raise ValueError(
                "WeightAverage: buffers must be 'live' or 'average', or patterns of names with one of them each, "
                f"got {buffers!r}" + (f"; nothing matches {', '.join(idle)} among {', '.join(names)}." if idle else ".")
            )
        self.half_lives = lives
        self._model, self._buffers, self._applied = model, rules, False
        self._sources = _sources(model, rules)
        self._averages = {
            life: {name: torch.zeros_like(p, dtype=_wide(p, dtype)) for name, p in self._sources.items()}
            for life in lives
        }
        self._amounts: list[tuple[int, float]] = []

    @property
    def updates(self) -> int:
        """The number of updates so far."""
        return sum(count for count, _ in self._amounts)

    @torch.no_grad()
    def update(self, amount: float | int = 1.0) -> None:
        """Take in the present weights, which stand for ``amount`` of training in the unit of the half-lives."""
        self._outside("update")
        if not 0 < amount < float("inf"):
            raise ValueError(f"WeightAverage.update: amount must be positive, got {amount}.")
        self._sources = _sources(self._model, self._buffers)
        self._remember(float(amount))
        for life, averages in self._averages.items():
            share = self._share(life)
            targets = [local(a) for a in averages.values()]
            weights = [local(self._sources[name]).to(a.dtype) for name, a in averages.items()]
            torch._foreach_lerp_(targets, weights, share)

    @contextmanager
    def applied(
        self, half_life: float | int | None = None, *, weights: Mapping[str, Tensor] | None = None
    ) -> Iterator[None]:
        """Evaluate with averaged weights: inside, the model holds them; afterwards it has its own back, bit for bit.

        ``half_life``: one of those kept, or another one to synthesize; by default the only one or the longest. A
        warning says where the combination is off by more than 0.1.
        ``weights``: those of ``synthesize`` or ``decayed`` instead. Inside, ``state_dict()`` of the model and of its
        parts, pickling it, ``update`` and this object's ``state_dict`` raise RuntimeError, so that no checkpoint can be
        written from averaged weights by mistake; ``averaged()`` gives them for export.
        """
        self._outside("applied")
        values = self._values(max(self.half_lives) if half_life is None else half_life) if weights is None else weights
        self._sources = _sources(self._model, self._buffers)  # those of now: load_state_dict(assign=True) replaces them
        wrong = [name for name, p in self._sources.items() if name not in values or values[name].shape != p.shape]
        if wrong:
            raise ValueError(
                f"WeightAverage.applied: weights= lack these, or have them in other shapes: {', '.join(wrong)}."
            )
        own = {name: p.detach().clone() for name, p in self._sources.items()}
        guards = [m.register_state_dict_pre_hook(self._refuse_saving) for m in self._model.modules()]
        self._applied = True
        try:
            _copy(self._sources, values)
            yield
        finally:
            _copy(self._sources, own)
            self._applied = False
            for guard in guards:
                guard.remove()

    def averaged(self, half_life: float | int | None = None) -> dict[str, Tensor]:
        """Return a state dict of the model with averaged weights, for export; nothing is changed."""
        values = self._values(max(self.half_lives) if half_life is None else half_life)
        places = [
            *self._model.named_parameters(remove_duplicate=False),
            *self._model.named_buffers(remove_duplicate=False),
        ]
        first = {id(p): name for name, p in _sources(self._model, self._buffers).items()}
        source = {name: first[id(p)] for name, p in places if id(p) in first}
        return {
            name: values[source[name]].to(value.dtype) if name in source else value.detach().clone()
            for name, value in self._model.state_dict().items()
        }

    def synthesize(self, half_life: float | int) -> tuple[dict[str, Tensor], float]:
        """Return averages of another half-life, as the best combination of those kept, and its relative error.

        The error is that of the weights over time, ||found - wanted|| / ||wanted||: 0 is exact, above about
        0.1 the half-life asked for is too far from those kept.
        """
        self._outside("synthesize")
        history = self._history()
        if not len(history) or not 0 < half_life < float("inf"):
            raise ValueError(f"WeightAverage: needs an update and a positive half-life, got {half_life}.")
        return self._combined(profile(half_life, history), history)

    def decayed(
        self, decay: float | int, *, tail: str = "linear", shrink: float | int = 0.0
    ) -> tuple[dict[str, Tensor], float]:
        """Return an estimate of the weights that a decay phase ending now would have reached, and its relative error.

        For a run at constant learning rate, without branching it: ``decay`` is the length of the phase, in the unit of
        the half-lives, as if it had begun that long ago; ``tail`` the form of the fall, as for ``WarmupDecay``;
        ``shrink`` the product of learning rate and weight decay. The estimate rests on the updates of the run as it
        was, in place of those along the branch, and on the best combination of the averages; the error is that of the
        combination over time, as for ``synthesize``. Half-lives of 1/16, 1/8, 1/4 and 1/2 of the
        decay bring it to 0.32 for a linear tail, 0.21 for a cosine, 0.40 for sqrt.
        Evaluate inside ``applied(weights=...)``. Checked against real branches in ``tests/optim/test_decayed.py``.

        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = WeightAverage(model, half_lives=[0.25, 0.5, 1, 2])
        >>> for value in (1.0, 9.0, 2.0, 4.0):
        ...     _ = model.weight.data.fill_(value)
        ...     average.update()
        >>> weights, error = average.decayed(2)
        >>> round(weights["weight"].item(), 2), round(error, 2)  # the mean of 2 and 4
        (3.0, 0.0)
        """
        self._outside("decayed")
        history = self._history()
        if tail not in TAILS or not 0 < decay <= float(history.sum()) or not 0 <= shrink < 1:
            raise ValueError(
                f"WeightAverage.decayed: needs 0 < decay <= {history.sum():g}, the training so far, 0 <= shrink < 1 "
                f"and a tail of {', '.join(TAILS)}; got {decay}, {shrink} and {tail!r}."
            )
        return self._combined(decayed_profile(decay, history, TAILS[tail], shrink=shrink), history)

    def _combined(self, target: np.ndarray, history: np.ndarray) -> tuple[dict[str, Tensor], float]:
        """The combination of the averages whose weights over time are nearest to ``target``, and its error."""
        mix, error = combination(self.half_lives, target, history)
        kept = [self._averages[life] for life in self.half_lives]
        return {name: _mixed(mix, [values[name] for values in kept]) for name in self._sources}, error

    def state_dict(self) -> dict[str, Any]:
        """Return everything that ``load_state_dict`` needs to go on bit for bit; refused inside ``applied``."""
        self._outside("state_dict")
        return {
            "half_lives": list(self.half_lives),
            "amounts": [list(run) for run in self._amounts],
            "averages": [dict(self._averages[life]) for life in self.half_lives],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; ValueError where half-lives or weights are others."""
        self._outside("load_state_dict")
        if tuple(state["half_lives"]) != self.half_lives:
            raise ValueError(f"WeightAverage: saved half-lives {state['half_lives']}, here {list(self.half_lives)}.")
        for life, saved in zip(self.half_lives, state["averages"], strict=True):
            mine = self._averages[life]
            wrong = sorted(set(saved) ^ set(mine)) or [n for n in mine if saved[n].shape != mine[n].shape]
            if wrong:
                raise ValueError(f"WeightAverage: the saved averages are those of another model: {', '.join(wrong)}.")
            self._averages[life] = {
                name: spread_like(saved[name].clone().to(a.device, a.dtype), a) for name, a in mine.items()
            }
        self._amounts = [(int(count), float(amount)) for count, amount in state["amounts"]]

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be pickled inside ``applied``, and with it the model, whose hooks hold this object."""
        self._outside("applied: pickling or copying the model")
        return self.__dict__

    def _values(self, half_life: float | int) -> dict[str, Tensor]:
        if not self._amounts:
            raise RuntimeError("WeightAverage: there is no average before the first update.")
        if half_life in self._averages:
            return self._averages[half_life]
        weights, error = self.synthesize(half_life)
        if error > FAR:
            warnings.warn(
                f"WeightAverage: half-life {half_life} is too far from those kept, {list(self.half_lives)}: its "
                f"weights over time are off by {error:.2g} of their size. Keep a nearer one.",
                stacklevel=4,
            )
        return weights

    def _remember(self, amount: float) -> None:
        """Amounts so far, run-length coded: a run with equal steps is one entry."""
        if self._amounts and self._amounts[-1][1] == amount:
            self._amounts[-1] = (self._amounts[-1][0] + 1, amount)
        else:
            self._amounts.append((1, amount))

    def _history(self) -> np.ndarray:
        return np.concatenate([np.full(count, amount) for count, amount in self._amounts] or [np.zeros(0)])

    def _share(self, life: float) -> float:
        """The weight of the newest in the normalised average: (1 - decay) / (1 - product of all decays)."""
        total = sum(count * amount for count, amount in self._amounts)
        return float(np.expm1(-np.log(2) * self._amounts[-1][1] / life) / np.expm1(-np.log(2) * total / life))

    def _outside(self, what: str) -> None:
        if self._applied:
            raise RuntimeError(f"WeightAverage.{what} inside applied(): the model holds averaged weights there.")

    def _refuse_saving(self, *_: Any) -> None:
        self._outside("applied: model.state_dict()")


def _sources(model: nn.Module, rules: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors that are averaged: floating-point parameters, and buffers by rule; shared ones once."""
    kept = [
        (name, buffer)
        for name, buffer in model.named_buffers()
        if next((rule for pattern, rule in rules.items() if fnmatchcase(name, pattern)), "live") == "average"
    ]
    tensors = [*model.named_parameters(), *kept]
    return {name: tensor for name, tensor in tensors if tensor.is_floating_point()}


def _wide(p: Tensor, dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(p.dtype, dtype)


@torch.no_grad()
def _copy(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in into.items():
        tensor.copy_(values[name])


def _mixed(mix: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    found = torch.zeros_like(tensors[0])
    for c, tensor in zip(mix, tensors, strict=True):
        found.add_(tensor, alpha=c)
    return found
