"""Which parameter goes where: by module type, by declaration, by rule; never by guessing at a shape.

The type of the module that holds a parameter says what it is. Output heads are told from other Linear layers, since
they want AdamW (article 11416, kexue.fm/archives/11416).
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Size, Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from spectrain.optim._layout.matrix import Matrix, check_shaped
from spectrain.optim._routing.explain import Row, rows, table
from spectrain.optim._step.settings import ALGORITHMS

NAMES = ("lm_head", "head", "classifier", "score", "unembed", "embed_out", "output", "to_logits")
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
RECURRENT = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3, "RNN": 1, "RNNCell": 1}


class Role(NamedTuple):
    """Which algorithm moves a parameter, as which logical matrices, and why."""

    algorithm: str
    matrix: Matrix | None
    reason: str


def role_of_rule(rule: object, reason: str) -> Role:
    """Return the role that a rule states: an algorithm's name, a Matrix, or its fields in a mapping."""
    if isinstance(rule, Matrix):
        return Role("muon", rule, reason)
    if isinstance(rule, Mapping):
        return Role("muon", Matrix.from_dict(dict(rule)), reason)
    if rule == "muon":
        return Role("muon", Matrix(), reason)
    if rule in ALGORITHMS:
        return Role(str(rule), None, reason)
    raise ValueError(f"A rule is one of {', '.join(ALGORITHMS)}, a Matrix or its fields in a dict, got {rule!r}.")


def role(module: nn.Module, name: str, shape: Size) -> Role | None:
    """Return the role of ``module``'s own parameter ``name``, or None where the type does not decide it."""
    declarations = getattr(module, "logical_matrices", {})
    if name in declarations:
        return role_of_rule(declarations[name], f"declared by {type(module).__name__}")
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return Role("adamw", None, "embedding")
    if isinstance(module, NORMS):
        return Role("adamw", None, "norm")
    if len(shape) < 2:
        return Role("adamw", None, "bias" if "bias" in name else "vector")
    found = _linear_role(module, name, shape)
    if found is None and sum(size > 1 for size in shape) < 2:
        return Role("adamw", None, "vector: at most one dimension above 1")
    return found


def _linear_role(module: nn.Module, name: str, shape: Size) -> Role | None:
    """The role of a weight of a linear map: full connection, convolution, attention, recurrence."""
    kind = type(module).__name__
    if isinstance(module, nn.Linear) and name == "weight":
        return Role("adamw", None, "Linear with one row or column") if min(shape) == 1 else _muon_role(kind)
    if isinstance(module, nn.modules.conv._ConvNd) and name == "weight":
        return _convolution(module, kind, shape)
    if isinstance(module, nn.MultiheadAttention) and name.endswith("weight"):
        fused = Matrix(split=(shape[0] // 3,) * 3) if name == "in_proj_weight" else Matrix()
        return _muon_role(kind, fused)
    if kind in RECURRENT and isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        gates = 1 if name.startswith("weight_hr") else RECURRENT[kind]
        return _muon_role(kind, Matrix(split=(shape[0] // gates,) * gates if gates > 1 else ()))
    if kind == "Conv1D" and hasattr(module, "nf") and name == "weight":  # GPT-2 of transformers: x @ W
        return _muon_role("Conv1D of transformers, stored in x out", Matrix(transposed=True))
    return None


def _convolution(module: nn.modules.conv._ConvNd, kind: str, shape: Size) -> Role:
    """Out x in*kernel for each group; a depthwise one holds single filters and no matrix."""
    if module.groups > 1 and module.groups in (module.in_channels, module.out_channels):
        return Role("adamw", None, f"depthwise {kind}: one filter a channel, no matrix")
    return _muon_role(kind, Matrix(flatten=len(shape) > 2, groups=module.groups, transposed=module.transposed))


def _muon_role(reason: str, matrix: Matrix | None = None) -> Role:
    return Role("muon", matrix or Matrix(), reason)


def output_heads(model: nn.Module) -> dict[Tensor, str]:
    """Return the weights of output heads, each with the reason why it is taken for one.

    The first of these that finds any decides: ``model.get_output_embeddings()`` as in transformers; a Linear
    outside numbered blocks under a usual name; a Linear that shares its weight with an embedding (handled by
    the caller, which sees the tie); else the last Linear, unless it is one of several equal ones.
    """
    linears = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)
    ]  # the latter is the output projection of nn.MultiheadAttention
    get = getattr(model, "get_output_embeddings", None)
    declared = get() if callable(get) else None
    if declared is not None and hasattr(declared, "weight"):
        return {declared.weight: "output head (get_output_embeddings)"}
    named = {
        module.weight: f"output head (named {name})"
        for name, module in linears
        if name.rsplit(".", 1)[-1] in NAMES and not re.search(r"\d", name)
    }
    return named or _last(model, linears)


def _last(model: nn.Module, linears: list[tuple[str, nn.Linear]]) -> dict[Tensor, str]:
    """The last Linear, where nothing says that it is a hidden one."""
    if not linears or linears[-1][0] == "":
        return {}
    name, last = linears[-1]
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    tied = any(module.weight in embeddings for _, module in linears)
    twins = [
        other
        for other, module in linears[:-1]
        if name_pattern(other) == name_pattern(name) and module.weight.shape == last.weight.shape
    ]
    return {} if tied or twins else {last.weight: "output head (the last Linear of the model)"}


def name_pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)


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
        return rows({**group, **_unzip(group["params"])} for group in self)

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
    return _group([(uses[p][0].path, p, r) for p, r in roles.items() if r is not None])


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
            return role_of_rule(rule, f"rule {pattern!r}")
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


def _ambiguous(unclear: dict[str, tuple[int, ...]]) -> str:
    lines = "\n".join(f"  {path}  {shape}" for path, shape in unclear.items())
    return (
        f"The module types do not say what these parameters are:\n{lines}\nSay it, for example "
        f"route(model, rules={{{next(iter(unclear))!r}: 'adamw'}}): 'muon' (one out x in matrix), 'adamw', "
        "or Matrix(transposed=True) for x @ W, Matrix(batch=1) for stacked experts, Matrix(split=(q, k, v)) "
        "for fused matrices."
    )
