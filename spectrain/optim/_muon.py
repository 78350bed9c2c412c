"""Muon: one optimizer object for a whole model."""

import copy
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spectrain import matfun
from spectrain._arrays.graphs import outside_graphs
from spectrain.matfun.internal import costs
from spectrain.optim._groups import complete, split_names
from spectrain.optim._layout.spread import check_spread, gradient, local
from spectrain.optim._modes import BoundBy, ComputeDtype, Decay, Scale, VariantName
from spectrain.optim._ranks.cost import Machine
from spectrain.optim._ranks.moves import move_entrywise, move_matrices
from spectrain.optim._ranks.teams import Company, has_ranks
from spectrain.optim._routing.explain import Row, explain, rows
from spectrain.optim._routing.route import route
from spectrain.optim._step.adamw import adamw_step
from spectrain.optim._step.eager import EagerOptimizer
from spectrain.optim._step.guards import (
    algorithm_of,
    check_capturable,
    check_current,
    check_foreign,
    check_gradients,
    check_keys,
    check_parameters,
    settings_now,
)
from spectrain.optim._step.load import fit, follow, restore
from spectrain.optim._step.portions import Live, check_streams, portions, side_by_side
from spectrain.optim._step.settings import ADAMW, MATRICES, Settings
from spectrain.optim._step.state import ready
from spectrain.optim._variants.variants import BY_NAME

KEYS = {"costs", "params", "param_names", "algorithm", "use_muon", "matrix", "reasons", "betas", "eps", "initial_lr"}


class Muon(EagerOptimizer):
    r"""Momentum orthogonalised by msign for matrices, AdamW for everything else, in one object.

    For each logical matrix W with gradient G, momentum \mu, learning rate \eta and decay \lambda:

        M <- \mu M + (1 - \mu) G,    N = \mu M + (1 - \mu) G  (Nesterov; else N = M),
        W <- (1 - \eta \lambda) W - \eta s(out, in) msign(N),

    with s the factor of ``scale`` (see ``docs/muon.md``). The default, 0.2 sqrt(max(out, in)), gives updates
    the RMS of AdamW's, so that AdamW's learning rate and decay stay valid (article 10739,
    kexue.fm/archives/10739; Liu et al., arXiv 2502.16982).

    - ``params_or_model``: an ``nn.Module``, which ``route`` divides (with ``rules``, ``heads``); or parameters, named
      parameters or groups. Groups choose by ``algorithm="muon" | "adamw" | "sign" | "rows"`` or by
      ``use_muon=True | False``, and say ``matrix=Matrix(...)`` where a shape is not plain ``out x in``.
    - How exact msign is: ``steps`` (default 5) of a schedule designed for the working dtype, or ``tol``, or
      ``schedule``. ``compute_dtype``: ``"float32"``, ``"bfloat16"``, or ``"auto"``, bfloat16 for float32 weights
      on CUDA from Ampere on, and on processors where ``matfun.planning.calibrate`` has measured that it pays,
      unless ``tol`` is given. The state carries the table of costs by which
      ``tol`` chooses, so that a resumed run chooses alike.
    - AdamW: ``adamw_betas``, ``adamw_eps``, and ``adamw_lr``, ``adamw_weight_decay`` where they differ from
      ``lr`` and ``weight_decay``; in a group these are ``betas``, ``eps``, ``lr``, ``weight_decay``. It is
      ``torch.optim.AdamW`` to rounding. ``route`` frees norms and biases from decay.
    - ``decay``, of the matrices: ``"decoupled"``, ``"independent"`` (of the learning rate), ``"cautious"`` (only
      where the update shrinks the weight too), ``"spectral"`` (only the largest singular value; article 10648).
    - ``variant``: what is done before and after msign, as ``"normuon"`` or ``"adam"``; the table of ``docs/muon.md``
      has all. ``beta2`` is the rate of their averages.
    - ``bound``: no singular value of a matrix that msign moves is above bound sqrt(out / in) after a step, by the
      least change (article 11729): ``bound_by`` ``"post-clip"`` clips what is above, ``"pre-decay"`` shrinks the
      largest ones before each update. Parameters must lie whole on each rank. 16-bit weights: to their rounding.
    - ``check_finite``: raise at NaN, Inf and, where Adam squares them, entries whose squares the dtype does not hold
      (above 1.8e19 in float32), before anything is changed, naming the parameter; without it such entries count as the
      largest that fit. ``capturable`` turns it off, after which a step reads no value and can be recorded into a CUDA
      graph; give ``lr`` as a tensor then, and no ``tol``. ``torch.compile`` takes such a step as one graph.
    - Over ranks: parameters may be ``DTensor`` of any mesh; ``process_group``: ranks that hold the same plain
      parameters share the work; ``machine``: figures for the choice of who does what, which
      ``optim.ranks.plan_shards`` prints.
    - ``streams``: on a GPU matrices are divided over so many CUDA streams, which hides the latency of small products;
      never measured, so the default is 1. Elsewhere, over ranks and with ``tol`` it changes nothing.

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

    # What a copy and a pickle come without, until somebody says it again.
    model: weakref.ref[nn.Module] | None = None
    process_group: Any = None
    machine: Machine | None = None
    streams: int = 1
    company: Company | None = None

    def __init__(
        self,
        params_or_model: Any,
        lr: float | int | Tensor = 1e-3,
        weight_decay: float | int = 0.1,
        momentum: float | int = 0.95,
        nesterov: bool = True,
        scale: Scale = "match_rms_adamw",
        tol: float | int | None = None,
        *,
        steps: int | None = None,
        schedule: Any = None,
        compute_dtype: ComputeDtype = "auto",
        adamw_lr: float | int | Tensor | None = None,
        adamw_weight_decay: float | int | None = None,
        adamw_betas: tuple[float | int, float | int] = (0.9, 0.95),
        adamw_eps: float | int = 1e-8,
        decay: Decay = "decoupled",
        variant: VariantName = "plain",
        beta2: float | int = 0.95,
        bound: float | int | None = None,
        bound_by: BoundBy = "post-clip",
        maximize: bool = False,
        capturable: bool = False,
        check_finite: bool | None = None,
        rules: Mapping[str, Any] | None = None,
        heads: Sequence[str] | None = None,
        process_group: Any = None,
        machine: Machine | None = None,
        streams: int = 1,
    ) -> None:
        has_ranks(process_group)
        self.streams = check_streams(streams)
        self.process_group, self.machine = process_group, machine
        self._before = matfun.planning.tries()
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
            "variant": variant,
            "beta2": beta2,
            "bound": bound,
            "bound_by": bound_by,
            "maximize": maximize,
            "capturable": capturable,
            "check_finite": check_capturable(capturable=capturable, finite=check_finite),
        }
        model = isinstance(params_or_model, nn.Module)
        if not model and (rules is not None or heads is not None):
            raise ValueError("Muon: rules= and heads= need the model; groups of parameters say algorithm= and matrix=.")
        self.model = weakref.ref(params_or_model) if model else None
        Settings.of(complete({"algorithm": "adamw"}, defaults)).check_tensors()  # used or not
        super().__init__(route(params_or_model, rules=rules, heads=heads) if model else params_or_model, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see the class for its keys. Everything is checked here, before the first step."""
        check_keys(param_group, KEYS | set(self.defaults))
        group = dict(param_group, algorithm=algorithm_of(param_group))
        group.pop("use_muon", None)
        check_foreign(group, {"betas", "eps"} if group["algorithm"] != "adamw" else set(MATRICES) - set(ADAMW))
        params, names = split_names(group["params"], len(self.param_groups))
        group["params"] = list(zip(names, params, strict=True))
        group["param_names"] = names  # torch sees none in an empty group, and would miss them there
        group.setdefault("reasons", ["given by the caller"] * len(params))
        group = complete(group, self.defaults)
        settings = Settings.of(group)
        if settings.tol is not None and settings.costs is None:
            settings = replace(settings, costs=costs())  # what a resumed run plans by, whatever its process has
        settings.check_tensors()
        check_parameters(dict(zip(names, params, strict=True)), settings)
        for name, p in zip(names, params, strict=True):
            check_spread(name, p)
        super().add_param_group(group)  # fills in every default, also those of the other algorithm
        for name in self.defaults:
            group.pop(name, None)
        group.update(settings.as_dict())
        settings = Settings.of(group)  # reads its JSON once, which a graph cannot
        for p in params:
            if p.requires_grad:  # what is frozen, as under adapters, gets a state with its first gradient
                ready(self.state[p], p, settings)

    @property
    def rows(self) -> list[Row]:
        """One plain dictionary for each parameter: where it went, why, and its learning-rate factor."""
        return rows(self.param_groups)

    def explain(self) -> list[Row]:
        """Print the table of ``rows``, what is frozen in one line, and return them.

        Below it, if it happened, what msign had to compute twice in this process since the optimizer was made.
        """
        entries = explain(self.param_groups)
        for name in dict.fromkeys(group.get("variant", "plain") for group in self.param_groups):
            if name != "plain":
                print(f"variant {name}: {BY_NAME[name].words}")
        tries = matfun.planning.tries()
        second, matrices = tries.second - self._before.second, tries.matrices - self._before.matrices
        if second:
            print(f"msign: since this optimizer was made, {second} of {matrices} matrices were computed a second time")
        return entries

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient; return the loss of ``closure``, if there is one.

        Raises ValueError for sparse, NaN or infinite gradients, naming them, and for settings that somebody has changed
        to what cannot be meant; nothing is changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not torch.compiler.is_compiling() and len(self.state) > sum(len(g["params"]) for g in self.param_groups):
            follow(self)
        company = self._company()
        if company is None:
            self._advance(None)
        else:
            self._advance_eagerly(company)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every parameter that has one; it is complete before the first step, too."""
        follow(self)
        found: dict[str, Any] = super().state_dict()
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> "Muon":
        """A copy in this process works with the same process group."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__({**copy.deepcopy(self.__getstate__(), memo), "shares": False})
        copied.process_group = self.process_group
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what ``__getstate__`` gave; warns where a process group was left behind."""
        if state.pop("shares", False):
            warnings.warn(
                "Muon: a pickle holds no process group. Set optimizer.process_group = ... on every rank, else each "
                "does all of msign's work by itself.",
                stacklevel=2,
            )
        super().__setstate__(state)
        self._before = matfun.planning.tries()
        for group in self.param_groups:
            Settings.of(group)  # reads its JSON once, which a graph cannot

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: all but the model, which it knows weakly, and the process group."""
        kept = {"streams": self.streams, "machine": self.machine, "shares": self.process_group is not None}
        return {**super().__getstate__(), **kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, momentum in its own precision; refuse another routing, with the difference.

        The state of ``torch.optim.Muon`` is accepted where this optimizer holds the same matrices in the same
        groups: its momentum is the same average.
        """
        follow(self)
        state_dict = fit(state_dict, self.param_groups, self.defaults)
        try:
            super().load_state_dict(state_dict)
        except RecursionError as error:
            raise ValueError("Muon: the saved state is nested too deeply to be one.") from error
        restore(self, state_dict)

    @outside_graphs  # collectives and plans stay outside of a graph
    def _advance_eagerly(self, company: Company) -> None:
        """One step over ranks, also from inside a compiled function."""
        self._advance(company)

    def _advance(self, company: Company | None) -> None:
        """One step: check, then AdamW, then the matrices, then what is moved entry by entry or row by row."""
        settings = self._check(company)
        if all(p.grad is None for group in self.param_groups for p in group["params"]):
            check_current(self.model, [p for group in self.param_groups for p in group["params"]])
        live = [self._live(*pair) for pair in zip(self.param_groups, settings, strict=True)]
        for part in live:
            if part.settings.algorithm == "adamw" and part.params:
                adamw_step(part.weights, part.grads, part.settings, self._states(part))
        self._move_matrices([part for part in live if part.settings.algorithm == "muon" and part.params], company)
        for part in live:
            if part.settings.algorithm in ("sign", "rows") and part.params:
                move_entrywise(part, self._states(part), company)

    def _company(self) -> Company | None:
        """The other ranks, where there are any; made at the first step and again after a copy."""
        if self.company is None and has_ranks(self.process_group):
            self.company = Company(self.machine, self.process_group)
        return self.company

    def _check(self, company: Company | None) -> list[Settings]:
        """Return the settings of all groups; raise for what cannot be used before anything changes, on all ranks."""
        settings = None
        try:
            settings = settings_now(self.param_groups)
            check_gradients(self.param_groups, settings)
        except ValueError as error:
            # Over ranks nobody may leave before all know: the others would wait in the next reduction for ever.
            if company is None:
                raise
            company.agree(self.param_groups, settings, str(error))
            raise
        if company is not None:
            company.agree(self.param_groups, settings, "")
        return settings

    def _live(self, group: dict[str, Any], settings: Settings) -> Live:
        """The parameters with gradients of one group."""
        pairs = [(n, p) for n, p in zip(group["param_names"], group["params"], strict=True) if p.grad is not None]
        names, params = [name for name, _ in pairs], [p for _, p in pairs]
        return Live(settings, names, params, [local(gradient(p)) for p in params], [local(p) for p in params])

    def _states(self, part: Live) -> list[dict[str, Any]]:
        """This rank's part of what is remembered of each parameter."""
        states = [ready(self.state[p], p, part.settings) for p in part.params]
        return [{key: local(value) for key, value in state.items()} for state in states]

    def _move_matrices(self, live: list[Live], company: Company | None) -> None:
        """Move the matrices of all groups; over ranks all at once, else in portions."""

        def move(parts: list[Live]) -> None:
            move_matrices(parts, [self._states(part) for part in parts], company)

        if company is None:
            side_by_side(portions(live, streams=self.streams), move, streams=self.streams)
        elif live:
            move(live)
