"""What a parameter is, from the type of the module that holds it."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Size, nn

from spectrain.optim._layout.matrix import Matrix

ALGORITHMS = ("muon", "adamw", "sign", "rows")
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
RECURRENT = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3, "RNN": 1, "RNNCell": 1}


class Role(NamedTuple):
    """Which algorithm moves a parameter, as which logical matrices, and why."""

    algorithm: str
    matrix: Matrix | None
    reason: str


def declared(rule: object, reason: str) -> Role:
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
        return declared(declarations[name], f"declared by {type(module).__name__}")
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
        return Role("adamw", None, "Linear with one row or column") if min(shape) == 1 else _muon(kind)
    if isinstance(module, nn.modules.conv._ConvNd) and name == "weight":
        return _convolution(module, kind, shape)
    if isinstance(module, nn.MultiheadAttention) and name.endswith("weight"):
        fused = Matrix(split=(shape[0] // 3,) * 3) if name == "in_proj_weight" else Matrix()
        return _muon(kind, fused)
    if kind in RECURRENT and isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        gates = 1 if name.startswith("weight_hr") else RECURRENT[kind]
        return _muon(kind, Matrix(split=(shape[0] // gates,) * gates if gates > 1 else ()))
    if kind == "Conv1D" and hasattr(module, "nf") and name == "weight":  # GPT-2 of transformers: x @ W
        return _muon("Conv1D of transformers, stored in x out", Matrix(transposed=True))
    return None


def _convolution(module: nn.modules.conv._ConvNd, kind: str, shape: Size) -> Role:
    """Out x in*kernel for each group; a depthwise one holds single filters and no matrix."""
    if module.groups > 1 and module.groups in (module.in_channels, module.out_channels):
        return Role("adamw", None, f"depthwise {kind}: one filter a channel, no matrix")
    return _muon(kind, Matrix(flatten=len(shape) > 2, groups=module.groups, transposed=module.transposed))


def _muon(reason: str, matrix: Matrix | None = None) -> Role:
    return Role("muon", matrix or Matrix(), reason)
