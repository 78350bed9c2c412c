"""Outputs of inner modules by name pattern, without touching the model's code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import Tensor, nn

Capture = dict[str, list[Tensor]]


@contextmanager
def capture(model: nn.Module, patterns: str | Sequence[str], *, detach: bool = True) -> Iterator[Capture]:
    """Collect the output tensors of every submodule whose name matches a pattern.

    Patterns are shell patterns over ``model.named_modules()`` names (``"blocks.*.attention"``; ``*``
    also crosses dots). Inside the ``with`` block each call of a matching module appends one tensor to
    its list, in order of the calls. Names stand in the order in which their modules first returned, an
    inner module before the one that holds it; one that was never called is absent. Of a module that
    returns a tuple or list, its first tensor is taken. ``detach=False`` keeps the graph, for losses on
    inner outputs. The hooks are removed on the way out, also after an exception.

    Raises ``ValueError`` when a pattern matches no module, naming it and some of the names there are.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> with capture(model, "1") as seen:
    ...     _ = model(torch.ones(4, 2))
    >>> {name: [tuple(x.shape) for x in outputs] for name, outputs in seen.items()}
    {'1': [(4, 3)]}

    Source: the intermediate outputs of article 6575 (kexue.fm/archives/6575), by forward hooks.
    """
    wanted = _matching(model, [patterns] if isinstance(patterns, str) else patterns)
    seen: Capture = {}

    def keep(name: str, output: object) -> None:
        tensor = _first_tensor(name, output)
        seen.setdefault(name, []).append(tensor.detach() if detach else tensor)

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, module in wanted.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _matching(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in modules):
            some = ", ".join(repr(name) for name in list(modules)[1:6])
            raise ValueError(f"capture: pattern {pattern!r} matches no module; the names begin with {some}.")
    return {n: m for n, m in modules.items() if any(fnmatchcase(n, pattern) for pattern in patterns)}


def _first_tensor(name: str, output: object) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)):
        for item in output:
            if isinstance(item, Tensor):
                return item
    raise TypeError(f"capture: module {name!r} returned {type(output).__name__}, which holds no tensor.")
