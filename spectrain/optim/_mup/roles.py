"""Which sides of a parameter grow with the width of the model: its role, from the module graph."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn

from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._routing.heads import Heads, name_pattern, output_heads, warn_of_guess
from spectrain.optim._routing.known import POSITIONS, RATES, TOKENS
from spectrain.optim._routing.role import Role
from spectrain.optim._routing.route import Use, decide, refuse_idle_rules, uses_of

ROLES = ("input", "hidden", "output", "tied", "vector")


class Part(NamedTuple):
    """A parameter in its role: ``out x in_`` is the whole matrix, fused pieces and heads together."""

    name: str
    param: Tensor
    role: str
    out: int
    in_: int
    matrix: Matrix | None
    reason: str
    typed: bool
    """Whether the module's type says what it is."""

    @property
    def width(self) -> int:
        """The side that grows with the model; 1 for a vector, whose entries are each as large as before."""
        return {"input": self.out, "tied": self.out, "vector": 1}.get(self.role, self.in_)


def parts_of(model: nn.Module, *, roles: Mapping[str, str], rules: Mapping[str, Any]) -> list[Part]:
    """Return every floating parameter in its role.

    Raises ValueError naming each parameter that the module types do not decide, and a model in which they show no
    input or no output.
    """
    uses = uses_of(model)
    paths = [use.path for places in uses.values() for use in places]
    _check_roles(roles, paths)
    refuse_idle_rules(dict(rules), paths)
    heads, first = output_heads(model), _first_map(model)
    if heads.guess is not None and not _is_told(uses[heads.guess], [*roles, *rules]):
        warn_of_guess(uses[heads.guess][0].path, stacklevel=3)
    found = [_part(p, places, roles, rules, heads, first) for p, places in uses.items()]
    unclear = [f"  {name}  {tuple(p.shape)}" for name, p, role, *_ in found if not role and p.requires_grad]
    if unclear:
        raise ValueError(_ambiguous(unclear))
    parts = [part for part in found if part.role]
    _check_ends(model, parts, roles)
    return parts


def _part(
    p: Tensor,
    places: list[Use],
    roles: Mapping[str, str],
    rules: Mapping[str, Any],
    heads: Heads,
    first: Mapping[Tensor, str],
) -> Part:
    """One parameter; its role is empty where nothing decides it."""
    told = decide(p, places, rules, heads)
    typed = decide(p, places, {}, heads)
    matrix = next((r.matrix for r in (told, typed) if r is not None and r.matrix is not None), None)
    stated = next((k for k in roles if any(fnmatchcase(place.path, k) for place in places)), None)
    own = _told(places)
    if stated is not None:
        role, reason = roles[stated], f"declared by {stated!r}"
    elif own is not None:
        role, reason = own
    elif typed is None and matrix is not None:
        role, reason = "hidden", "matrix declared by a rule"
    else:
        role, reason = _role(p, places, typed, first)
    rows = any(isinstance(place.module, (nn.Embedding, nn.EmbeddingBag)) for place in places)
    rows = rows or (role == "input" and matrix is None and (typed is None or typed.matrix is None))
    out, in_ = _sides(p, role, matrix, rows=rows)
    return Part(places[0].path, p, role, out, in_, matrix, reason, typed is not None)


def _is_told(places: list[Use], patterns: list[str]) -> bool:
    """Whether the caller or a module says what the parameter at these places is."""
    return _told(places) is not None or any(fnmatchcase(place.path, k) for place in places for k in patterns)


def _told(places: list[Use]) -> tuple[str, str] | None:
    """The role that the modules which hold a parameter state in ``width_roles``, and who; None where none does."""
    said = {}
    for place in places:
        stated = getattr(place.module, "width_roles", {}).get(place.name)
        if stated is not None:
            said[_checked_role(stated, f"width_roles of {place.path}")] = type(place.module).__name__
    if len(said) > 1:
        raise ValueError(f"mup: modules that share {places[0].path} state other roles of it: {', '.join(said)}.")
    return next(((role, f"declared by {who}") for role, who in said.items()), None)


def _role(p: Tensor, places: list[Use], typed: Role | None, first: Mapping[Tensor, str]) -> tuple[str, str]:
    """The role that module types give, and why; empty where they give none."""
    if typed is None:
        return "", ""
    if p.ndim < 2 or typed.reason.startswith(("norm", "bias", "vector", "depthwise", RATES)):
        return "vector", typed.reason
    if typed.reason.startswith((POSITIONS, TOKENS)):
        return "input", typed.reason
    if typed.reason.startswith("embedding"):
        tied = any(isinstance(place.module, nn.Linear) for place in places)
        return ("tied", "embedding and output head") if tied else ("input", typed.reason)
    if typed.reason.startswith("output head"):
        return "output", typed.reason
    if typed.reason == "Linear with one row or column":
        return ("output" if p.shape[0] == 1 else "input"), typed.reason
    if p in first:
        return ("input", first[p]) if first[p] else ("", "")
    return "hidden", typed.reason


def _first_map(model: nn.Module) -> dict[Tensor, str]:
    """The weight that reads the data, where it is no embedding; with an empty reason where that is not certain.

    A convolution before every other map reads images or sound. Without one and without embeddings it is the first
    Linear, unless others have its name but for numbers, and its shape: then blocks begin the model.
    """
    name, first, rest = _maps(model)
    if isinstance(first, nn.modules.conv._ConvNd):
        return {first.weight: "first convolution"}
    if first is None or any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for m in model.modules()):
        return {}
    if isinstance(first, nn.RNNBase):
        return {getattr(first, first._flat_weights_names[0]): "first recurrent layer"}
    if isinstance(first, nn.MultiheadAttention):
        return {p: "" for p in first.parameters(recurse=False) if p.ndim > 1}
    assert isinstance(first, nn.Linear)
    same = (name_pattern(name), first.weight.shape)
    twins = any(isinstance(m, nn.Linear) and (name_pattern(other), m.weight.shape) == same for other, m in rest)
    return {first.weight: "" if twins and name_pattern(name) != "#" else "first Linear of a model without embedding"}


def _maps(model: nn.Module) -> tuple[str, nn.Module | None, list[tuple[str, nn.Module]]]:
    """The first module that is a linear map or is made of such, its name, and those after it."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention, nn.RNNBase)
    maps: list[tuple[str, nn.Module]] = [(n, m) for n, m in model.named_modules() if isinstance(m, kinds)]
    return (maps[0][0], maps[0][1], maps[1:]) if maps else ("", None, [])


def _sides(p: Tensor, role: str, matrix: Matrix | None, *, rows: bool) -> tuple[int, int]:
    """(out, in) of the whole map; a table of rows to look up has in = 1."""
    if p.ndim < 2 or role in ("", "vector"):
        return 1, 1
    if rows:
        return p.shape[-1], 1
    if matrix is None:
        return p.shape[0], p[0].numel() if p.ndim > 1 else 1
    return replace(matrix, split=(), heads=()).shapes(p.shape)[0]


def _check_roles(roles: Mapping[str, str], paths: list[str]) -> None:
    for pattern, role in roles.items():
        _checked_role(role, repr(pattern))
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise ValueError(f"mup: the role {role!r} of {pattern!r} matches no parameter. They are: {paths}.")


def _checked_role(role: object, where: str) -> str:
    if role not in ROLES:
        raise ValueError(f"mup: a role is one of {', '.join(ROLES)}, got {role!r} for {where}.")
    return str(role)


def _check_ends(model: nn.Module, parts: list[Part], roles: Mapping[str, str]) -> None:
    """Raise where no parameter reads the data, or none writes the answer, and the caller has not said so."""
    linears = [part.name for part in parts if part.role not in ("vector",)]
    if not linears:
        raise ValueError(f"mup: {type(model).__name__} has no matrix, so it has no width.")
    for end, name, held in (("input", linears[0], ("input", "tied")), ("output", linears[-1], ("output", "tied"))):
        if any(part.role in held for part in parts) or any(fnmatchcase(name, pattern) for pattern in roles):
            continue
        kind = "embedding" if end == "input" else "head"
        raise ValueError(
            f"mup: no {end} layer is to be seen in {type(model).__name__}: no {kind} by type or name. Say what {name} "
            f"is: roles={{{name!r}: {end!r}}}, or 'hidden' where both sides of it grow with the width."
        )


def _ambiguous(unclear: list[str]) -> str:
    name = unclear[0].split()[0]
    lines = "\n".join(unclear)
    return (
        f"mup: the module types do not say which sides of these parameters grow with the width:\n{lines}\n"
        f"Say it, for example roles={{{name!r}: 'hidden'}}: 'input' (a fixed size to the width; a table of rows such "
        "as positions), 'hidden' (width to width), 'output' (the width to a fixed size), 'vector'. What is not stored "
        "out x in: rules={...: Matrix(transposed=True)} as in route."
    )
