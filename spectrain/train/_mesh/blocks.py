"""What is done to blocks with and without other ranks: computed by one graph, or again on the way back."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(blocks: nn.ModuleList) -> None:
    """Let blocks forget what is inside of them on the way there, and compute it again on the way back."""
    for block in blocks:
        block.forward = functools.partial(_again, block.forward)


def compile_blocks(blocks: nn.ModuleList) -> None:
    """Let blocks compute by one graph of Inductor, in whose calls weights are gathered already: before ``divide``.

    What is around them, the embedding, the head and what meets other ranks, stays outside of graphs.
    """
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False, fullgraph=True)


def _again(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():  # nothing comes back
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, **options)
