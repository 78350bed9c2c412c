"""How a model's experts are loaded by text that it does not learn from."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from spectrain.nn._experts.balance import Loads
from spectrain.nn._experts.moe import MoE
from spectrain.nn._experts.router import Routing


@contextmanager
def expert_loads(model: nn.Module) -> Iterator[dict[str, Loads]]:
    """Count the tokens that each expert of each :class:`MoE` takes in all forward passes inside the block.

    By name of the layer, in the order of the model; empty without such layers. Training, evaluation and recomputation
    count alike, tokens whose scores are not finite never, and what :meth:`MoE.update_bias` will see is left alone. A
    compiled model runs eagerly inside the block, as in :func:`capture`. Divide no sums: :attr:`Loads.max_violation` is
    that of the whole text.

    >>> moe = MoE(8, experts=4, top_k=1, hidden=8, generator=0).eval()
    >>> with expert_loads(moe) as seen:
    ...     _ = moe(torch.ones(2, 3, 8))                         # equal tokens: one expert takes all
    >>> seen[""].tokens, seen[""].max_violation
    (6, 3.0)
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    layers = {name: module for name, module in model.named_modules() if isinstance(module, MoE)}
    seen = {name: Loads(torch.zeros_like(layer.loads), 0) for name, layer in layers.items()}
    with ExitStack() as hooks:
        hooks.enter_context(torch.compiler.set_stance("force_eager"))
        for name, layer in layers.items():
            hooks.callback(layer.router.register_forward_hook(_add_hook(seen, name)).remove)
        yield seen


def _add_hook(seen: dict[str, Loads], name: str) -> Callable[[nn.Module, object, Routing], None]:
    def hook(_module: nn.Module, _inputs: object, routing: Routing) -> None:
        counts, tokens = seen[name]
        seen[name] = Loads(counts + routing.loads, tokens + int(routing.sound.sum()))

    return hook
