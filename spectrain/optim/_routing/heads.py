"""Which weights are output heads: as the caller says, as the model declares, by name, and last by place.

They are told from other maps since they want AdamW (article 11416, kexue.fm/archives/11416).
"""

import inspect
import re
import warnings
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from spectrain.optim._routing.known import HEAD, HIDDEN, known_parameters
from spectrain.optim._routing.role import weight_of

NAMES = re.compile(
    r"lm_head|heads?|classifier|score|unembed|embed_out|output|to_logits|fc_out|action_net|value_net|"
    r"(?!query_|ref|pre_).+_(head|classifier|predictor)"
)
# Modules of several layers, of which the last is a head.
PARTS = re.compile(
    r"lm_head|heads?|classifier|actor|actor_mean|critic|policy|(?!query_|ref|pre_).+_(head|classifier|predictor)"
)
MAPS = (nn.Linear, nn.modules.conv._ConvNd)


class Map(NamedTuple):
    """A module that is one matrix, and its weight or the parameter that it is made of."""

    name: str
    module: nn.Module
    weight: Tensor


class Heads(NamedTuple):
    """Weights of output heads, each with the reason; ``guess``: one that only stands last."""

    reasons: dict[Tensor, str]
    guess: Tensor | None = None


def output_heads(model: nn.Module, patterns: Sequence[str] | None = None) -> Heads:
    """Return the output heads.

    ``patterns`` of parameter names decide alone, where given. Else: what ``get_output_embeddings()`` of transformers
    and ``get_classifier()`` of timm return, at any depth; what is known of modules; outside of those that declare, maps
    under a usual name outside of numbered blocks, and the last map of a module under one. Where that finds nothing: the
    last map of a Sequential, which computes its output; else, as a guess, the last map of the model, unless it is
    inside of a block.
    """
    if patterns is not None:
        return Heads(_given(model, patterns))
    maps = list(_maps(model))
    speakers, found = _declared(model)
    hidden = {p for _, _, _, p, line in known_parameters(model) if line.what == HIDDEN}
    found |= dict(_known(model))
    if "" in _bare(model):
        return Heads(found)
    silent = [each for each in maps if not any(each.name.startswith(speaker) for speaker in speakers)]
    for name, _, weight in [*_named(silent), *_ends(silent, found)]:
        if weight not in hidden:
            found.setdefault(weight, f"output head (named {name})")
    without = {each.weight for each in maps if each.name.startswith((*speakers, *_bare(model)))}
    return Heads(found) if found else _last(model, maps, hidden | without)


def warn_of_guess(name: str, *, stacklevel: int) -> None:
    """Warn that a head is a guess."""
    warnings.warn(
        f"Nothing says which layer is the output head. {name} is taken for it because it is the last map of the model, "
        f"and goes to AdamW. Say heads=[{name!r}] if that is right, name the heads if not, heads=[] if there is none.",
        stacklevel=stacklevel + 1,
    )


def _given(model: nn.Module, patterns: Sequence[str]) -> dict[Tensor, str]:
    if isinstance(patterns, str):
        raise TypeError(f"heads= is a list of patterns of parameter names, got the string {patterns!r}.")
    names = [name for name, p in model.named_parameters(remove_duplicate=False) if p.ndim > 1]
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
    if idle:
        raise ValueError(f"These heads match no parameter of two dimensions: {', '.join(idle)}. They are: {names}.")
    return {
        p: f"output head (heads={pattern!r})"
        for pattern in reversed(patterns)
        for name, p in model.named_parameters(remove_duplicate=False)
        if p.ndim > 1 and fnmatchcase(name, pattern)
    }


def _declared(model: nn.Module) -> tuple[list[str], dict[Tensor, str]]:
    """What models say by a method, also those inside of wrappers and of other models, and their paths.

    One with ``get_classifier`` has said all about heads, also where that returns none.
    """
    speakers: list[str] = []
    found: dict[Tensor, str] = {}
    for path, module in model.named_modules():
        for method in ("get_classifier", "get_output_embeddings"):
            heads = _called(module, method)
            if heads or (method == "get_classifier" and hasattr(type(module), method)):
                speakers.append(f"{path}." if path else "")
            for head in heads:
                own = head._parameters.get("weight")
                weights = [each.weight for each in _maps(head)] if own is None else [own]
                found |= {weight: f"output head ({method})" for weight in weights if weight not in found}
    return speakers, found


def _called(module: nn.Module, method: str) -> list[nn.Module]:
    """The modules that a method without arguments returns, one or several; none where there is no such method."""
    get = getattr(module, method, None) if hasattr(type(module), method) else None
    needs = callable(get) and [p for p in inspect.signature(get).parameters.values() if p.default is p.empty]
    found = None if get is None or needs else get()
    return [head for head in (found if isinstance(found, (tuple, list)) else (found,)) if isinstance(head, nn.Module)]


def _known(model: nn.Module) -> Iterator[tuple[Tensor, str]]:
    for prefix, name, module, p, line in known_parameters(model):
        if line.what == HEAD and not re.search(r"\d", prefix):
            yield p, f"output head ({name} of {type(module).__name__})"


def _named(maps: list[Map]) -> list[Map]:
    """Maps under a usual name outside of numbered blocks."""
    return [each for each in maps if NAMES.fullmatch(each.name.rsplit(".", 1)[-1]) and not re.search(r"\d", each.name)]


def _ends(maps: list[Map], found: dict[Tensor, str]) -> list[Map]:
    """The last map of each module under a usual name, where none in it is a head already."""
    taken = {each.name for each in _named(maps)} | {each.name for each in maps if each.weight in found}
    last: dict[str, Map] = {}
    for each in maps:
        path = each.name.split(".")
        for i, part in enumerate(path[:-1]):
            above = ".".join(path[: i + 1])
            if PARTS.fullmatch(part) and not re.search(r"\d", above):
                last[above] = each
                break
    return [end for above, end in last.items() if not any(name.startswith(above + ".") for name in taken)]


def _bare(model: nn.Module) -> list[str]:
    """The paths of models of transformers that have no head, to which others add one."""
    return [
        f"{path}." if path else ""
        for path, module in model.named_modules()
        if getattr(module, "base_model", None) is module
        if callable(getattr(type(module), "get_output_embeddings", None))
    ]


def _last(model: nn.Module, maps: list[Map], hidden: set[Tensor]) -> Heads:
    """The last map, where nothing says that it is a hidden one."""
    if not maps or maps[-1].name == "" or maps[-1].weight in hidden:
        return Heads({})
    last = maps[-1]
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    tied = any(each.weight in embeddings for each in maps)
    if tied or _is_in_a_block(model, last) or any(_are_twins(each, last) for each in maps[:-1]):
        return Heads({})
    if _output_of(model) is last.module:
        return Heads({last.weight: "output head (the last map of a Sequential)"})
    return Heads({last.weight: "output head (a guess: the last map of the model)"}, last.weight)


def _is_in_a_block(model: nn.Module, found: Map) -> bool:
    """Whether a map is a part of an entry of a ModuleList, of which there may be one only."""
    above = found.name.split(".")[:-2]
    return any(isinstance(model.get_submodule(".".join(above[:i])), nn.ModuleList) for i in range(1, len(above) + 1))


def _are_twins(a: Map, b: Map) -> bool:
    """Whether two maps are the same layer of two blocks."""
    return name_pattern(a.name) == name_pattern(b.name) and a.weight.shape == b.weight.shape


def _output_of(model: nn.Module) -> nn.Module | None:
    """The map whose output is that of a Sequential, but for what comes after without matrices."""
    if not isinstance(model, nn.Sequential):
        return model if _is_map(model) else None
    with_maps = [child for child in model if any(p.ndim > 1 for p in child.parameters())]
    return _output_of(with_maps[-1]) if with_maps else None


def _maps(model: nn.Module) -> Iterator[Map]:
    for name, module in model.named_modules():
        weight = weight_of(module) if _is_map(module) else None
        if weight is not None:
            yield Map(name, module, weight)


def _is_map(module: nn.Module) -> bool:
    """Whether a module is one matrix; the output of ``nn.MultiheadAttention`` is a part of it."""
    return isinstance(module, MAPS) and not isinstance(module, NonDynamicallyQuantizableLinear)


def name_pattern(name: str) -> str:
    """A name with its numbers left out, equal for the same layer of other blocks."""
    return re.sub(r"\d+", "#", name)
