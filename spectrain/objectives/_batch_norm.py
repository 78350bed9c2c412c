"""Exact accumulation through batch normalisation: statistics of the whole batch, computed and differentiated by chunks.

Article 8471 leaves it as an exercise. A batch normalisation makes every example depend on all others, but only through
two vectors, the mean and variance s of its input. With the s_1 ... s_L of a forward pass given, examples are on their
own again: the loss is L(h(theta, s)), and s_l = S_l(theta, s_1 ... s_{l-1}), a sum over examples. So

- s_1, s_2, ... are computed one after the other, each by a pass over all chunks that stops there;
- the usual two passes give dL/dtheta and dL/ds with s held fixed;
- from the last s to the first, dL/ds_l is sent back through S_l: a pass that stops at l, with the derivative
  (a + 2 b (x - mean)) / N for its input x, where a and b are those with respect to mean and variance. It adds to
  dL/dtheta and to dL/ds of the layers before.

That is the gradient of the whole batch, in the memory of a chunk, for L more passes forward and L more with a backward.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Run = Callable[[int], None]  # one chunk through the encoder, from its own random state


class Statistics(NamedTuple):
    """Of the input of one batch normalisation over a whole batch: values of each channel, and how many they are."""

    module: _BatchNorm
    mean: Tensor
    variance: Tensor
    size: int


class _StopError(Exception):
    """A forward pass has come to where it was to stop."""


class BatchNorms:
    """The batch normalisations of one tower's encoder, in the order in which a forward pass meets them."""

    def __init__(self, encoder: nn.Module) -> None:
        self.current: _BatchNorm | None = None
        self.first: Statistics | None = None
        self.modules = [m for m in encoder.modules() if isinstance(m, _BatchNorm) and m.training]
        self.known: list[Statistics] = []
        self.place, self.stop, self.seen = 0, -1, torch.empty(0)

    @contextmanager
    def given(self) -> Iterator[None]:
        """Inside, they normalise by what is known."""
        for module in self.modules:
            module.forward = lambda x, m=module: self._normalise(m, x)  # type: ignore[method-assign, misc]
        try:
            yield
        finally:
            for module in self.modules:
                del module.forward

    def begin(self) -> None:
        """A forward pass begins."""
        self.place = 0

    @torch.no_grad()
    def measure(self, run: Run, chunks: int) -> None:
        """Compute all statistics, each from those before it."""
        while True:
            parts = [self.inputs(run, i, len(self.known)) for i in range(chunks)]
            if not parts or any(part is None for part in parts):
                if any(part is not None for part in parts):
                    raise ValueError(
                        "Contrastive: batch_norm='exact' needs encoders that normalise alike in every chunk."
                    )
                return
            self.known.append(_merged([part for part in parts if part is not None]))

    def inputs(self, run: Run, chunk: int, place: int) -> Statistics | None:
        """The statistics of one chunk at that place; None where a forward pass ends before it.

        The first pass goes on to the end, by the statistics of the chunk, so that each chunk draws its own randomness.
        """
        if place:
            return None if self._reach(run, chunk, place) is None else self._of(self.seen)
        self.first = None
        run(chunk)
        return self.first

    def _reach(self, run: Run, chunk: int, place: int) -> Tensor | None:
        self.stop = place
        try:
            run(chunk)
        except _StopError:
            return self.seen
        finally:
            self.stop = -1
        return None

    def fix(self) -> None:
        """From here on derivatives with respect to the statistics are gathered in their ``grad``."""
        self.known = [s._replace(mean=_leaf(s.mean), variance=_leaf(s.variance)) for s in self.known]

    def send_back(self, run: Run, chunks: int) -> None:
        """Send the derivatives of all statistics to the parameters, from the last to the first."""
        for place in reversed(range(len(self.known))):
            _, mean, variance, size = self.known[place]
            if mean.grad is None or variance.grad is None:
                continue
            a, b = mean.grad / size, 2 * variance.grad / size
            for i in range(chunks):
                with torch.enable_grad():
                    x = self._reach(run, i, place)
                if x is not None and x.requires_grad:
                    wide = x.detach().to(mean.dtype)
                    pull = _along(a, x) + _along(b, x) * (wide - _along(mean.detach(), x))
                    torch.autograd.backward(x, pull.to(x.dtype))

    @torch.no_grad()
    def keep(self) -> None:
        """Move the running statistics, once, as a forward pass of the whole batch does."""
        for module, mean, variance, size in self.known:
            if module.running_mean is None or module.running_var is None or module.num_batches_tracked is None:
                continue
            module.num_batches_tracked.add_(1)
            share = 1 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
            module.running_mean.lerp_(mean.detach().to(module.running_mean.dtype), share)
            unbiased = variance.detach() * (size / max(size - 1, 1))
            module.running_var.lerp_(unbiased.to(module.running_var.dtype), share)

    def _normalise(self, module: _BatchNorm, x: Tensor) -> Tensor:
        place, self.place = self.place, self.place + 1
        if place == self.stop:
            self.seen, self.current = x, module
            raise _StopError
        if place >= len(self.known):
            self.current = module
            found = self._of(x)
            self.first = self.first or found
        else:
            found = self.known[place]
        _, mean, variance, _ = found
        wide = x.to(mean.dtype)
        y = (wide - _along(mean, x)) * _along((variance + module.eps).rsqrt(), x)
        if module.weight is not None:
            y = y * _along(module.weight, x) + _along(module.bias, x)
        return y.to(x.dtype)

    def _of(self, x: Tensor) -> Statistics:
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        others = [dim for dim in range(x.ndim) if dim != 1]
        variance, mean = torch.var_mean(wide, dim=others, correction=0)
        assert self.current is not None
        return Statistics(self.current, mean, variance, x.numel() // x.shape[1])


def _merged(parts: Sequence[Statistics]) -> Statistics:
    """The statistics of all parts together (Chan, Golub and LeVeque 1979), without a difference of large squares."""
    size = sum(part.size for part in parts)
    shares = [part.size / size for part in parts]
    mean = torch.stack([part.mean * share for part, share in zip(parts, shares, strict=True)]).sum(0)
    spread = [part.variance + (part.mean - mean).square() for part in parts]
    variance = torch.stack([each * share for each, share in zip(spread, shares, strict=True)]).sum(0)
    return Statistics(parts[0].module, mean, variance, size)


def _leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """A vector of channels in the dimensions of ``x``, whose second one counts channels."""
    return channels.view(1, -1, *[1] * (x.ndim - 2))


def check_exact(encoders: Sequence[Any]) -> None:
    """Raise ``ValueError`` for encoders that the passes above do not go through."""
    for encoder in encoders:
        if not isinstance(encoder, nn.Module) or hasattr(encoder, "no_sync"):
            raise ValueError(
                "Contrastive: batch_norm='exact' needs encoders that are modules, not wrapped for several ranks, got "
                f"{type(encoder).__name__}."
            )
        if any(isinstance(m, nn.SyncBatchNorm) and m.training for m in encoder.modules()):
            raise ValueError("Contrastive: batch_norm='exact' does not know SyncBatchNorm; use BatchNorm on one rank.")
