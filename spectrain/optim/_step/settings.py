"""The settings of one parameter group: read from its dictionary and checked, written back as plain data."""

import math
import numbers
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import torch
from torch import Tensor

from spectrain.approx import Schedule
from spectrain.matfun.internal import CostTable
from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._step.scale import canonical, factor
from spectrain.optim._variants.variant import Variant
from spectrain.optim._variants.variants import BY_NAME, PLAIN

Real = float | int
Rate = Real | Tensor

ALGORITHMS = ("muon", "adamw", "sign", "rows")
DECAYS = ("decoupled", "independent", "cautious", "spectral")
DTYPES = ("auto", "float32", "bfloat16")
NUMBERS = ("lr", "weight_decay", "eps", "momentum", "beta2")
_REALS: tuple[Any, ...] = (float, int, numbers.Real)  # the last are NumPy's
_NUMBERS: tuple[Any, ...] = (*_REALS, Tensor)
MOST_STEPS = 60  # of matfun.msign
STEPS = 5

# What a group of each algorithm says beside its parameters; the rest of its dictionary is the caller's own.
ADAMW = ("lr", "weight_decay", "maximize", "capturable", "check_finite")
BOUNDS = ("post-clip", "pre-decay")
EXACTNESS = ("tol", "steps", "schedule", "compute_dtype")
MATRICES = (*ADAMW, "momentum", "nesterov", "scale", "decay", "variant", "beta2", "bound", "bound_by", *EXACTNESS)

# What was read of JSON, by its text. A graph finds it here, as an object that has a place: of a constant without one
# nothing else can be computed while a graph is made. It cannot read JSON, so that the first reading comes before.
_SCHEDULES: dict[str, Schedule] = {}
_TABLES: dict[str, CostTable] = {}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One parameter group as a step sees it. Schedulers and users change the dictionary, of which this is a reading.

    ``of`` reads and checks a dictionary, ``as_dict`` gives its one form in ``param_groups`` and state dicts: numbers,
    flags and names as they are, ``matrix`` as a dictionary, ``schedule`` and ``costs`` as JSON. The defaults stand
    where a group says nothing, as one of AdamW about momentum.
    """

    algorithm: str = "muon"
    lr: Rate = 1e-3
    weight_decay: Real = 0.1
    maximize: bool = False
    capturable: bool = False
    check_finite: bool = True
    betas: tuple[Real, Real] | list[Real] = (0.9, 0.95)
    eps: Real = 1e-8
    matrix: Matrix = Matrix()  # noqa: RUF009 - it is frozen
    momentum: Real = 0.95
    nesterov: bool = True
    scale: str = "match_rms_adamw"
    decay: str = "decoupled"
    variant: str = "plain"
    beta2: Real = 0.95
    bound: Real | None = None
    bound_by: str = "post-clip"
    tol: Real | None = None
    steps: int | None = None
    schedule: Schedule | None = None
    compute_dtype: str = "auto"
    costs: CostTable | None = None
    initial_lr: Rate | None = None

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> "Settings":
        """Return the settings of a group as it is now; ValueError or TypeError for what cannot be meant.

        No tensor is read, so that a step may do this while a graph is being recorded; ``check_tensors`` does.
        ``momentum`` in a group of AdamW is its first beta: schedulers that cycle momentum write it into every group.
        """
        values = {name: group.get(name, default) for name, default in _DEFAULTS.items()}
        _check_numbers(values)
        if values["algorithm"] == "adamw" and "momentum" in group:
            values["betas"] = (values["momentum"], values["betas"][1])
        _check_exactness(values)
        _check_names(values)
        _check_bound(values)
        for name in NUMBERS:
            if not isinstance(values[name], (float, int, Tensor)):
                values[name] = float(values[name])  # as NumPy's, which a scheduler may set
        values["matrix"] = _matrix(values["matrix"])
        values["scale"] = canonical(values["scale"])
        if isinstance(values["schedule"], str):
            values["schedule"] = _schedule_of(values["schedule"])
        if isinstance(values["costs"], str):
            values["costs"] = _table_of(values["costs"])
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return the plain data that a group with these settings says."""
        names = (*ADAMW, "betas", "eps") if self.algorithm == "adamw" else MATRICES
        found = {"algorithm": self.algorithm, **{name: getattr(self, name) for name in names}}
        found["matrix"] = self.matrix.as_dict()
        if self.bound is None:  # a state without one has the keys of earlier versions
            found = {name: value for name, value in found.items() if name not in ("bound", "bound_by")}
        if found.get("schedule") is not None:
            found["schedule"] = found["schedule"].to_json()
        if found.get("tol") is not None and self.costs is not None:
            found["costs"] = self.costs.to_json()
        return found

    def check_tensors(self) -> None:
        """Raise ValueError for a tensor whose value is out of range; reads it."""
        for name in NUMBERS:
            value = getattr(self, name)
            if isinstance(value, Tensor) and not 0 <= value.item() < (1 if name in ("momentum", "beta2") else math.inf):
                _refuse_range(name, value.item())

    @property
    def exactness(self) -> tuple[Any, ...]:
        """How exact msign is asked to be, and in which dtype; matrices for which it is equal go through one call."""
        return (self.tol, self.steps, self.schedule, self.compute_dtype, self.costs)

    @property
    def rule(self) -> Variant:
        """The variant that is in force: what moves entry by entry or row by row has no matrix."""
        variant = BY_NAME[self.variant]
        return variant if self.algorithm == "muon" or variant.entrywise else PLAIN

    @property
    def rate(self) -> Rate:
        """The learning rate: a number, or a tensor without dimensions."""
        return self.lr.reshape(()) if isinstance(self.lr, Tensor) else self.lr

    def shapes(self, size: torch.Size) -> list[tuple[int, int]]:
        """Return (out, in) of each matrix that the algorithm sees in a parameter of this size.

        The sign of an entry is the msign of a 1 x 1 matrix and a normalised row that of a ``width x 1`` one
        (article 11416, kexue.fm/archives/11416), so that one formula gives the factor of all of them.
        """
        if self.algorithm == "sign":
            return [(1, 1)]
        if self.algorithm == "rows":
            return [(size[-1], 1)]
        return self.matrix.shapes(size)

    def factors(self, size: torch.Size) -> list[float]:
        """Return the factor on the update of each of these matrices."""
        return [factor(self.scale, out, in_) for out, in_ in self.shapes(size)]


_DEFAULTS = {field.name: field.default for field in fields(Settings)}


def _matrix(value: object) -> Matrix:
    if value is None or isinstance(value, Matrix):
        return value or Matrix()
    return Matrix.from_dict(dict(value))  # type: ignore[call-overload]


def _schedule_of(text: str) -> Schedule:
    if text not in _SCHEDULES:
        _SCHEDULES[text] = Schedule.from_json(text)
    return _SCHEDULES[text]


def _table_of(text: str) -> CostTable:
    if text not in _TABLES:
        _TABLES[text] = CostTable.from_json(text)
    return _TABLES[text]


def _check_numbers(values: Mapping[str, Any]) -> None:
    """Raise for what is no number or out of range; values of tensors are not read."""
    lr, betas = values["lr"], values["betas"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Muon: a tensor lr must have one element, got shape {tuple(lr.shape)}.")
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"Muon: betas must be a pair, got {betas}.")
    said: list[tuple[str, Any]] = [(name, values[name]) for name in NUMBERS]
    for name, value in [*said, *(("betas", beta) for beta in betas)]:
        if isinstance(value, bool) or not isinstance(value, _NUMBERS):
            raise TypeError(f"Muon: {name} must be a number, got {value!r}.{_hint(name, value)}")
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            bits = value.bit_length()
            raise ValueError(f"Muon: {name} must be finite as a floating-point number, got one of {bits} bits.")
        share = name in ("momentum", "beta2", "betas")
        if not isinstance(value, Tensor) and not 0 <= value < (1 if share else math.inf):
            _refuse_range(name, betas if name == "betas" else value)


def _hint(name: str, value: object) -> str:
    """What to do about a number that came as text."""
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    if number is None:
        return ""
    yaml = " YAML reads 1e-3 as text, 1.0e-3 as a number." if "e" in str(value).lower() else ""
    return f" That is text: write {name}={number!r}.{yaml}"


def _refuse_range(name: str, value: object) -> NoReturn:
    least = "in [0, 1)" if name in ("momentum", "beta2", "betas") else ">= 0 and finite"
    raise ValueError(f"Muon: {name} must be {least}, got {value}.")


def _check_exactness(values: Mapping[str, Any]) -> None:
    steps, tol = values["steps"], values["tol"]
    if sum(values[name] is not None for name in ("tol", "steps", "schedule")) > 1:
        raise ValueError("Muon: give one of tol=, steps= and schedule=; each decides how exact msign is.")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS):
        raise ValueError(f"Muon: steps must be an integer from 1 to {MOST_STEPS}, got {steps!r}.")
    if tol is not None:
        if isinstance(tol, bool) or not isinstance(tol, _REALS):
            raise TypeError(f"Muon: tol must be a number, got {tol!r}.")
        if not 0 < tol < 1:
            raise ValueError(f"Muon: tol is a relative error and must be between 0 and 1, got {tol}.")


def _check_bound(values: Mapping[str, Any]) -> None:
    bound, by = values["bound"], values["bound_by"]
    if bound is not None and (isinstance(bound, bool) or not isinstance(bound, _REALS)):
        raise TypeError(f"Muon: bound must be a number, got {bound!r}.")
    if (bound is not None and not 0 < bound < math.inf) or by not in BOUNDS:
        raise ValueError(
            f"Muon: bound must be positive and finite, and bound_by one of {', '.join(BOUNDS)}; got {bound} and {by!r}."
        )
    if bound is not None and values["capturable"]:
        raise ValueError("Muon: bound= decides by values which singular values to clip; leave capturable=True out.")


def _check_names(values: Mapping[str, Any]) -> None:
    spectral = values["decay"] == "spectral" and values["algorithm"] in ("sign", "rows")
    if values["decay"] not in DECAYS or spectral:
        raise ValueError(
            f"Muon: decay must be one of {', '.join(DECAYS)} (spectral: of matrices), got {values['decay']!r}."
        )
    if values["variant"] not in BY_NAME:
        raise ValueError(f"Muon: variant must be one of {', '.join(BY_NAME)}, got {values['variant']!r}.")
    if values["compute_dtype"] not in DTYPES:
        raise ValueError(f"Muon: compute_dtype must be one of {', '.join(DTYPES)}, got {values['compute_dtype']!r}.")
    for name in ("nesterov", "maximize", "capturable", "check_finite"):
        if not isinstance(values[name], bool):
            raise ValueError(f"Muon: {name} must be True or False, got {values[name]!r}.")
