"""What must not pass silently: bad settings, bad groups, bad gradients."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from spectrain.optim._layout.matrix import Matrix, check_shaped
from spectrain.optim._layout.spread import local
from spectrain.optim._step.decay import KINDS
from spectrain.optim._step.squares import largest_entry
from spectrain.optim._step.variants import VARIANTS

ALGORITHMS = ("muon", "adamw", "sign", "rows")

MOST_STEPS = 60  # of matfun.msign
DTYPES = ("auto", "float32", "bfloat16")


def check_settings(group: Mapping[str, Any]) -> None:
    """Raise ValueError for a number out of range or for two ways of saying how exact msign should be."""
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Muon: a tensor lr must have one element, got shape {tuple(lr.shape)}.")
    sizes = {"lr": lr, "weight_decay": group["weight_decay"], "eps": group.get("eps", group["adamw_eps"])}
    for name, value in {**sizes, "momentum": group["momentum"], "beta2": group["beta2"]}.items():
        _check_number(name, value)
    for name, value in sizes.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"Muon: {name} must be >= 0 and finite, got {value}.")
    decays = {"momentum": group["momentum"], "betas": group.get("betas", group["adamw_betas"])}
    if not isinstance(decays["betas"], (tuple, list)) or len(decays["betas"]) != 2:
        raise ValueError(f"Muon: betas must be a pair, got {decays['betas']}.")
    for name, value in decays.items():
        for beta in value if isinstance(value, (tuple, list)) else (value,):
            _check_number(name, beta)
        if not all(0 <= beta < 1 for beta in (value if isinstance(value, (tuple, list)) else (value,))):
            raise ValueError(f"Muon: {name} must be in [0, 1), got {value}.")
    if sum(group[name] is not None for name in ("tol", "steps", "schedule")) > 1:
        raise ValueError("Muon: give one of tol=, steps= and schedule=; each decides how exact msign is.")
    _check_exactness(group["steps"], group["tol"])
    if group["decay"] not in KINDS or (group["decay"] == "spectral" and group["algorithm"] in ("sign", "rows")):
        raise ValueError(
            f"Muon: decay must be one of {', '.join(KINDS)} (spectral: of matrices), got {group['decay']!r}."
        )
    if group["variant"] not in VARIANTS or not 0 <= group["beta2"] < 1:
        raise ValueError(
            f"Muon: variant must be one of {', '.join(VARIANTS)} and beta2 in [0, 1), "
            f"got {group['variant']!r} and {group['beta2']}."
        )
    if group["compute_dtype"] not in DTYPES:
        raise ValueError(f"Muon: compute_dtype must be one of {', '.join(DTYPES)}, got {group['compute_dtype']!r}.")


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        raise TypeError(f"Muon: {name} must be a number, got {value!r}.")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError(
            f"Muon: {name} must be finite as a floating-point number, got one of {value.bit_length()} bits."
        )


def _check_exactness(steps: object, tol: float | int | None) -> None:
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS):
        raise ValueError(f"Muon: steps must be an integer from 1 to {MOST_STEPS}, got {steps!r}.")
    if tol is not None:
        _check_number("tol", tol)
    if tol is not None and not 0 < tol < 1:
        raise ValueError(f"Muon: tol is a relative error and must be between 0 and 1, got {tol}.")


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


def check_parameters(params: Mapping[str, Tensor], group: Mapping[str, Any]) -> None:
    """Raise where a parameter cannot be moved by the algorithm of its group, or stands there twice."""
    seen: dict[Tensor, str] = {}
    for name, p in params.items():
        if not isinstance(p, Tensor):
            raise TypeError(f"Muon: {name} must be a Tensor, got {type(p).__name__}.")
        if p in seen:
            raise ValueError(f"Muon: {name} and {seen[p]} are the same parameter; give it once.")
        seen[p] = name
        _check_parameter(name, p, group)


def _check_parameter(name: str, p: Tensor, group: Mapping[str, Any]) -> None:
    check_shaped(name, p)
    where = f"Muon: {name} {tuple(p.shape)}"
    if p.is_meta:
        raise ValueError(f"{where} is on the meta device. Make the optimizer after model.to_empty(device=...).")
    if not p.is_floating_point():
        raise TypeError(f"{where}: {p.dtype} is not supported; give real floating-point parameters.")
    if p.numel() == 0:
        raise ValueError(f"{where}: a parameter without elements has nothing to optimize; leave it out.")
    if group["algorithm"] == "rows" and p.ndim != 2:
        raise ValueError(f"{where}: 'rows' normalises the rows of a 2-D parameter.")
    if group["algorithm"] == "muon":
        _check_matrix(name, p, group["matrix"])


def _check_matrix(name: str, p: Tensor, matrix: dict[str, Any]) -> None:
    if p.ndim < 2:
        raise ValueError(
            f"Muon: {name} {tuple(p.shape)}: a vector has no singular values. Give the model instead of its "
            "parameters, or put this one into a group with algorithm='adamw' (or use_muon=False)."
        )
    try:
        Matrix.from_dict(matrix).check(p.shape)
    except ValueError as error:
        raise ValueError(f"Muon: {name}: {error} A group says it with matrix=Matrix(...).") from error


def check_dense(grads: Mapping[str, Tensor]) -> None:
    """Raise ValueError for sparse gradients, by name."""
    sparse = [name for name, grad in grads.items() if grad.layout != torch.strided]
    if sparse:
        raise ValueError(f"Muon: sparse gradient of {', '.join(sparse)}. Make the embedding with sparse=False.")


def check_current(model: Callable[[], nn.Module | None] | None, params: Sequence[Tensor]) -> None:
    """Raise ValueError where the model's parameters are no longer those that the optimizer was given."""
    module = None if model is None else model()
    if module is None or {id(p) for p in module.parameters()} & {id(p) for p in params}:
        return
    raise ValueError(
        "Muon: the model has other parameters than when this optimizer was made, and those have no gradient. Make "
        "the optimizer after fully_shard, parallelize_module, to_empty and whatever else replaces parameters."
    )


@torch.compiler.disable  # it reads a value; a graph breaks here, and with check_finite=False it does not
def check_finite(grads: Mapping[str, Tensor], ends: Sequence[float | int] | None = None) -> None:
    """Raise ValueError naming each gradient with NaN or Inf, or an entry above its end; nothing has been changed then.

    One reading pass over the gradients and one synchronisation; a second look only where a norm is large.
    """
    if not grads:
        return
    limits = dict(zip(grads, [math.inf] * len(grads) if ends is None else ends, strict=True))
    norms = torch._foreach_norm(list(grads.values()))
    sizes = torch.stack([norm.to(norms[0].device, torch.float64) for norm in norms]).tolist()
    large = [name for name, size in zip(grads, sizes, strict=True) if not (size <= limits[name] and size < math.inf)]
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


def _check_rates(group: Mapping[str, Any]) -> None:
    """Raise ValueError for numbers that somebody, as a scheduler, has put into a group since it was checked."""
    for key in ("lr", "weight_decay"):
        value = group[key]
        if not isinstance(value, Tensor) and not 0 <= value < float("inf"):  # a tensor may be on a device
            raise ValueError(f"Muon: {key} must be >= 0 and finite, got {value}. Nothing was changed. What set it?")


def check_gradients(groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError for gradients that cannot be used, as far as this rank has them."""
    for group in groups:
        _check_rates(group)
        named = zip(group["param_names"], group["params"], strict=True)
        grads = {name: local(p.grad) for name, p in named if p.grad is not None}
        check_dense(grads)
        if group["check_finite"]:
            ends = [largest_entry(group, p) for p in group["params"] if p.grad is not None]
            check_finite(grads, ends)
