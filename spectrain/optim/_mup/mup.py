"""muP: initialisation, multipliers, learning rates and decay that hold at every width."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from spectrain.optim._layout.spread import local, spread_like, whole
from spectrain.optim._mup.factors import multiply_input, rate, scale_attention, standard_deviation
from spectrain.optim._mup.initial import INITIAL, drawn
from spectrain.optim._mup.roles import Part, parts_of
from spectrain.optim._routing.explain import Row, table
from spectrain.optim._routing.route import route
from spectrain.optim._step.scale import canonical

OPTIMIZERS = ("adamw", "muon", "sgd")
COLUMNS = ("name", "shape", "role", "algorithm", "std", "lr_factor", "decay_factor", "reason")


def mup(
    model: nn.Module,
    *,
    base_width: int = 256,
    base_head_dim: int | None = None,
    roles: Mapping[str, str] | None = None,
    rules: Mapping[str, Any] | None = None,
) -> "Parametrisation":
    """Scale a model so that the best learning rate is the same at every width.

    The condition (article 10795, kexue.fm/archives/10795; Yang, Simon and Bernstein, arXiv 2310.17813): every matrix
    and every update of it have spectral norm Theta(sqrt(out / in)). With n = width / ``base_width``, where the width
    is the side of the parameter that grows (``in`` of hidden and output matrices, ``out`` of inputs):

    ======== ==================== ========= ======= ================= ============================================
    role     initial deviation    lr, AdamW lr, SGD lr, Muon spectral lr, Muon match_rms_adamw / original / none
    ======== ==================== ========= ======= ================= ============================================
    input    1/sqrt(in); rows: 1  1         n       1                 1 / 1 / sqrt(n)
    hidden   sqrt(min(1,o/i) / i) 1/n       1       1                 1/sqrt(n) / 1 / 1
    output   sqrt(base_width)/in  1/n       1/n     1                 1/n / 1/sqrt(n) / 1/sqrt(n)
    tied     1/sqrt(base_width)   1         n       1                 as input; the head reads its input divided by n
    vector   as it is             1         n       (AdamW)           (AdamW)
    ======== ==================== ========= ======= ================= ============================================

    Vectors are gains and biases with an entry for each feature; with SGD others (the bias of an output) have 1.

    Decay is multiplied by the inverse of the rate's factor, so that ``lr * weight_decay``, what a step takes from a
    weight, is the same at every width (Wang and Aitchison, arXiv 2405.13698).

    Roles come from the module graph: embeddings and the first convolution are inputs, heads as ``route`` finds them
    outputs, other matrices hidden, biases, gains and depthwise filters vectors; without embedding the first Linear is
    the input. A module states what its type does not show, as of a router of experts, whose outputs do not grow:
    ``width_roles = {"weight": "output"}``. ``roles`` maps patterns of parameter names to a role and overrules both;
    ``rules`` are those of ``route``.
    Nothing is written on tensors and there is no base model: the same call on a copied, compiled, sharded or loaded
    model gives the same factors. Call it before ``torch.compile``; make groups after ``fully_shard``.

    The call itself sets the multipliers: of a tied head, by a forward pre-hook, and, where ``base_head_dim`` is given
    because heads get larger with the model, of attention: sqrt(base_head_dim) / head_dim in place of
    1/sqrt(head_dim), on modules that keep a ``scale``.

    Raises ValueError for parameters whose role cannot be seen, for a model without input or output, and for attention
    that takes no multiplier, each with the cure. Cost: one walk over the modules.

    >>> model = nn.Sequential(nn.Embedding(100, 512), nn.Linear(512, 512, bias=False), nn.Linear(512, 100, bias=False))
    >>> scaled = mup(model, base_width=256)
    >>> scaled.initialise(generator=0)
    >>> optimizer = torch.optim.AdamW(scaled.groups("adamw", lr=1e-3, weight_decay=0.1))
    >>> [(group["role"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    [('input', 0.001, 0.1), ('hidden', 0.0005, 0.2), ('output', 0.0005, 0.2)]
    """
    if base_width < 1 or (base_head_dim is not None and base_head_dim < 1):
        raise ValueError(f"mup: base_width and base_head_dim must be at least 1, got {base_width}, {base_head_dim}.")
    parts = parts_of(model, roles=roles or {}, rules=rules or {})
    for part in parts:
        if part.role == "tied":
            for module in model.modules():
                if isinstance(module, nn.Linear) and module.weight is part.param:
                    multiply_input(module, base_width / part.width)
    if base_head_dim is not None:
        scale_attention(model, base_head_dim=base_head_dim)
    return Parametrisation(model, parts, base_width, rules or {})


@dataclass(frozen=True)
class Parametrisation:
    """What :func:`mup` found: parts in their roles, and what follows for weights and optimizers."""

    model: nn.Module
    parts: Sequence[Part]
    base_width: int
    rules: Mapping[str, Any]
    scaled: bool = True

    def standard(self) -> "Parametrisation":
        """The same roles in the standard parametrisation, for comparison: deviation 1/sqrt(in), every factor 1."""
        return replace(self, scaled=False)

    @torch.no_grad()
    def initialise(
        self,
        *,
        generator: torch.Generator | int,
        embedding_std: float = 1.0,
        keep_zeros: bool = True,
        method: str = "normal",
        norm: float = 1.0,
    ) -> None:
        """Draw all matrices in place, and set the biases of linear maps to zero.

        ``method`` says how (article 10795), W' independent normal entries and sqrt(out / in) that of each matrix:

        - ``"normal"``: W' times the deviation of the role, whose spectral norm is about 1 to 2 times sqrt(out / in);
        - ``"spectral"``: norm sqrt(out / in) W' / ||W'||_2, the condition itself;
        - ``"msign"``: norm sqrt(out / in) msign(W'), all singular values alike: the limit of clipping them.

        Tables of rows (embeddings, tied ones too) are normal under each: what reads them is one row, no product.

        A matrix that is zero everywhere stays so (``keep_zeros``): it was made so on purpose. Norms and other vectors
        are left as they are. Drawn on the CPU in float32, in the order of the parameters, so that one generator gives
        the same weights on every device and however they are sharded. Cost: one SVD without vectors, or one msign,
        of each matrix. ValueError for an unknown method, a norm that is not positive, and for a method other than
        normal in the standard parametrisation, which is a rule for deviations.
        """
        if method not in INITIAL or not 0 < norm < float("inf"):
            raise ValueError(
                f"mup: method must be one of {', '.join(INITIAL)} and norm positive, got {method!r} and {norm}."
            )
        if method != "normal" and not self.scaled:
            raise ValueError(
                f'mup: the standard parametrisation is one of deviations; {method!r} takes method="normal".'
            )
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        for part in self.parts:
            p = part.param
            if part.role == "vector":
                if part.reason == "bias":
                    local(p).zero_()
                continue
            unit = torch.randn(p.shape, generator=generator)
            if keep_zeros and not bool(whole(torch.linalg.vector_norm(p)) > 0):
                continue
            if not (part.in_ == 1 and part.role == "input"):
                standard = not self.scaled
                weights = drawn(part, unit, method, base_width=self.base_width, standard=standard, norm=norm)
            else:
                weights = unit * embedding_std
            weights[_kept_zero(self.model, p)] = 0.0
            p.copy_(spread_like(weights.to(p.device, p.dtype), p))

    def groups(
        self,
        optimizer: str,
        *,
        lr: float | Tensor,
        weight_decay: float = 0.1,
        scale: str = "match_rms_adamw",
        adamw_lr: float | Tensor | None = None,
        adamw_weight_decay: float | None = None,
        decay: str = "decoupled",
    ) -> list[dict[str, Any]]:
        """Return parameter groups for ``torch.optim.AdamW`` (``"adamw"``), ``torch.optim.SGD`` (``"sgd"``) or
        ``optim.Muon`` (``"muon"``).

        Each has its ``lr`` and ``weight_decay`` multiplied, and says by what in ``lr_factor`` and ``decay_factor``, and
        its ``role``; schedulers that multiply the rate of each group keep the ratios. ``adamw_lr`` and
        ``adamw_weight_decay`` are those of inputs and outputs (with one algorithm for all: their decay only) where they
        differ; vectors do not decay. ``scale`` and ``decay`` as in ``Muon``: independent decay needs no factor.
        """
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"mup: groups are for one of {', '.join(OPTIMIZERS)}, got {optimizer!r}.")
        other = weight_decay if adamw_weight_decay is None else adamw_weight_decay
        found: dict[Any, dict[str, Any]] = defaultdict(dict)
        for part, algorithm, routed in self._routed(optimizer):
            r = self._rate(part, algorithm, scale)
            kept = decay == "independent" and algorithm != "adamw"
            base_wd = 0.0 if part.role == "vector" else weight_decay if part.role == "hidden" else other
            base_lr = adamw_lr if adamw_lr is not None and optimizer == "muon" and algorithm == "adamw" else lr
            group = found[algorithm, part.role, part.matrix if routed else None, r]
            if not group:
                d = 1.0 if kept else 1 / r
                group |= {"params": [], "role": part.role, "lr_factor": r, "decay_factor": d}
                group |= {"lr": base_lr * r, "weight_decay": base_wd * d}
                group |= _muon_keys(part, algorithm, scale, decay) if optimizer == "muon" else {}
            group["params"].append((part.name, part.param))
            if optimizer == "muon":
                group["reasons"].append(f"{part.role}: {part.reason}")
        return list(found.values())

    def _rate(self, part: Part, algorithm: str, scale: str) -> float:
        if not self.scaled:
            return 1.0
        if algorithm == "sgd" and part.role == "vector":
            return len(part.param) / self.base_width if self._grows(part) else 1.0
        return rate(part, algorithm, scale, base_width=self.base_width)

    def _grows(self, part: Part) -> bool:
        """Whether a vector has an entry for each feature: as many as a side that grows, and no bias of an output."""
        answers = {other.name.rpartition(".")[0] for other in self.parts if other.role == "output"}
        if part.name.rpartition(".")[0] in answers or part.param.ndim != 1:
            return False
        return any(len(part.param) in _growing_sides(other) for other in self.parts)

    def _routed(self, optimizer: str) -> list[tuple[Part, str, bool]]:
        """Every part with the algorithm that moves it, and whether Muon reads its layout."""
        if optimizer != "muon":
            return [(part, optimizer, False) for part in self.parts]
        known = {part.name: _plain_rule(part) for part in self.parts if not part.typed}
        heads = [part.name for part in self.parts if part.reason.startswith("output head")]
        routes = route(self.model, rules={**self.rules, **known}, heads=heads)
        algorithms = {p: group["algorithm"] for group in routes for _, p in group["params"]}
        return [(part, algorithms[part.param], algorithms[part.param] == "muon") for part in self.parts]

    def rows(self, optimizer: str = "adamw", *, scale: str = "match_rms_adamw") -> list[Row]:
        """One plain dictionary for each parameter: role, deviation, factors, and why."""
        return [
            {
                "name": part.name,
                "shape": list(part.param.shape),
                "role": part.role,
                "fan_out": part.out,
                "fan_in": part.in_,
                "algorithm": algorithm,
                "std": self._std(part),
                "lr_factor": self._rate(part, algorithm, scale),
                "decay_factor": 1 / self._rate(part, algorithm, scale),
                "reason": part.reason,
            }
            for part, algorithm, _ in self._routed(optimizer)
        ]

    def _std(self, part: Part) -> float | None:
        if part.role == "vector":
            return None
        return standard_deviation(part, part.out, base_width=self.base_width, standard=not self.scaled)

    def explain(self, optimizer: str = "adamw", *, scale: str = "match_rms_adamw") -> list[Row]:
        """Print the table of :meth:`rows` and return them."""
        found = self.rows(optimizer, scale=scale)
        print(table(found, COLUMNS))
        return found


def _growing_sides(part: Part) -> tuple[int, ...]:
    sides = {"input": (part.out,), "tied": (part.out,), "hidden": (part.out, part.in_), "output": (part.in_,)}
    return sides.get(part.role, ())


def _muon_keys(part: Part, algorithm: str, scale: str, decay: str) -> dict[str, Any]:
    """What a group for ``optim.Muon`` says besides rate and decay."""
    keys: dict[str, Any] = {"algorithm": algorithm, "reasons": []}
    if algorithm == "muon":
        keys["matrix"] = part.matrix.as_dict() if part.matrix is not None else {}
    if algorithm != "adamw":
        keys |= {"scale": canonical(scale), "decay": decay}
    return keys


def _plain_rule(part: Part) -> Any:
    """What ``route`` is told about a parameter that only its declared role explains."""
    return (part.matrix or "muon") if part.role == "hidden" else "adamw"


def _kept_zero(model: nn.Module, p: Tensor) -> list[int]:
    """Rows of an embedding that stand for padding."""
    tables = (m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.weight is p)
    return [m.padding_idx for m in tables if m.padding_idx is not None]
