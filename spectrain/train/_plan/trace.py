"""What a piece of a model does on the way there and back, operation by operation, without doing it."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_NO_WORK = ("_unsafe_view", "detach", "empty", "empty_like", "new_empty", "empty_strided")


class Operation(NamedTuple):
    """One call: its operations (a multiplication and an addition are two), the bytes it reads and writes, its size.

    ``size`` is the cube root of rows x inner x columns of a product, the length of attention, and else 0.
    """

    flops: float
    bytes: int
    size: float
    dtype: str
    fused: bool


@dataclass
class Trace:
    """What a piece does, and what it keeps.

    ``saved``: bytes that autograd keeps from the way there for the way back, weights and inputs left out.
    ``peak``: the most bytes at any moment of both ways, weights and inputs left out; gradients count from the moment
    at which they are there. ``gradients``: bytes of those of the weights. ``given``: bytes of the inputs.
    """

    forward: list[Operation] = field(default_factory=list)
    backward: list[Operation] = field(default_factory=list)
    saved: int = 0
    peak: int = 0
    gradients: int = 0
    given: int = 0


def trace(make: Callable[[], tuple[nn.Module, Callable[[], Tensor], list[Tensor]]]) -> Trace:
    """Run a piece there and back on tensors that have shapes and no content, and look at what happens.

    ``make`` gives the module, what runs it, and its inputs. Torch itself says what is called and what autograd keeps,
    so that any module counts for what it does. What depends on values, as which expert takes a token, cannot be known.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # loads for a second

    found = Trace()
    with FakeTensorMode():
        module, run, inputs = make()
        free = {*map(_storage, [*module.parameters(), *module.buffers(), *inputs])}
        found.given = sum(_bytes(x) for x in inputs)
        live = _Live()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: _keep(t, kept), lambda t: t), live:
            kept: dict[int, int] = {}
            out = run()
        found.forward, live.operations = live.operations, []
        found.saved = sum(size for storage, size in kept.items() if storage not in free)
        with live:
            given = torch.ones_like(out)
            edge = torch.autograd.graph.get_gradient_edge(out)
            del out  # which the next piece has in a run, or nobody
            torch.autograd.backward((edge,), (given,))
        found.backward = live.operations
        found.gradients = sum(_bytes(p.grad) for p in module.parameters() if p.grad is not None)
        found.peak = max(found.saved, live.most)
    return found


class _Live(TorchDispatchMode):
    """Writes down every call, and counts the bytes that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.now = self.most = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace == "aten" and not func.is_view and func._overloadpacket.__name__ not in _NO_WORK:
            self.operations.append(_operation(func, args, kwargs or {}, out))
            for tensor in _tensors(out):
                self._watch(tensor)
        return out

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self._known:
            return
        size = storage.nbytes()
        self._known[place] = weakref.ref(storage, lambda _: self._gone(place, size))
        self.now += size
        self.most = max(self.most, self.now)

    def _gone(self, place: int, size: int) -> None:
        if self._known.pop(place, None) is not None:
            self.now -= size


def _operation(func: Any, args: Any, kwargs: Any, out: Any) -> Operation:
    given, made = _tensors((args, kwargs)), _tensors(out)
    moved = sum(_bytes(tensor) for tensor in (*given, *made))
    dtype = str((made or given or [torch.empty(0)])[0].dtype).removeprefix("torch.")
    name = func._overloadpacket.__name__
    if "scaled_dot_product" in name:
        flops, length = _attention(name, given)
        return Operation(flops, moved, float(length), dtype, True)
    count = flop_registry.get(func._overloadpacket)
    if count is None:
        return Operation(0.0, moved, 0.0, dtype, False)
    flops = float(count(*args, **kwargs, out_val=out))
    batch = given[0].shape[0] if given[0].ndim == 3 else 1
    return Operation(flops, moved, (flops / 2 / max(1, batch)) ** (1 / 3), dtype, False)


def _attention(name: str, given: list[Tensor]) -> tuple[float, int]:
    """Operations of softmax(Q K^T) V, and the length l.

    There are 2 l^2 heads (head_dim + value_dim), half of them where it is causal, as here. Back it is 2.5 times as
    much: scores again, and four products more (FlashAttention-2, arXiv 2307.08691).
    """
    back = "backward" in name
    query, _, value = given[1:4] if back else given[:3]
    rows, heads, length, size = query.shape
    return rows * heads * length**2 * (size + value.shape[-1]) * (2.5 if back else 1.0), length


def _keep(tensor: Tensor, kept: dict[int, int]) -> Tensor:
    kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
    return tensor


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors(found: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
