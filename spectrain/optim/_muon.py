"""Muon: one optimizer object for a whole model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from spectrain.optim._adamw import adamw_step
from spectrain.optim._explain import Row, rows, table
from spectrain.optim._guards import (
    algorithm_of,
    check_dense,
    check_finite,
    check_foreign,
    check_keys,
    check_parameters,
    check_settings,
)
from spectrain.optim._load import fitted, restore
from spectrain.optim._matrix import Matrix
from spectrain.optim._route import route
from spectrain.optim._scale import canonical
from spectrain.optim._state import ready
from spectrain.optim._update import apply, entrywise, momentum_average, orthogonalized

ADAMW = {"lr", "weight_decay", "maximize", "check_finite"}
MUON = ADAMW | {"momentum", "nesterov", "scale", "decay", "tol", "steps", "schedule", "compute_dtype"}
KEYS = {"params", "param_names", "algorithm", "use_muon", "matrix", "reasons", "betas", "eps", "initial_lr"}


class Live(NamedTuple):
    """The parameters of one group that have a gradient."""

    group: dict[str, Any]
    params: list[Tensor]
    grads: list[Tensor]


class Muon(Optimizer):
    r"""Momentum orthogonalised by msign for matrices, AdamW for everything else, in one object.

    For each logical matrix W with gradient G, momentum \mu, learning rate \eta and decay \lambda:

        M <- \mu M + (1 - \mu) G,    N = \mu M + (1 - \mu) G  (Nesterov; else N = M),
        W <- (1 - \eta \lambda) W - \eta s(out, in) msign(N),

    with s the factor of ``scale`` (see ``docs/muon.md``). The default, 0.2 sqrt(max(out, in)), gives updates
    the RMS of AdamW's, so that AdamW's learning rate and decay stay valid (article 10739,
    kexue.fm/archives/10739; Liu et al., arXiv 2502.16982).

    - ``params_or_model``: an ``nn.Module``, which ``route`` divides (with ``rules``); or parameters, named
      parameters or groups. Groups choose by ``algorithm="muon" | "adamw" | "sign" | "rows"`` or by
      ``use_muon=True | False``, and say ``matrix=Matrix(...)`` where a shape is not plain ``out x in``.
    - How exact msign is: ``steps`` (default 5) of a schedule designed for the working dtype, or ``tol``, or
      ``schedule``. ``compute_dtype``: ``"float32"``, ``"bfloat16"``, or ``"auto"``, bfloat16 for float32 weights
      where the hardware multiplies it natively and no ``tol`` is given.
    - AdamW: ``adamw_betas``, ``adamw_eps``, and ``adamw_lr``, ``adamw_weight_decay`` where they differ from
      ``lr`` and ``weight_decay``; in a group these are ``betas``, ``eps``, ``lr``, ``weight_decay``. It is
      ``torch.optim.AdamW`` to rounding. ``route`` frees norms and biases from decay.
    - ``decay``, of the matrices: ``"decoupled"``, ``"independent"`` (of the learning rate), ``"cautious"`` (only
      where the update shrinks the weight too), ``"spectral"`` (only the largest singular value; article 10648).
    - ``check_finite``: raise at NaN or Inf, before anything is changed, naming the parameter.

    State: ``momentum_buffer`` in float32 (or float64, as the weights); ``step``, ``exp_avg``, ``exp_avg_sq``.
    Weights of 16 bits are updated in float32 and rounded once. ``p.grad`` is never written to. Parameters
    without gradient are neither moved nor decayed. Cost of a step beyond AdamW's: about 15 products of the
    size of each matrix at 5 steps, less for matrices far from square.

    Raises ValueError or TypeError naming parameter, shape and cure for ambiguous shapes, vectors given to
    Muon, sparse, complex, empty or non-finite input, a parameter given twice, and settings out of range.

    >>> model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 10))
    >>> optimizer = Muon(model, lr=1e-3)
    >>> model(torch.arange(10)).logsumexp(-1).mean().backward()
    >>> optimizer.step()
    >>> {row["name"]: row["algorithm"] for row in optimizer.rows}["1.weight"]
    'muon'
    """

    def __init__(
        self,
        params_or_model: Any,
        lr: float | int | Tensor = 1e-3,
        weight_decay: float | int = 0.1,
        momentum: float | int = 0.95,
        nesterov: bool = True,
        scale: str = "match_rms_adamw",
        tol: float | int | None = None,
        *,
        steps: int | None = None,
        schedule: Any = None,
        compute_dtype: str = "auto",
        adamw_lr: float | int | Tensor | None = None,
        adamw_weight_decay: float | int | None = None,
        adamw_betas: tuple[float | int, float | int] = (0.9, 0.95),
        adamw_eps: float | int = 1e-8,
        decay: str = "decoupled",
        maximize: bool = False,
        check_finite: bool = True,
        rules: Mapping[str, Any] | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "scale": scale,
            "tol": tol,
            "steps": steps,
            "schedule": None if schedule is None else schedule.to_json(),
            "compute_dtype": compute_dtype,
            "adamw_lr": adamw_lr,
            "adamw_weight_decay": adamw_weight_decay,
            "adamw_betas": adamw_betas,
            "adamw_eps": adamw_eps,
            "decay": decay,
            "maximize": maximize,
            "check_finite": check_finite,
        }
        if rules is not None and not isinstance(params_or_model, nn.Module):
            raise ValueError("Muon: rules= needs the model; groups of parameters say algorithm= and matrix=.")
        model = isinstance(params_or_model, nn.Module)
        super().__init__(route(params_or_model, rules=rules) if model else params_or_model, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see the class for its keys. Everything is checked here, before the first step."""
        check_keys(param_group, KEYS | set(self.defaults))
        group = dict(param_group, algorithm=algorithm_of(param_group))
        group.pop("use_muon", None)
        check_foreign(group, {"betas", "eps"} if group["algorithm"] != "adamw" else MUON - ADAMW)
        params, names = _named(group["params"], len(self.param_groups))
        group["params"] = list(zip(names, params, strict=True))
        group.setdefault("reasons", ["given by the caller"] * len(params))
        settings = self._settings(group)
        check_settings(settings)
        check_parameters(dict(zip(names, params, strict=True)), settings)
        super().add_param_group(settings)
        for name in self.defaults.keys() - (ADAMW if settings["algorithm"] == "adamw" else MUON):
            del settings[name]
        for p in params:
            ready(self.state[p], p, settings["algorithm"])

    def _settings(self, group: dict[str, Any]) -> dict[str, Any]:
        """A complete group: its own settings, else those of the optimizer for its algorithm."""
        settings = {**self.defaults, **group}
        if group["algorithm"] == "adamw":
            for name in ("lr", "weight_decay", "betas", "eps"):
                special = self.defaults[f"adamw_{name}"]
                settings[name] = group.get(name, self.defaults.get(name) if special is None else special)
        matrix = group.get("matrix") or {}
        settings["matrix"] = matrix.as_dict() if isinstance(matrix, Matrix) else dict(matrix)
        settings["scale"] = canonical(settings["scale"])
        if settings["schedule"] is not None and not isinstance(settings["schedule"], str):
            settings["schedule"] = settings["schedule"].to_json()  # a state dict holds plain data only
        return settings

    @property
    def rows(self) -> list[Row]:
        """One plain dictionary for each parameter: where it went, why, and its learning-rate factor."""
        return rows(self.param_groups)

    def explain(self) -> list[Row]:
        """Print the table of ``rows`` and return them."""
        entries = self.rows
        print(table(entries))
        return entries

    @torch._disable_dynamo  # a compiled training step calls this one eagerly; torch's loaders do the same
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient; return the loss of ``closure``, if there is one.

        Raises ValueError for sparse, NaN or infinite gradients, naming them; nothing is changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        live = [self._live(group) for group in self.param_groups]
        for part in live:
            if part.group["algorithm"] == "adamw":
                adamw_step(part.params, part.grads, part.group, self.state)
        self._orthogonal_steps([part for part in live if part.group["algorithm"] == "muon" and part.params])
        for part in live:
            if part.group["algorithm"] in ("sign", "rows") and part.params:
                apply(part.params, entrywise(self._averages(part), part.group, part.params), part.group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, momentum in its own precision; refuse another routing, with the difference.

        The state of ``torch.optim.Muon`` is accepted where this optimizer holds the same matrices in the same
        groups: its momentum is the same average.
        """
        state_dict = fitted(state_dict, self.param_groups)
        super().load_state_dict(state_dict)
        restore(self, state_dict)

    def _live(self, group: dict[str, Any]) -> Live:
        """The parameters with gradients of one group, checked."""
        names = {name: p for name, p in zip(group["param_names"], group["params"], strict=True) if p.grad is not None}
        grads = {name: p.grad for name, p in names.items() if p.grad is not None}
        check_dense(grads)
        if group["check_finite"]:
            check_finite(grads)
        return Live(group, list(names.values()), list(grads.values()))

    def _averages(self, part: Live) -> list[Tensor]:
        """The momentum averages of one group, after taking in the gradients."""
        states = [ready(self.state[p], p, part.group["algorithm"]) for p in part.params]
        buffers = [state["momentum_buffer"] for state in states]
        grads = [g.to(b.dtype) for g, b in zip(part.grads, buffers, strict=True)]
        return momentum_average(buffers, grads, momentum=part.group["momentum"], nesterov=part.group["nesterov"])

    def _orthogonal_steps(self, live: list[Live]) -> None:
        """Move the matrices of all groups, with msign of as many as possible in one call."""
        averages = [average for part in live for average in self._averages(part)]
        groups = [part.group for part in live for _ in part.params]
        params = [p for part in live for p in part.params]
        updates = iter(orthogonalized(averages, groups, params) if params else [])
        for part in live:
            apply(part.params, [next(updates) for _ in part.params], part.group)


def _named(params: Any, index: int) -> tuple[list[Tensor], list[str]]:
    """Parameters and their names; those without get ``group0.3``, so that every message can name one."""
    if isinstance(params, set):
        raise TypeError("Muon: a set of parameters has no fixed order; give a list.")
    items = [params] if isinstance(params, Tensor) else list(params)
    tensors = [item[1] if isinstance(item, tuple) else item for item in items]
    names = [item[0] if isinstance(item, tuple) else f"group{index}.{i}" for i, item in enumerate(items)]
    return tensors, names
