"""What must not pass silently: bad settings, bad groups, bad gradients."""

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from spectrain._arrays.graphs import outside_graphs
from spectrain.optim._layout.matrix import check_shaped
from spectrain.optim._layout.spread import local, refuse_flat
from spectrain.optim._step.settings import ALGORITHMS, Settings
from spectrain.optim._step.squares import largest_entry, norms


def check_capturable(*, capturable: bool, finite: bool | None) -> bool:
    """Return whether gradients are checked; ValueError where a CUDA graph is wanted and a value would be read."""
    if capturable and finite:
        raise ValueError(
            "Muon: check_finite=True reads a value of every gradient, which a CUDA graph cannot record. "
            "With capturable=True leave it out."
        )
    return not capturable if finite is None else finite


def check_keys(group: Mapping[str, Any], known: set[str]) -> None:
    """Raise ValueError for a misspelt key; keys that resemble nothing are the caller's own and are kept."""
    for key in set(group) - known:
        near = get_close_matches(key, known, n=1, cutoff=0.8)
        if near:
            raise ValueError(f"Muon: a parameter group has the key {key!r}; did you mean {near[0]!r}?")


def check_foreign(group: Mapping[str, Any], foreign: set[str]) -> None:
    """Raise ValueError for settings that the group's algorithm does not have and would drop."""
    found = sorted(foreign & set(group))
    if found:
        raise ValueError(f"Muon: a group with algorithm={group['algorithm']!r} has no {', '.join(found)}.")


def algorithm_of(group: Mapping[str, Any]) -> str:
    """Return the algorithm that a group asks for by ``algorithm=`` or ``use_muon=``; Muon if by neither."""
    if "use_muon" in group and "algorithm" in group:
        raise ValueError("Muon: a parameter group has use_muon= and algorithm=; give one of them.")
    name = group.get("algorithm", "muon" if group.get("use_muon", True) else "adamw")
    if name not in ALGORITHMS:
        raise ValueError(f"Muon: algorithm must be one of {', '.join(ALGORITHMS)}, got {name!r}.")
    return str(name)


def check_parameters(params: Mapping[str, Tensor], settings: Settings) -> None:
    """Raise where a parameter cannot be moved by the algorithm of its group, or stands there twice."""
    seen: dict[Tensor, str] = {}
    for name, p in params.items():
        if not isinstance(p, Tensor):
            raise TypeError(f"Muon: {name} must be a Tensor, got {type(p).__name__}.")
        if p in seen:
            raise ValueError(f"Muon: {name} and {seen[p]} are the same parameter; give it once.")
        seen[p] = name
        _check_parameter(name, p, settings)


def _check_parameter(name: str, p: Tensor, settings: Settings) -> None:
    check_shaped(name, p)
    refuse_flat(name, p)
    where = f"Muon: {name} {tuple(p.shape)}"
    if p.is_meta:
        raise ValueError(f"{where} is on the meta device. Make the optimizer after model.to_empty(device=...).")
    if not p.is_floating_point():
        raise TypeError(f"{where}: {p.dtype} is not supported; give real floating-point parameters.")
    if p.numel() == 0:
        raise ValueError(f"{where}: a parameter without elements has nothing to optimize; leave it out.")
    if settings.algorithm == "rows" and p.ndim != 2:
        raise ValueError(f"{where}: 'rows' normalises the rows of a 2-D parameter.")
    if settings.algorithm == "muon":
        _check_matrix(name, p, settings)


def _check_matrix(name: str, p: Tensor, settings: Settings) -> None:
    if p.ndim < 2:
        raise ValueError(
            f"Muon: {name} {tuple(p.shape)}: a vector has no singular values. Give the model instead of its "
            "parameters, or put this one into a group with algorithm='adamw' (or use_muon=False). In transformers' "
            "Trainer: optimizer_cls_and_kwargs=(Muon, {'model': model, 'lr': ...})."
        )
    try:
        settings.matrix.check(p.shape)
    except ValueError as error:
        raise ValueError(f"Muon: {name}: {error} A group says it with matrix=Matrix(...).") from error


def check_dense(grads: Mapping[str, Tensor]) -> None:
    """Raise ValueError for sparse gradients, by name."""
    sparse = [name for name, grad in grads.items() if grad.layout != torch.strided]
    if sparse:
        raise ValueError(f"Muon: sparse gradient of {', '.join(sparse)}. Make the embedding with sparse=False.")


def check_whole(params: Mapping[str, Tensor]) -> None:
    """Raise ValueError for matrices that no rank has whole: their singular values are nowhere."""
    cut = [name for name, p in params.items() if local(p).shape != p.shape]
    if cut:
        raise ValueError(
            f"Muon: bound= clips singular values of whole matrices, and {', '.join(cut[:3])} lies in parts on several "
            "ranks. Leave bound= out there, or keep those parameters whole (DDP, or Replicate)."
        )


def check_current(model: Callable[[], nn.Module | None] | None, params: Sequence[Tensor]) -> None:
    """Raise ValueError where the model's parameters are no longer those that the optimizer was given."""
    module = None if model is None else model()
    if module is None or {id(p) for p in module.parameters()} & {id(p) for p in params}:
        return
    raise ValueError(
        "Muon: the model has other parameters than when this optimizer was made, and those have no gradient. Make "
        "the optimizer after fully_shard, parallelize_module, to_empty and whatever else replaces parameters."
    )


@outside_graphs  # it reads a value; a graph breaks here, and with check_finite=False it does not
def check_finite(grads: Mapping[str, Tensor], ends: Sequence[float | int] | None = None) -> None:
    """Raise ValueError naming each gradient with NaN or Inf, or an entry above its end; nothing has been changed then.

    One reading pass over the gradients and one synchronisation; a second look only where a norm is large.
    """
    if not grads:
        return
    limits = dict(zip(grads, [math.inf] * len(grads) if ends is None else ends, strict=True))
    found = norms(list(grads.values()))
    large = [name for name, size in zip(grads, found, strict=True) if not (size <= limits[name] and size < math.inf)]
    bad = [name for name in large if not bool(grads[name].isfinite().all())]
    if bad:
        raise ValueError(
            f"Muon: NaN or Inf in the gradient of {', '.join(bad)}. Nothing was changed. Lower the "
            "learning rate, look for the first bad activation, or skip the step."
        )
    tops = {name: float(grads[name].abs().amax()) for name in large}
    beyond = [f"{name} ({top:.3g}, at most {limits[name]:.3g})" for name, top in tops.items() if top > limits[name]]
    if beyond:
        raise ValueError(
            f"Muon: the gradient of {', '.join(beyond)} is too large for its squares, which Adam's second moment "
            "averages: it would be infinite, and those entries would never move again. Nothing was changed. Scale the "
            "loss down or clip; of half precision keep the weights in float32."
        )


def settings_now(groups: Sequence[Mapping[str, Any]]) -> list[Settings]:
    """Return the settings of all groups; ValueError for what somebody, as a scheduler, has put into one meanwhile."""
    try:
        return [Settings.of(group) for group in groups]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{error} Nothing was changed. What set it?") from error


def check_gradients(groups: Sequence[Mapping[str, Any]], settings: Sequence[Settings]) -> None:
    """Raise ValueError for gradients that cannot be used, as far as this rank has them."""
    for group, said in zip(groups, settings, strict=True):
        named = zip(group["param_names"], group["params"], strict=True)
        grads = {name: local(p.grad) for name, p in named if p.grad is not None}
        check_dense(grads)
        if said.bound is not None and said.algorithm == "muon":
            check_whole(dict(zip(group["param_names"], group["params"], strict=True)))
        if said.check_finite:
            ends = [largest_entry(said, p) for p in group["params"] if p.grad is not None]
            check_finite(grads, ends)
