"""A mixture of experts that counts every token once, and moves its bias after the step."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spectrain._arrays.generators import fresh_generator
from spectrain.nn._experts.balance import BINS, Balance, Loads
from spectrain.nn._experts.count_once import count_once
from spectrain.nn._experts.experts import Experts
from spectrain.nn._experts.penalty import Penalty
from spectrain.nn._experts.router import Router, Routing
from spectrain.nn._experts.scaling import scaling_factor
from spectrain.nn._models.language_model import SwiGLU
from spectrain.nn._modes import Activation, BalanceRule, Select
from spectrain.nn._numbers import check_positive


class MoE(nn.Module):
    """``shared(x) + scale * sum of weight_i * expert_i(x)`` over the experts that a router chooses for each token.

    ``experts`` SwiGLU blocks of width ``hidden``, of which about ``top_k`` are computed, and ``shared`` that always are
    (one block ``shared * hidden`` wide). Routing: see :class:`Router` for ``activation``, ``selection``, ``select``
    (``"top_k"``, or ``"threshold"`` with ``top_k`` experts a token on average), ``temperature`` and ``renormalise``.
    ``scale`` None is :func:`scaling_factor` of this shape where there are shared experts, else 1. ``normalised`` makes
    routed experts directions of rms 1.

    **Balance.** ``balance`` is a :class:`Balance` or the name of its rule. Call :meth:`update_bias` once after each
    optimizer step. A token is counted when its gradient passes, in training mode: so gradient accumulation,
    activation checkpointing of either kind and evaluation in between all count each trained token exactly once. Tokens
    whose scores are not finite are left out: NaN in one of them is no reason to move the bias of an expert. So is
    padding, where ``forward(x, counted=)`` says which tokens there are: copies of one token would look like a load.
    A ``target`` of the balance holds for the initial bias of a threshold, too.
    Counts are integer buffers, saved with the bias. Adding up ``loads``, ``tokens`` and ``histogram`` over ranks before
    ``update_bias`` is exact. ``DistributedDataParallel`` broadcasts the buffers of rank 0 before a forward pass: a step
    of several micro-batches needs its ``no_sync()`` for all but the last, or ``broadcast_buffers=False``; with neither
    what the other ranks have counted is lost, without a word.

    **Losses.** ``penalty`` adds nothing by itself: collect it with :func:`auxiliary_loss` after the forward pass.
    Forgetting that is an error at the next ``update_bias``.

    **torch.compile** makes one graph of the layer with ``select="top_k"``, equal to eager, counts included; there the
    backward pass of a forward pass must come before the next one's, or torch refuses it. It breaks the graph once for
    ``select="threshold"``, where the number of pairs depends on values, and for ``balance="quantile"``, which keeps
    scores.

    Shapes: ``(..., width)`` to the same. The router works in float32 or wider, the bias is float32 whatever the module
    is cast to. Cost: ``6 width hidden (top_k + shared)`` multiply-adds a token, forward.

    >>> import torch
    >>> moe = MoE(16, experts=8, top_k=2, hidden=32, shared=1, activation="sigmoid", generator=0)
    >>> moe(torch.randn(4, 10, 16)).sum().backward()
    >>> loads = moe.update_bias()
    >>> loads.tokens, loads.experts_a_token
    (40, 2.0)
    """

    counts_tokens: ClassVar[bool] = True  # forward takes counted=, and a model hands it on

    bias: Tensor
    loads: Tensor
    tokens: Tensor
    histogram: Tensor | None
    expected: Tensor | None
    """Loads that a global penalty takes for those of this step."""

    def __init__(
        self,
        width: int,
        *,
        experts: int,
        top_k: int,
        hidden: int,
        shared: int = 0,
        activation: Activation = "softmax",
        selection: Activation | None = None,
        select: Select = "top_k",
        temperature: float = 1.0,
        renormalise: bool = False,
        scale: float | None = None,
        normalised: bool = False,
        balance: Balance | BalanceRule = "sign",
        penalty: Penalty | None = None,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if min(width, experts, hidden) < 1 or shared < 0:
            raise ValueError(
                f"MoE needs width, experts and hidden of at least 1 and shared of at least 0, got width {width}, "
                f"experts {experts}, hidden {hidden}, shared {shared}."
            )
        check_positive("MoE", scale=scale)
        self.balance = Balance(rule=balance) if isinstance(balance, str) else balance
        if self.balance.by_quantile and top_k == experts:
            raise ValueError(f"MoE: nothing to balance with all {experts} experts chosen; use balance='none'.")
        self.balance.check_shares(experts, top_k)
        self.penalty = penalty
        self.router = Router(
            width,
            experts=experts,
            top_k=top_k,
            activation=activation,
            selection=selection,
            select=select,
            temperature=temperature,
            renormalise=renormalise,
        )
        self.experts = Experts(experts, width=width, hidden=hidden, normalised=normalised)
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation would draw from the global generator
            self.shared = SwiGLU(width, hidden=shared * hidden) if shared else None
        if scale is None and shared:
            scale = scaling_factor(
                experts + shared, active=top_k + shared, shared=shared, activation=activation, renormalise=renormalise
            ).value
        self.scale = 1.0 if scale is None else scale
        self.register_buffer("bias", torch.zeros(experts))
        self.register_buffer("loads", torch.zeros(experts, dtype=torch.long))
        self.register_buffer("tokens", torch.zeros((), dtype=torch.long))
        histogram = self.balance.rule == "histogram"
        self.register_buffer("histogram", torch.zeros(experts, BINS, dtype=torch.long) if histogram else None)
        by_step = penalty is not None and penalty.scope == "global"
        self.register_buffer("expected", torch.zeros(experts, dtype=torch.long) if by_step else None)
        self._margins: list[Tensor] = []
        self._loss: Tensor | None = None
        self._made = self._collected = False
        if self.bias.device.type != "meta":
            self.initialise(generator=fresh_generator(generator, "MoE"))

    def forward(
        self, x: Float[Tensor, "*batch width"], *, counted: Bool[Tensor, "*batch"] | None = None
    ) -> Float[Tensor, "*batch width"]:
        """Apply the layer to the last dimension.

        ``counted``: False for padding, which is computed as any token and neither counted nor penalised.
        """
        flat = x.reshape(-1, x.shape[-1])
        routing = self.router(flat, self.bias, counted=None if counted is None else counted.reshape(-1))
        pairs = len(flat) * self.router.top_k if self.router.select == "top_k" else None
        out: Tensor = self.experts(flat, routing.chosen, routing.weights, pairs=pairs)
        if self.scale != 1:
            out = out * self.scale
        if self.shared is not None:
            out = out + self.shared(flat)
        self._loss = None
        if self.training and torch.is_grad_enabled():
            if self.penalty is not None:
                length = x.shape[-2] if x.ndim > 1 else 1
                self._loss = self.penalty(routing, sequence=length, expected=self.expected)
                self._made = True
            out = self._count(out, routing)
        return out.view(x.shape)

    @torch.no_grad()
    def update_bias(self, *, factor: float = 1.0) -> Loads:
        """Move the bias by the loads since the last call, forget them, and return them.

        Call it once a step, after the optimizer. ``factor``, from 0 to 1, is the share of the rule's move that is made:
        with the schedule of the learning rate the bias comes to rest with the weights, and what it ends with is a mean
        over many steps in place of the noise of one. Raises ``ValueError`` where no token was counted, and where a
        penalty was computed in the step and never collected.
        """
        if not 0 <= factor <= 1:
            raise ValueError(f"MoE.update_bias: factor must be from 0 to 1, got {factor}.")
        loads = Loads(self.loads.clone(), int(self.tokens))
        if not loads.tokens:
            raise ValueError(
                "MoE.update_bias: no token was counted since the last call; call it once a step, after a backward "
                "pass in training mode. Tokens with NaN are not counted."
            )
        if self._made and not self._collected:
            raise ValueError(
                "MoE.update_bias: the penalty of this step is in no loss; add nn.experts.auxiliary_loss(model) to the "
                "loss after the forward pass, outside of any checkpointed region."
            )
        if self.balance.rule == "quantile" and sum(map(len, self._margins)) != loads.tokens:
            raise ValueError(
                "MoE.update_bias: scores of counted tokens are missing; balance='quantile' keeps them in memory only, "
                "so save and resume between steps, or use balance='histogram'."
            )
        evidence = torch.cat(self._margins) if self._margins else self.histogram
        dynamic = self.router.select == "threshold"
        moved = self.balance.moved(self.bias, loads, evidence, top_k=self.router.top_k, dynamic=dynamic)
        self.bias.lerp_(moved, factor)
        if self.expected is not None:
            self.expected.copy_(loads.counts)
        self.discard_counts()
        return loads

    @torch.no_grad()
    def expect(self, loads: Loads) -> None:
        """Take ``loads`` for those of the step to come, in the penalty of ``scope="global"``.

        Those of a first pass without gradient over all micro-batches (:func:`expert_loads`) make it exact; without
        this call it takes those of the step before. Raises ``ValueError`` where there is no such penalty.
        """
        if self.expected is None:
            raise ValueError(
                "MoE.expect: no penalty asks for loads; give MoE(penalty=nn.experts.Penalty(scope='global'))."
            )
        self.expected.copy_(loads.counts)

    @torch.no_grad()
    def discard_counts(self) -> None:
        """Forget what was counted since the last update, as for a step that was skipped."""
        self.loads.zero_()
        self.tokens.zero_()
        if self.histogram is not None:
            self.histogram.zero_()
        self._margins.clear()
        self._loss, self._made, self._collected = None, False, False

    def collect(self) -> Tensor | None:
        """The penalty of the last forward pass, once; None where there is none."""
        loss, self._loss = self._loss, None
        self._collected |= loss is not None
        return loss

    def __getstate__(self) -> dict[str, object]:
        """What is copied and pickled: all but a penalty that waits, whose graph is that of the original's weights."""
        return {**self.__dict__, "_loss": None, "_made": self._collected}

    @torch.no_grad()
    def initialise(self, *, generator: torch.Generator) -> None:
        """Draw all weights, set the initial bias and forget all counts."""
        for part in (self.router, self.experts, self.shared):
            if part is not None:
                part.initialise(generator=generator)
        shares = self.balance.target or (1 / len(self.bias),)
        self.bias.copy_(torch.tensor([self.router.initial_bias(share=share) for share in shares]))
        if self.expected is not None:
            self.expected.zero_()
        self.discard_counts()

    def _count(self, out: Tensor, routing: Routing) -> Tensor:
        """``out``, with what the balance needs to know of these tokens counted when its gradient passes."""
        with torch.no_grad():
            top_k = self.router.top_k if self.router.select == "top_k" else None
            evidence = self.balance.evidence(routing.scores, self.bias, top_k=top_k, counted=routing.counted)
            counts = [routing.loads, routing.sound.sum()]
        totals = [self.loads, self.tokens]
        if evidence is not None and self.histogram is not None:
            totals, counts, evidence = [*totals, self.histogram], [*counts, evidence], None
        return count_once(out, totals, counts, kept=self._margins, evidence=evidence)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MoE":
        """Keep the bias in float32: in bfloat16 a step of 1e-3 vanishes beside a bias of 1."""
        bias = self.bias
        super()._apply(fn, recurse)
        if self.bias.dtype != bias.dtype:
            self.bias = bias.to(self.bias.device)
        return self

    def extra_repr(self) -> str:
        """Balance and scale."""
        return f"balance={self.balance.rule}, scale={self.scale:.3g}"


def auxiliary_loss(model: nn.Module) -> Float[Tensor, ""]:
    """The sum of the penalties that the last forward pass left in the :class:`MoE` layers of ``model``; take it once.

    Each layer balances by itself: losses are added up, loads never. With micro-batches weigh it by the share of
    tokens, as the loss itself. Raises ``ValueError`` where no layer holds one.

    >>> moe = MoE(8, experts=4, top_k=1, hidden=8, penalty=Penalty(weight=1.0), generator=0)
    >>> _ = moe(torch.ones(2, 3, 8))                             # equal tokens: one expert takes all
    >>> auxiliary_loss(moe).item()                               # ((1 - 1/4)^2 + 3/16) / 2
    0.375
    """
    losses = [loss for m in model.modules() if isinstance(m, MoE) and (loss := m.collect()) is not None]
    if not losses:
        raise ValueError(
            "auxiliary_loss: no MoE layer holds a penalty; give MoE(penalty=nn.experts.Penalty(...)) and call this "
            "after a forward pass in training mode with gradients on (reentrant checkpointing turns them off)."
        )
    return torch.stack(losses).sum()
