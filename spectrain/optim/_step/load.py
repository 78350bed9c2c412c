"""Loading a state: into the same routing only, in the precision it was saved in."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from spectrain.optim._layout.spread import local
from spectrain.optim._step.saved import check_saved, find_damage
from spectrain.optim._step.scale import canonical
from spectrain.optim._step.settings import Settings
from spectrain.optim._step.state import kept, kept_shape, ready

FOREIGN = {"ns_coefficients", "ns_steps", "adjust_lr_fn"}
NEW = ("bound", "bound_by")  # what states of earlier versions do not say
STRUCTURE = ("algorithm", "matrix", "variant")
LINES = "line_second_moment"
OLD = "row_second_moment"  # what it was called when it was of rows only


def fit(state_dict: dict[str, Any], groups: Sequence[dict[str, Any]], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict that fits these groups, or raise ValueError with the difference."""
    saved = [_convert(group, ours) for group, ours in zip(state_dict["param_groups"], groups, strict=False)]
    saved += state_dict["param_groups"][len(groups) :]
    difference = _differences(saved, groups)
    state = state_dict["state"] if difference else _rename(state_dict["state"], saved, groups)
    difference = difference or _shape_differences(state, saved, groups)
    if difference:
        raise ValueError("Muon: this state belongs to another model or routing:\n  " + "\n  ".join(difference))
    check_saved(saved, groups, defaults)
    broken = find_damage(state, saved, groups)
    if broken:
        raise ValueError(f"Muon: the saved state is damaged: {broken}. Load an earlier one.")
    return {**state_dict, "state": state, "param_groups": saved}


def _rename(state: dict[Any, Any], saved: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]]) -> dict[Any, Any]:
    """The state with NorMuon's averages under the name of today; ValueError where they are of rows and not wanted.

    What earlier versions kept for parameters that have no such lines, as of ``"rows"``, is left out.
    """
    found = dict(state)
    for theirs, ours in zip(saved, groups, strict=True):
        settings = Settings.of(ours)
        if ours.get("variant") != "normuon":
            continue
        for index, p, name in zip(theirs["params"], ours["params"], ours["param_names"], strict=True):
            entry = state.get(index, {})
            if LINES not in kept(settings):
                found[index] = {key: value for key, value in entry.items() if key not in (OLD, LINES)}
                continue
            if OLD not in entry:
                continue
            (count,) = kept_shape("lines", p, settings)
            if isinstance(entry[OLD], Tensor) and entry[OLD].shape != (count,):
                raise ValueError(
                    f"Muon: the saved state has averages of rows of {name} {tuple(p.shape)}, which did nothing where "
                    'out < in; variant="normuon" now divides columns there. To start their averages anew, put '
                    f'torch.zeros({count}) for state_dict["state"][{index}]["{OLD}"].'
                )
            found[index] = {LINES if key == OLD else key: value for key, value in entry.items()}
    return found


def _convert(saved: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """A saved group; one of torch.optim.Muon gets our keys, for its momentum is the same average."""
    if "algorithm" in saved:
        # Torch's full state dicts drop an empty dictionary on the way, which is what a plain matrix has here.
        new = {key: ours[key] for key in NEW if key in ours and key not in saved}
        return {**new, "matrix": {}, **saved}
    if not set(saved) >= FOREIGN:
        raise ValueError(
            "Muon: a parameter group of this state is neither of this optimizer nor of torch.optim.Muon; "
            f"it has {', '.join(sorted(saved))}."
        )
    kept = {name: value for name, value in saved.items() if name not in FOREIGN | {"eps"}}
    converted = {**ours, **kept, "algorithm": "muon", "scale": canonical(saved["adjust_lr_fn"] or "original")}
    names = [*ours["param_names"], *(f"group.{i}" for i in range(len(saved["params"])))][: len(saved["params"])]
    converted["param_names"] = saved.get("param_names", names)
    return converted | {"steps": saved["ns_steps"] if ours["tol"] is None else None}


def _differences(saved: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]]) -> list[str]:
    """What distinguishes two routings, in words."""
    theirs, ours = _flat(saved), _flat(groups)
    lines = [
        f"parameter {i}: saved {a or 'nothing'}, here {b or 'nothing'}"
        for i, (a, b) in enumerate(_pad(theirs, ours))
        if a != b
    ]
    return lines[:10] + ([f"... {len(lines) - 10} more"] if len(lines) > 10 else [])


def _flat(groups: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """(group, algorithm, layout) of each parameter in order, with real names where they are saved."""
    return [
        (index, *(str(group.get(key)) for key in STRUCTURE), name if not name.startswith("group") else "")
        for index, group in enumerate(groups)
        for name in group["param_names"]
    ]


def _pad(a: list[Any], b: list[Any]) -> list[tuple[Any, Any]]:
    length = max(len(a), len(b))
    return list(zip(a + [None] * (length - len(a)), b + [None] * (length - len(b)), strict=True))


def _shape_differences(
    state: dict[Any, Any], saved: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]]
) -> list[str]:
    """Saved tensors whose shape is not that of the parameter."""
    return [
        f"{name}.{key}: saved {tuple(value.shape)}, here {tuple(p.shape)}"
        for key_group, group in zip(saved, groups, strict=True)
        for settings in [Settings.of(group)]
        for index, p, name in zip(key_group["params"], group["params"], group["param_names"], strict=True)
        for key, value in state.get(index, {}).items()
        if isinstance(value, Tensor) and not _fits(key, value, p, settings)
    ]


def _fits(key: str, value: Tensor, p: Tensor, settings: Settings) -> bool:
    """Whether a saved tensor has the shape of what is kept under its name; a count may have one dimension."""
    kind = kept(settings).get(key, "entries")
    return kind == "count" or value.shape == kept_shape(kind, p, settings)


def restore(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Put saved momentum back in its own dtype, which torch's loader has rounded to that of the weights.

    Parameters that the saved state does not know get the state of a start.
    """
    saved = [index for group in state_dict["param_groups"] for index in group["params"]]
    params = [(p, settings) for group, settings in _with_settings(optimizer) for p in group["params"]]
    for index, (p, settings) in zip(saved, params, strict=True):
        entry = state_dict["state"].get(index, {})
        copied = {key: value.detach().clone() for key, value in entry.items() if isinstance(value, Tensor)}
        if p.requires_grad or any(bool(local(value).any()) for value in copied.values()):
            optimizer.state[p] = ready(copied, p, settings)
        else:  # frozen and never moved: an older state has zeros for it
            optimizer.state.pop(p, None)


def follow(optimizer: Optimizer) -> None:
    """Let the state be that of the parameters in the groups, where others have taken their places.

    Wrappers put sharded parameters into the groups of a finished optimizer; what is kept of the whole ones would fill
    the memory and could not be saved. Warns where momentum is lost by it.
    """
    found = {p: settings for group, settings in _with_settings(optimizer) for p in group["params"]}
    gone = [optimizer.state.pop(p) for p in list(optimizer.state) if p not in found]
    for p, settings in found.items():
        if p.requires_grad and p not in optimizer.state:
            ready(optimizer.state[p], p, settings)
    if any(isinstance(value, Tensor) and bool(local(value).any()) for state in gone for value in state.values()):
        warnings.warn(
            f"Muon: {len(gone)} parameters of the groups were replaced after steps had been taken; the momentum of "
            "the old ones is lost. Load a state after the replacement, or replace before the first step.",
            stacklevel=3,
        )


def _with_settings(optimizer: Optimizer) -> list[tuple[dict[str, Any], Settings]]:
    return [(group, Settings.of(group)) for group in optimizer.param_groups]
