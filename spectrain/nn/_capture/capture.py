"""Outputs of inner modules by name pattern: looked at, measured or changed, without touching the model's code."""

import difflib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from spectrain.nn._capture.first_tensor import Put, first_tensor
from spectrain.nn._capture.tap import Tap

Capture = dict[str, Sequence[Tensor]]
Edit = Callable[[Tensor], Tensor]
Look = Callable[[str, Tensor], Tensor | None]


@contextmanager
def capture(
    model: nn.Module,
    patterns: str | Sequence[str],
    *,
    detach: bool = True,
    last: int | None = None,
    edits: Mapping[str, Edit] | None = None,
) -> Iterator[Capture]:
    """Collect the output tensors of every submodule whose name matches a pattern.

    Patterns are shell patterns over ``model.named_modules()`` names (``"blocks.*.attention"``; ``*``
    also crosses dots). Inside the ``with`` block each call of a matching module appends one tensor to
    its list, in order of the calls. Names stand in the order in which their modules first returned, an
    inner module before the one that holds it; one that was never called is absent. Of a module that
    returns several values (a tuple or list, named or not, a dictionary, an output of transformers, a
    dataclass) the first tensor is taken. ``last`` keeps that many tensors a name, so that memory stays
    bounded.

    What is collected is a copy, so that it stays what it was when the module returned, also where the model
    goes on in place. ``detach=False`` keeps the graph, for losses on inner outputs and derivatives by them:
    then the model goes on with a second copy.

    Values that are no module's output have names too: ``queries``, ``keys`` and ``maps`` of each
    :class:`Attention`. ``maps``, which costs length^2, is taken only by patterns that end in ``maps``.

    ``edits`` maps patterns to functions: what they make of the output is what the model goes on with, and
    what is collected.

    A compiled model runs eagerly inside the block (``torch.compiler.set_stance``), since compiled graphs
    drop hooks: the same values, to rounding, at the speed of eager code. The hooks are removed on the way
    out, also after an exception.

    Raises ``ValueError`` when a pattern matches no module, naming the nearest names; ``TypeError`` for a
    matching module that returns no tensor.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> with capture(model, "1") as seen:
    ...     _ = model(torch.ones(4, 2))
    >>> {name: [tuple(x.shape) for x in outputs] for name, outputs in seen.items()}
    {'1': [(4, 3)]}

    Source: the intermediate outputs of article 6575 (kexue.fm/archives/6575), by forward hooks.
    """
    if last is not None and last < 1:
        raise ValueError(f"capture: last must be at least 1 tensor a name, or None for all, got {last}.")
    seen: Capture = {}

    def keep(name: str, tensor: Tensor) -> Tensor | None:
        kept = seen.setdefault(name, [] if last is None else deque(maxlen=last))
        assert isinstance(kept, (list, deque))
        copied = (tensor.detach() if detach else tensor).clone()
        kept.append(copied)
        return None if detach else copied.clone()  # on its way, so that derivatives by what is kept exist

    with visit(model, patterns, keep, edits=edits or {}):
        yield seen


@contextmanager
def visit(
    model: nn.Module,
    patterns: str | Sequence[str],
    look: Look,
    *,
    edits: Mapping[str, Edit],
) -> Iterator[None]:
    """Call ``look(name, output)`` for each output of a matching module, after the edits of it.

    Where it returns a tensor, the model goes on with that.
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile: the names are those of the model inside
    watched = find_matches(model, [patterns] if isinstance(patterns, str) else patterns)
    edited = {pattern: find_matches(model, [pattern]) for pattern in edits}
    with ExitStack() as hooks:
        hooks.enter_context(torch.compiler.set_stance("force_eager"))
        for pattern, modules in edited.items():
            for name, module in modules.items():
                hooks.callback(module.register_forward_hook(_edit_hook(name, edits[pattern])).remove)
        for name, module in watched.items():
            hooks.callback(module.register_forward_hook(_look_hook(name, look)).remove)
        yield


def _look_hook(name: str, look: Look) -> Callable[..., object]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> object:
        tensor, put = _tensor_of(name, output)
        new = look(name, tensor)
        return None if new is None else put(new)

    return hook


def _edit_hook(name: str, edit: Edit) -> Callable[..., object]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> object:
        tensor, put = _tensor_of(name, output)
        new = edit(tensor)
        if not isinstance(new, Tensor) or new.shape != tensor.shape:
            got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ValueError(
                f"capture: the edit of {name!r} must give a tensor of shape {tuple(tensor.shape)}, got {got}."
            )
        return put(new)

    return hook


def find_matches(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """The submodules that any pattern matches, by name; ``ValueError`` for a pattern without one."""
    modules = dict(model.named_modules())
    found = {pattern: {n: m for n, m in modules.items() if _matches(n, m, pattern)} for pattern in patterns}
    for pattern, matched in found.items():
        if not matched:
            costly = [name for name in modules if fnmatchcase(name, pattern)]
            near = f"it must end in the name for {costly[0]!r}" if costly else _nearest(pattern, list(modules))
            raise ValueError(f"capture: pattern {pattern!r} matches no module; {near}.")
    return {name: module for name, module in modules.items() if any(name in matched for matched in found.values())}


def _matches(name: str, module: nn.Module, pattern: str) -> bool:
    costly = isinstance(module, Tap) and module.costly
    return fnmatchcase(name, pattern) and (not costly or pattern.endswith(name.rpartition(".")[2]))


def _nearest(pattern: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
    return f"the nearest names are {', '.join(map(repr, near))}" if near else f"the names begin with {names[1:6]}"


def _tensor_of(name: str, output: object) -> tuple[Tensor, Put]:
    found = first_tensor(output)
    if found is None:
        raise TypeError(f"capture: module {name!r} returned {type(output).__name__}, which holds no tensor.")
    return found
