"""Average velocities of a flow, learned without integrals, and samples in any number of steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spectrain.objectives._intervals import draw_intervals
from spectrain.objectives._jvp import jvp
from spectrain.objectives._modes import Law, Objective

Velocity = Callable[..., Tensor]
OBJECTIVES = ("full", "model", "data", "flow", "leaky", "shortcut")


@dataclass(frozen=True)
class Drawn:
    """A batch on its way: points of the path, the interval of each, and what is to be learned there."""

    x: Tensor
    r: Tensor
    t: Tensor
    towards: Tensor
    """x_1 - x_0"""
    labels: Tensor | None
    kept: Tensor | None
    """Where the label was not dropped; None where none can be."""

    def split(self, size: int) -> list["Drawn"]:
        """The same draws in parts: their mean losses, weighted by size, make the loss of the whole."""
        return [self._part(slice(i, i + size)) for i in range(0, len(self.x), size)]

    def _part(self, part: slice) -> "Drawn":
        optional = (None if v is None else v[part] for v in (self.labels, self.kept))
        return Drawn(self.x[part], self.r[part], self.t[part], self.towards[part], *optional)


class MeanFlow:
    """Train ``u(x, r, t)``, the average velocity of a flow over [r, t], and sample from it.

    The path x_t = (1 - t) x_0 + t x_1 leads from data x_0 to normal noise x_1. With
    u(x_t, r, t) = 1/(t - r) * integral of v from r to t, differentiating (t - r) u by t along the path gives

        v(x_t, t) = u + (t - r) D,      D = w . du/dx + du/dt,      w = v(x_t, t) = u(x_t, t, t),

    and v is regressed on x_1 - x_0, as in flow matching. ``objective`` says what stands for w and whether D is
    differentiated:

    - ``'full'``: w = u(x, t, t), everything differentiated. One plain objective with the right minimum; the
      dearest, as it differentiates a derivative.
    - ``'model'``: w = u(x, t, t), D held constant (also known as improved MeanFlow).
    - ``'data'``: w = x_1 - x_0, D held constant: the published MeanFlow, and the cheapest.
    - ``'flow'``: r = t throughout, so D plays no part: plain flow matching, the baseline.

    Two more are controls, for comparisons. ``'leaky'``: w = x_1 - x_0, everything differentiated; what is regressed on
    is then in what regresses, and the average velocity is not where the loss is least. ``'shortcut'``: flow matching at
    instants, elsewhere u(x, r, t) is regressed on the mean of u over the two halves of the interval, held constant.

    Args:
        u: a module or callable ``u(x, r, t, **condition)`` with r and t of shape ``(batch,)``.
        objective: see above.
        law, mean, std, instants: how (r, t) are drawn: :func:`draw_intervals`.
        power: each example's squared error e is weighted by 1/(e + floor)**power, held constant. 0: no weights.
        floor: see ``power``.
        guidance: classifier-free guidance omega built into the target (1: none): v becomes
            omega (x_1 - x_0) + kappa u(x, t, t | label) + (1 - omega - kappa) u(x, t, t | null).
        kappa: see ``guidance``; the effective scale is omega / (1 - kappa).
        null: the label that means "no label"; needed for guidance and for ``drop``.
        drop: share of the labels replaced by ``null`` in training.

    The derivative is computed in float32 or wider, outside autocast, by forward mode without a graph (``'full'``
    apart), and attention runs in its plain form meanwhile. Gradients flow through ``u`` itself, so the hooks of
    DistributedDataParallel see every one of them.

    Cost of a step: forward and backward of u, and for ``'data'`` about two more forward passes; ``'model'`` one more.

    Source: Geng et al., "Mean flows for one-step generative modeling" (arXiv 2505.13447); the three objectives are
    those of kexue.fm/archives/10958; ``'model'`` is that of arXiv 2512.02012, ``'shortcut'`` of arXiv 2410.12557.

    >>> flow = MeanFlow(lambda x, r, t: x * t[:, None])
    >>> loss = flow(torch.randn(8, 2), generator=torch.Generator().manual_seed(0))
    >>> loss.shape, flow.sample(torch.randn(5, 2), steps=4).shape
    (torch.Size([]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        u: Velocity,
        *,
        objective: Objective = "data",
        law: Law = "logit-normal",
        mean: float | int = -0.4,
        std: float | int = 1.0,
        instants: float | int = 0.75,
        power: float | int = 1.0,
        floor: float | int = 1e-3,
        guidance: float | int = 1.0,
        kappa: float | int = 0.0,
        null: int | None = None,
        drop: float | int = 0.1,
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f"MeanFlow knows the objectives {', '.join(OBJECTIVES)}, got {objective!r}.")
        if power < 0 or floor <= 0:
            raise ValueError(f"MeanFlow needs power >= 0 and floor > 0, got power={power}, floor={floor}.")
        if guidance != 1 and null is None:
            raise ValueError(
                "MeanFlow: guidance compares with the unlabelled velocity; say which label is none: null=."
            )
        if not 0 <= drop < 1 or not 0 <= kappa < 1 or not guidance > 0:
            raise ValueError(
                f"MeanFlow needs 0 <= drop < 1, 0 <= kappa < 1, guidance > 0, got {drop=}, {kappa=}, {guidance=}."
            )
        self.u, self.objective, self.power, self.floor = u, objective, power, floor
        self.guidance, self.kappa, self.null, self.drop = guidance, kappa, null, drop
        share = 1.0 if objective == "flow" else instants
        self.intervals = lambda count, generator: draw_intervals(
            count, law=law, mean=mean, std=std, instants=share, generator=generator
        )

    def __call__(
        self, data: Tensor, labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The training loss of a batch of data (first dimension: examples); a scalar to call ``backward`` on.

        ``generator`` decides noise, intervals and dropped labels; None draws from torch's global generator.

        Raises as :meth:`draw` and :meth:`loss` do, which this calls one after the other.
        """
        return self.loss(self.draw(data, labels, generator=generator))

    def draw(self, data: Tensor, labels: Tensor | None = None, *, generator: torch.Generator | None = None) -> Drawn:
        """Noise, intervals and dropped labels for a batch of data; ``split`` them where memory is short.

        Raises ``ValueError`` for an empty batch and for guidance without labels.
        """
        if data.shape[0] == 0:
            raise ValueError("MeanFlow: the batch holds no example.")
        if self.guidance != 1 and labels is None:
            raise ValueError("MeanFlow: guidance needs labels.")
        wide = data.float() if data.dtype.itemsize < 4 else data
        noise = torch.randn(wide.shape, generator=generator, dtype=wide.dtype).to(wide.device)
        r, t = (part.to(wide) for part in self.intervals(len(wide), generator))
        x = _along(1 - t, wide) * wide + _along(t, wide) * noise
        return Drawn(x, r, t, noise - wide, *self._labels(labels, generator))

    def _labels(self, labels: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor | None, Tensor | None]:
        """The labels as the model sees them, and where they were not dropped."""
        if labels is None or self.null is None:
            return labels, None
        dropped = (torch.rand(len(labels), generator=generator) < self.drop).to(labels.device)
        return torch.where(dropped, self.null, labels), ~dropped

    def loss(self, drawn: Drawn) -> Tensor:
        """The mean of ``w e`` over what was drawn, e of :meth:`errors` and w = 1/(e + floor)**power held constant."""
        return self.weigh(self.errors(drawn))

    def weigh(self, errors: Tensor) -> Tensor:
        """The mean of errors by the adaptive weights; its value says little, its gradient trains."""
        return ((errors.detach() + self.floor) ** -self.power * errors).mean()

    def errors(self, drawn: Drawn) -> Tensor:
        """``|u + (t - r) D - (x_1 - x_0)|^2`` of each example, summed over its entries.

        Raises ``ValueError`` for active dropout in ``u`` (its derivative would belong to other masks),
        ``FloatingPointError`` saying which part is not finite.
        """
        _refuse_dropout(self.u)
        x, r, t, labels = drawn.x, drawn.r, drawn.t, drawn.labels
        condition = {} if labels is None else {"labels": labels}
        target = self._guided(x, t, drawn.towards, labels, drawn.kept)
        if self.objective == "full":
            # The instant velocity goes through u itself, so that DDP prepares for this backward pass.
            value, change = self._change(x, r, t, self.u(x, t, t, **condition), condition)
        elif self.objective == "leaky":
            value = self.u(x, r, t, **condition)
            change = self._change(x, r, t, target, condition)[1]
        elif self.objective == "shortcut":
            with torch.no_grad():
                target = self._halves(x, r, t, target, condition)
            value, change = self.u(x, r, t, **condition), torch.zeros_like(x)
        else:
            with torch.no_grad():
                change = self._constant_change(x, r, t, target, condition)
            value = self.u(x, r, t, **condition)
        error = (value + _along(t - r, x) * change - target).flatten(1).square().sum(1)
        for name, part in (("the velocity", value), ("its derivative along the path", change), ("the error", error)):
            if not torch.isfinite(part).all():
                raise FloatingPointError(f"MeanFlow: {name} is not finite at {int((~part.isfinite()).sum())} entries")
        return error

    def _halves(self, x: Tensor, r: Tensor, t: Tensor, target: Tensor, condition: dict[str, Any]) -> Tensor:
        """The mean of u over [s, t] and, from where that leads, [r, s], s in the middle; ``target`` at instants."""
        moving = r < t
        part = {name: value[moving] for name, value in condition.items()}
        inner, found = _inside(self.u), target.clone()
        x, r, t = x[moving], r[moving], t[moving]
        s = (r + t) / 2
        late = inner(x, s, t, **part).to(x.dtype)
        early = inner(x - _along(t - s, x) * late, r, s, **part).to(x.dtype)
        found[moving] = (late + early) / 2
        return found

    def _constant_change(self, x: Tensor, r: Tensor, t: Tensor, target: Tensor, condition: dict[str, Any]) -> Tensor:
        moving = r < t  # where r = t the derivative is multiplied by zero: do not pay for it
        change = torch.zeros_like(x)
        if not moving.any():
            return change
        part = {name: value[moving] for name, value in condition.items()}
        inner = _inside(self.u)
        with torch.autocast(x.device.type, enabled=False):
            at = (x[moving], r[moving], t[moving])
            w = target[moving] if self.objective == "data" else inner(at[0], at[2], at[2], **part).to(x.dtype)
            change[moving] = self._change(*at, w, part)[1].to(x.dtype)
        return change

    def _change(self, x: Tensor, r: Tensor, t: Tensor, w: Tensor, condition: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """``u`` and its derivative in the direction (w, 0, 1)."""
        inner = _inside(self.u)
        directions = (w, torch.zeros_like(r), torch.ones_like(t))
        return jvp(lambda x, r, t: inner(x, r, t, **condition), (x, r, t), directions)

    @torch.no_grad()
    def _guided(self, x: Tensor, t: Tensor, towards: Tensor, labels: Tensor | None, kept: Tensor | None) -> Tensor:
        if self.guidance == 1 and self.kappa == 0:
            return towards
        assert labels is not None
        assert kept is not None
        assert self.null is not None
        free = _inside(self.u)(x, t, t, labels=torch.full_like(labels, self.null))
        mixed = self.guidance * towards + (1 - self.guidance - self.kappa) * free
        if self.kappa:
            mixed = mixed + self.kappa * _inside(self.u)(x, t, t, labels=labels)
        return torch.where(_along(kept, x), mixed, towards)

    @torch.no_grad()
    def sample(self, noise: Tensor, labels: Tensor | None = None, *, steps: int = 1) -> Tensor:
        """Data from noise in ``steps`` equal steps from t = 1 to 0: x_r = x_t - (t - r) u(x_t, r, t).

        Under ``'flow'``, where only u(x, t, t) was learned, these are Euler's steps.

        Raises ``ValueError`` unless steps >= 1.

        >>> half = MeanFlow(lambda x, r, t: x / 2)
        >>> half.sample(torch.ones(1, 1)).item()
        0.5
        """
        if steps < 1:
            raise ValueError(f"MeanFlow.sample needs at least one step, got steps={steps}.")
        condition = {} if labels is None else {"labels": labels}
        x, times = noise, torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        for t, r in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            now = x.new_full((len(x),), t)
            before = now if self.objective == "flow" else x.new_full((len(x),), r)
            x = x - (t - r) * self.u(x, before, now, **condition).to(x.dtype)
        return x


def _along(value: Tensor, like: Tensor) -> Tensor:
    """One number an example, shaped to multiply ``like``."""
    return value.reshape(-1, *[1] * (like.dim() - 1))


def _inside(u: Velocity) -> Velocity:
    """What DistributedDataParallel wraps: passes without gradient need none of its hooks."""
    return u.module if isinstance(u, nn.parallel.DistributedDataParallel) else u


def _refuse_dropout(u: Velocity) -> None:
    if not isinstance(u, nn.Module):
        return
    for name, module in u.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise ValueError(
                f"MeanFlow: {name or 'the model'} drops out with p={module.p:g}, and the derivative would belong to "
                "other masks than the velocity. Set p to 0."
            )
        rate = getattr(module, "dropout", 0.0)
        if isinstance(rate, float) and module.training and math.isfinite(rate) and rate > 0:
            raise ValueError(f"MeanFlow: {name} has dropout={rate:g} in training mode; set it to 0.")
