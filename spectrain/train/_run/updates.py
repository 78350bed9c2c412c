"""What moves the matrices, one function each: from groups of matrices and groups of all else to an optimizer."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch.optim.optimizer import Optimizer

from spectrain import approx, matfun, optim
from spectrain.train._run.config import RunConfig

Groups = Sequence[dict[str, Any]]
Variant: TypeAlias = Literal["plain", "normuon", "muoneq"]


def muon(matrices: Groups, rest: Groups, config: RunConfig, *, variant: Variant = "plain") -> optim.Muon:
    """Our Muon, which moves the rest by AdamW itself."""
    assert config.lr is not None
    return optim.Muon(
        [*matrices, *rest],
        lr=config.lr,
        weight_decay=config.weight_decay,
        decay=config.decay,
        momentum=config.momentum,
        scale=config.scale,
        adamw_betas=(config.beta1, config.beta2),
        adamw_weight_decay=0.0,
        steps=config.muon_steps if config.muon_lower is None else None,
        schedule=None if config.muon_lower is None else muon_schedule(config),
        compute_dtype=config.muon_dtype,
        variant=variant,
        bound=config.bound,
        bound_by=config.bound_by,
    )


def normuon(matrices: Groups, rest: Groups, config: RunConfig) -> optim.Muon:
    """Our Muon as NorMuon."""
    return muon(matrices, rest, config, variant="normuon")


def muoneq(matrices: Groups, rest: Groups, config: RunConfig) -> optim.Muon:
    """Our Muon with rows of equal norm before msign."""
    return muon(matrices, rest, config, variant="muoneq")


def adamw(matrices: Groups, rest: Groups, config: RunConfig) -> torch.optim.AdamW:
    """AdamW for all; only matrices decay."""
    assert config.lr is not None
    groups = [*_decaying(matrices, config.weight_decay), *_decaying(rest, 0.0)]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def torch_muon(matrices: Groups, rest: Groups, config: RunConfig) -> Optimizer:
    """``torch.optim.Muon`` as it ships, by default with the scale that keeps AdamW's rates; AdamW for the rest."""
    assert config.lr is not None
    peer = torch.optim.Muon(
        _flat(matrices, config),
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        ns_steps=config.muon_steps,
        adjust_lr_fn=config.scale,
    )
    return Together(peer, adamw([], _drop_names(rest), config))


def soap(matrices: Groups, rest: Groups, config: RunConfig) -> Optimizer:
    """SOAP (Vyas et al., arXiv 2409.11321) as the package pytorch-optimizer ships it; AdamW for the rest."""
    from pytorch_optimizer import SOAP

    assert config.lr is not None
    peer = SOAP(
        _flat(matrices, config),
        lr=config.lr,
        betas=(config.momentum, 0.95),
        weight_decay=config.weight_decay,
        precondition_frequency=10,
    )
    return Together(peer, adamw([], _drop_names(rest), config))


def muon_schedule(config: RunConfig) -> approx.Schedule:
    """The composition of quintics that Muon applies: that of ``msign(steps=)``, or one for another interval."""
    if config.muon_lower is None:
        return matfun.planning.design(config.muon_steps, dtype=getattr(torch, config.muon_dtype))
    assert config.muon_dtype != "auto"  # decided before anything begins
    return approx.sign_schedule(config.muon_lower, steps=config.muon_steps, dtype=config.muon_dtype)


def _decaying(groups: Groups, weight_decay: float) -> list[dict[str, Any]]:
    """The groups with a decay; one that names its own keeps it."""
    return [{"weight_decay": weight_decay, **group} for group in groups]


def _drop_names(groups: Groups) -> list[dict[str, Any]]:
    """Groups without names and without what only our Muon reads."""
    keys = ("lr", "lr_factor", "weight_decay")
    return [
        {"params": [p for _, p in group["params"]], **{key: group[key] for key in keys if key in group}}
        for group in groups
    ]


def _flat(matrices: Groups, config: RunConfig) -> list[dict[str, Any]]:
    """The groups of an optimizer that takes weights of two dimensions."""
    odd = [name for group in matrices for name, p in group["params"] if p.ndim != 2]
    if odd:
        raise ValueError(
            f"--optimizer {config.optimizer} moves matrices only, and {odd[0]} is none; take muon or adamw."
        )
    return _drop_names(matrices)


class Together(Optimizer):
    """Several optimizers that move parts of one model, as one: same groups, one step, one state.

    >>> a, b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    >>> both = Together(torch.optim.SGD([a], lr=0.5), torch.optim.SGD([b], lr=0.25))
    >>> (a + b).sum().backward(); both.step(); a.tolist(), b.tolist()
    ([0.5, 0.5], [0.75, 0.75])
    """

    def __init__(self, *parts: Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Let each part take its step; return the loss of ``closure``, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of all parts, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give each part its state back."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
