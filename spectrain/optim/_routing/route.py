"""Which parameter goes where: by module type, by declaration, by rule; never by guessing at a shape."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn

from spectrain.optim._heads import output_heads
from spectrain.optim._roles import Role, declared, role
from spectrain.optim._routing.explain import Row, rows, table
from spectrain.optim._step.guards import check_shaped


class Use(NamedTuple):
    """One place in the model that holds a parameter."""

    path: str
    module: nn.Module
    name: str


class Routes(list[dict[str, Any]]):
    """Parameter groups for Muon, with the reasons; a list of dictionaries."""

    @property
    def rows(self) -> list[Row]:
        """One plain dictionary for each parameter, as with ``scale="match_rms_adamw"`` and decay 0.1."""
        return rows(
            {"scale": "match_rms_adamw", "weight_decay": 0.1, **group, **_unzip(group["params"])} for group in self
        )

    def explain(self) -> list[Row]:
        """Print the table of ``rows`` and return them."""
        entries = self.rows
        print(table(entries))
        return entries


def route(model: nn.Module, *, rules: Mapping[str, Any] | None = None) -> Routes:
    """Decide for every parameter of ``model`` which algorithm moves it, as which logical matrices.

    Linear and convolution weights, the projections of ``nn.MultiheadAttention`` and of recurrent layers go to
    Muon; embeddings, output heads (also tied to an embedding), norms, biases, vectors and depthwise filters
    go to AdamW, the last four kinds without weight decay. A module states its own matrices with an attribute
    ``logical_matrices = {"weight": {"transposed": True}}``. ``rules`` overrules everything: a mapping from
    patterns of parameter names to ``"muon"``, ``"adamw"``, ``"sign"`` (sign of the momentum, for norm gains),
    ``"rows"`` (normalised rows, for embeddings) or a ``Matrix``; the first pattern that matches decides.

    Raises ValueError, with every offender and the cure, for parameters of two or more dimensions whose module
    type does not say what they are, and for rules that match nothing. Cost: one walk over the modules.

    >>> model = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 100))
    >>> [(row["name"], row["algorithm"]) for row in route(model).rows]
    [('1.weight', 'muon'), ('0.weight', 'adamw'), ('2.weight', 'adamw'), ('2.bias', 'adamw')]
    >>> route(model, rules={"2.weight": "muon"}).rows[1]["name"]
    '2.weight'
    """
    rules = dict(rules or {})
    uses = uses_of(model)
    refuse_idle_rules(rules, [use.path for places in uses.values() for use in places])
    heads = output_heads(model)
    roles = {p: decide(p, places, rules, heads) for p, places in uses.items()}
    unclear = {uses[p][0].path: tuple(p.shape) for p, r in roles.items() if r is None and p.requires_grad}
    if unclear:
        raise ValueError(_ambiguous(unclear))
    return _grouped([(uses[p][0].path, p, r) for p, r in roles.items() if r is not None])


def uses_of(model: nn.Module) -> dict[Tensor, list[Use]]:
    """Every floating parameter with all places that hold it, in the order of ``named_parameters``."""
    uses: dict[Tensor, list[Use]] = {}
    for prefix, module in model.named_modules():
        for name, p in module._parameters.items():
            if p is None:
                continue
            check_shaped(f"{prefix}.{name}".lstrip("."), p)
            if p.is_floating_point() or p.is_complex():
                uses.setdefault(p, []).append(Use(f"{prefix}.{name}".lstrip("."), module, name))
    return uses


def decide(p: Tensor, places: list[Use], rules: Mapping[str, Any], heads: Mapping[Tensor, str]) -> Role | None:
    """The one role of a parameter, or None where its uses do not decide it or contradict each other."""
    for pattern, rule in rules.items():
        if any(fnmatchcase(place.path, pattern) for place in places):
            return declared(rule, f"rule {pattern!r}")
    roles = [role(place.module, place.name, p.shape) for place in places]
    tie = "" if len(places) == 1 else f", tied to {', '.join(place.path for place in places[1:])}"
    embedding = next((r for r in roles if r is not None and r.reason == "embedding"), None)
    if embedding is not None:
        return embedding._replace(reason="embedding" + tie)
    if p in heads and roles[0] is not None and roles[0].algorithm == "muon":
        return Role("adamw", None, heads[p] + tie)
    first = roles[0]
    if first is None or any(r is None or r[:2] != first[:2] for r in roles):
        return None
    return first._replace(reason=first.reason + tie)


def _grouped(routed: list[tuple[str, Tensor, Role]]) -> Routes:
    """Parameters of one algorithm, layout and decay together: Muon first, then matrices, then vectors."""
    groups: dict[Any, dict[str, Any]] = {}
    order = sorted(routed, key=lambda item: (item[2].algorithm != "muon", _undecayed(item[2])))
    for path, p, r in order:
        matrix = r.matrix.as_dict() if r.matrix is not None else {}
        key = (r.algorithm, r.matrix, _undecayed(r))
        if key not in groups:
            groups[key] = {"params": [], "algorithm": r.algorithm, "matrix": matrix, "reasons": []}
            groups[key] |= {"weight_decay": 0.0} if _undecayed(r) else {}
        if r.matrix is not None:
            _check(path, p, r)
        groups[key]["params"].append((path, p))
        groups[key]["reasons"].append(r.reason)
    return Routes(groups.values())


def _check(path: str, p: Tensor, r: Role) -> None:
    assert r.matrix is not None
    try:
        r.matrix.check(p.shape)
    except ValueError as error:
        raise ValueError(f"{path}: {error} ({r.reason})") from error


def _undecayed(r: Role) -> bool:
    """Whether weight decay is off by default: for vectors and depthwise filters, not embeddings and heads."""
    return r.algorithm == "adamw" and not r.reason.startswith(("embedding", "output head", "rule", "declared"))


def _unzip(params: list[tuple[str, Tensor]]) -> dict[str, Any]:
    return {"params": [p for _, p in params], "param_names": [name for name, _ in params]}


def refuse_idle_rules(rules: Mapping[str, Any], paths: list[str]) -> None:
    idle = [pattern for pattern in rules if not any(fnmatchcase(path, pattern) for path in paths)]
    if idle:
        raise ValueError(f"These rules match no parameter: {', '.join(idle)}. Parameters: {', '.join(paths)}.")


def _ambiguous(unclear: dict[str, tuple[int, ...]]) -> str:
    lines = "\n".join(f"  {path}  {shape}" for path, shape in unclear.items())
    return (
        f"The module types do not say what these parameters are:\n{lines}\nSay it, for example "
        f"route(model, rules={{{next(iter(unclear))!r}: 'adamw'}}): 'muon' (one out x in matrix), 'adamw', "
        "or Matrix(transposed=True) for x @ W, Matrix(batch=1) for stacked experts, Matrix(split=(q, k, v)) "
        "for fused matrices."
    )
