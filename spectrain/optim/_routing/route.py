"""Which parameter goes where: by module type, by declaration, by rule; never by guessing at a shape."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn

from spectrain.optim._layout.matrix import check_shaped
from spectrain.optim._layout.spread import refuse_flat_shards
from spectrain.optim._routing.explain import Row, explain, rows
from spectrain.optim._routing.heads import Heads, output_heads, warn_of_guess
from spectrain.optim._routing.known import known_roles
from spectrain.optim._routing.role import Role, declared_role, parametrized_role, role_of_rule, typed_role
from spectrain.optim._routing.unclear import Unclear, rules_to_paste


class Use(NamedTuple):
    """One place in the model that holds a parameter, and what is said of it there."""

    path: str
    module: nn.Module
    name: str
    role: Role | None


class Routes(list[dict[str, Any]]):
    """Parameter groups for Muon, with the reasons; a list of dictionaries."""

    @property
    def rows(self) -> list[Row]:
        """One plain dictionary for each parameter, as with ``scale="match_rms_adamw"`` and decay 0.1."""
        return rows(self._complete())

    def explain(self) -> list[Row]:
        """Print the table of ``rows``, what is frozen in one line, and return them."""
        return explain(self._complete())

    def _complete(self) -> list[dict[str, Any]]:
        return [{**group, **_unzip(group["params"])} for group in self]


def route(model: nn.Module, *, rules: Mapping[str, Any] | None = None, heads: Sequence[str] | None = None) -> Routes:
    """Decide for every parameter of ``model`` which algorithm moves it, as which logical matrices.

    Linear and convolution weights, the projections of ``nn.MultiheadAttention`` and of recurrent layers go to
    Muon; embeddings, output heads (also tied to an embedding), norms, biases, vectors and depthwise filters
    go to AdamW, the last four kinds without weight decay. Of modules of transformers, timm, diffusers, torchvision
    and peft it is known what their types do not show (``docs/routing.md``): tables of positions, stacked experts,
    fused projections. A module states its own matrices with an attribute
    ``logical_matrices = {"weight": {"transposed": True}}``.

    ``rules`` overrules everything: a mapping from
    patterns of parameter names to ``"muon"``, ``"adamw"``, ``"sign"`` (sign of the momentum, for norm gains),
    ``"rows"`` (normalised rows, for embeddings) or a ``Matrix``; the first pattern that matches decides.
    ``heads``: patterns of the names of output heads, an empty list where there are none. Without it heads are what the
    model declares or names so; where only its place as the last map speaks for one, a warning names it.

    Raises ValueError, with every offender and rules to paste, for parameters of two or more dimensions of which nothing
    says what they are, and for rules and heads that match nothing. Cost: one walk over the modules.

    >>> model = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 100))
    >>> [(row["name"], row["algorithm"]) for row in route(model).rows]
    [('1.weight', 'muon'), ('0.weight', 'adamw'), ('2.weight', 'adamw'), ('2.bias', 'adamw')]
    >>> route(model, rules={"2.weight": "muon"}).rows[1]["name"]
    '2.weight'
    >>> [row["algorithm"] for row in route(model, heads=[]).rows]
    ['muon', 'muon', 'adamw', 'adamw']
    """
    routes, guess = divide(model, rules=rules, heads=heads)
    if guess is not None:
        warn_of_guess(guess, stacklevel=2)
    return routes


def divide(
    model: nn.Module, *, rules: Mapping[str, Any] | None = None, heads: Sequence[str] | None = None
) -> tuple[Routes, str | None]:
    """Return what ``route`` returns, and the name of a head that is a guess, where nobody has decided about it."""
    rules = dict(rules or {})
    uses = uses_of(model)
    refuse_idle_rules(rules, [use.path for places in uses.values() for use in places])
    found = output_heads(model, heads)
    roles = {p: decide(p, places, rules, found) for p, places in uses.items()}
    unclear = [_unclear(uses[p][0], p) for p, r in roles.items() if r is None and p.requires_grad]
    if unclear:
        raise ValueError(rules_to_paste(unclear))
    routes = _group([(uses[p][0].path, p, r) for p, r in roles.items() if r is not None])
    if found.guess is None or not found.guess.requires_grad or _rule_of(uses[found.guess], rules) is not None:
        return routes, None
    return routes, uses[found.guess][0].path


def uses_of(model: nn.Module) -> dict[Tensor, list[Use]]:
    """Every floating parameter with all places that hold it, in the order of ``named_parameters``."""
    uses: dict[Tensor, list[Use]] = {}
    refuse_flat_shards(model)
    known = known_roles(model)
    for prefix, module in model.named_modules():
        for name, p in module._parameters.items():
            if p is None:
                continue
            path = f"{prefix}.{name}".lstrip(".")
            check_shaped(path, p)
            if p.is_floating_point() or p.is_complex():
                role = declared_role(module, name)
                if role is None:
                    role = known[p] if p in known else _of_type(model, prefix, module, name, p)
                uses.setdefault(p, []).append(Use(path, module, name, role))
    return uses


def _of_type(model: nn.Module, prefix: str, module: nn.Module, name: str, p: Tensor) -> Role | None:
    """What the type says; of a weight under a parametrization, what it says of the weight that is made of it."""
    role = typed_role(module, name, p.shape)
    if role is None and isinstance(module, nn.utils.parametrize.ParametrizationList):
        return parametrized_role(model, prefix, module, name, p)
    return role


def _rule_of(places: list[Use], rules: Mapping[str, Any]) -> Role | None:
    for pattern, rule in rules.items():
        if any(fnmatchcase(place.path, pattern) for place in places):
            return role_of_rule(rule, f"rule {pattern!r}")
    return None


def decide(p: Tensor, places: list[Use], rules: Mapping[str, Any], heads: Heads) -> Role | None:
    """The one role of a parameter, or None where its uses do not decide it or contradict each other."""
    ruled = _rule_of(places, rules)
    if ruled is not None:
        return ruled
    roles = [place.role for place in places]
    tie = "" if len(places) == 1 else f", tied to {', '.join(place.path for place in places[1:])}"
    embedding = next((r for r in roles if r is not None and r.reason == "embedding"), None)
    if embedding is not None:
        return embedding._replace(reason="embedding" + tie)
    if p in heads.reasons and (roles[0] is None or roles[0].algorithm == "muon"):
        return Role("adamw", None, heads.reasons[p] + tie)
    first = roles[0]
    if first is None or any(r is None or r[:2] != first[:2] for r in roles):
        return None
    return first._replace(reason=first.reason + tie)


def _unclear(use: Use, p: Tensor) -> Unclear:
    return Unclear(use.path, tuple(p.shape), type(use.module).__name__)


def _group(routed: list[tuple[str, Tensor, Role]]) -> Routes:
    """Parameters of one algorithm, layout and decay together: Muon first, then matrices, then vectors."""
    groups: dict[Any, dict[str, Any]] = {}
    order = sorted(routed, key=lambda item: (item[2].algorithm != "muon", _skips_decay(item[2])))
    for path, p, r in order:
        matrix = r.matrix.as_dict() if r.matrix is not None else {}
        key = (r.algorithm, r.matrix, _skips_decay(r))
        if key not in groups:
            groups[key] = {"params": [], "algorithm": r.algorithm, "matrix": matrix, "reasons": []}
            groups[key] |= {"weight_decay": 0.0} if _skips_decay(r) else {}
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


def _skips_decay(r: Role) -> bool:
    """Whether weight decay is off by default: for vectors and depthwise filters, not embeddings and heads."""
    return r.algorithm == "adamw" and not r.reason.startswith(("embedding", "output head", "rule", "declared"))


def _unzip(params: list[tuple[str, Tensor]]) -> dict[str, Any]:
    return {"params": [p for _, p in params], "param_names": [name for name, _ in params]}


def refuse_idle_rules(rules: Mapping[str, Any], paths: list[str]) -> None:
    idle = [pattern for pattern in rules if not any(fnmatchcase(path, pattern) for path in paths)]
    if idle:
        raise ValueError(f"These rules match no parameter: {', '.join(idle)}. Parameters: {', '.join(paths)}.")
