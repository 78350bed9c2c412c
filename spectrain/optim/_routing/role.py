"""What a parameter is to the optimizer: an algorithm, its logical matrices, and the reason."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Size, Tensor, nn

from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._step.settings import ALGORITHMS

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


def declared_role(module: nn.Module, name: str) -> Role | None:
    """Return the role that ``module`` itself states in ``logical_matrices``, if it does."""
    declarations = getattr(module, "logical_matrices", {})
    return role_of_rule(declarations[name], f"declared by {type(module).__name__}") if name in declarations else None


def typed_role(module: nn.Module, name: str, shape: Size) -> Role | None:
    """Return the role of ``module``'s own parameter ``name``, or None where its type does not decide it."""
    if name == "weight_v" and "weight_g" in module._parameters:  # torch's weight_norm: the direction
        name = "weight"
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


# Parametrizations of torch.nn.utils, and which of what they keep has the shape and the place of the weight.
MADE_OF = {"_WeightNorm": "original1", "_SpectralNorm": "original"}


def weight_of(module: nn.Module) -> Tensor | None:
    """Return the parameter that is a map's weight, or of which it is made; None where that is not certain."""
    own = module._parameters
    if own.get("weight") is not None or own.get("weight_v") is not None:
        return own["weight"] if own.get("weight") is not None else own["weight_v"]
    made = getattr(getattr(module, "parametrizations", None), "weight", None)
    kept = MADE_OF.get(type(made[0]).__name__, "") if made is not None and len(made) == 1 else ""
    return getattr(made, kept) if kept else None


def parametrized_role(model: nn.Module, prefix: str, made: nn.Module, name: str, p: Tensor) -> Role | None:
    """Return the role of what a parametrization keeps, as its module's type gives it to the weight."""
    path, _, weight = f".{prefix}".rpartition(".parametrizations.")
    kind = type(made[0]).__name__  # type: ignore[index]
    if len(made) != 1 or MADE_OF.get(kind) != name:  # type: ignore[arg-type]
        return None
    role = typed_role(model.get_submodule(path[1:]), weight, p.shape)
    return None if role is None else role._replace(reason=f"{role.reason} ({kind.strip('_')}: {name})")
