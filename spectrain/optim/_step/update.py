"""Muon's step as functions of tensors; the class only walks over parameter groups."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectrain import matfun
from spectrain._arrays.graphs import constant_in_graphs
from spectrain._arrays.runs import runs
from spectrain._arrays.scale import recording
from spectrain.matfun.internal import SHIPPED, CostTable, able_dtype, costs, replaying
from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._step.bound import post_clip, pre_decay
from spectrain.optim._step.decay import ENTRYWISE
from spectrain.optim._step.scale import factor
from spectrain.optim._step.settings import STEPS, Settings

_RUN = 2**17  # entries of tensors that are gone through together: three of them in float32 fit a cache of 2 MiB


def in_cache(tensors: Sequence[Tensor]) -> list[slice]:
    """Return runs of tensors that several passes in a row find in the cache of a processor; elsewhere one run of all.

    >>> in_cache([torch.zeros(400, 400), torch.zeros(8), torch.zeros(9)])
    [slice(0, 1, None), slice(1, 3, None)]
    """
    if recording() or any(t.device.type != "cpu" for t in tensors):
        return [slice(0, len(tensors))]
    return list(runs([t.numel() for t in tensors], _RUN))


def momentum_average(
    buffers: list[Tensor], grads: list[Tensor], *, momentum: float | int, nesterov: bool
) -> list[Tensor]:
    """Advance M <- momentum M + (1 - momentum) G in place; return M, or the same mix again (Nesterov).

    The average keeps the scale of the gradient; msign does not see the difference to Moonlight's
    M <- momentum M + G. Gradients are only read.

    >>> M, G = [torch.zeros(1, 1)], [torch.ones(1, 1)]
    >>> momentum_average(M, G, momentum=0.5, nesterov=True)[0].item(), M[0].item()
    (0.75, 0.5)
    """
    mixed: list[Tensor] = []
    for some in in_cache(buffers):
        M, G = buffers[some], grads[some]
        torch._foreach_lerp_(M, G, 1 - momentum)
        mixed += torch._foreach_lerp(G, M, momentum) if nesterov else M
    return mixed


def updates_here(averages: Sequence[Tensor], settings: Sequence[Settings]) -> list[Tensor]:
    """Return factor * msign of every logical matrix, assembled in the shapes of the parameters.

    ``settings[i]`` holds the layout, the scale and the exactness of ``averages[i]``; what is asked for alike goes
    through ``matfun.msign`` in one call.
    """
    signs = apply_factors(msign_all(logical_matrices(averages, settings), settings), settings)
    return [assemble(said.matrix, a, s) for said, a, s in zip(settings, averages, signs, strict=True)]


def logical_matrices(averages: Sequence[Tensor], settings: Sequence[Settings]) -> list[list[Tensor]]:
    """Views of the logical matrices of each parameter, those of one shape as a batch."""
    return [said.matrix.batches(a.contiguous()) for said, a in zip(settings, averages, strict=True)]


def apply_factors(signs: list[list[Tensor]], settings: Sequence[Settings]) -> list[list[Tensor]]:
    """Multiply each matrix by the learning-rate factor of its shape, in place."""
    found = [(sign, said.scale) for piece, said in zip(signs, settings, strict=True) for sign in piece]
    if found:
        torch._foreach_mul_([sign for sign, _ in found], [factor(name, *sign.shape[-2:]) for sign, name in found])
    return signs


def msign_all(pieces: list[list[Tensor]], settings: Sequence[Settings]) -> list[list[Tensor]]:
    """msign of all matrices, one call for each exactness, dtype and device."""
    batches: dict[Any, list[int]] = {}
    for i, (piece, said) in enumerate(zip(pieces, settings, strict=True)):
        key = (*said.exactness, piece[0].dtype, piece[0].device)
        batches.setdefault(key, []).append(i)
    signs: list[list[Tensor]] = [[] for _ in pieces]
    for members in batches.values():
        flat = [matrix for i in members for matrix in pieces[i]]
        found = iter(_msign(flat, settings[members[0]]))
        for i in members:
            signs[i] = [next(found) for _ in pieces[i]]
    return signs


def _msign(matrices: list[Tensor], settings: Settings) -> list[Tensor]:
    """msign as the group asks for it: by tolerance, schedule or number of steps, in its working dtype."""
    dtype = dtype_of(settings, matrices[0])
    out: torch.dtype = matrices[0].dtype
    if settings.tol is not None:
        # The group carries a table of costs, so that a resumed run plans as the one before; None: the process's.
        with replaying(settings.costs):
            return matfun.msign([matrix.to(dtype) for matrix in matrices], tol=settings.tol, out_dtype=out)
    steps = None if settings.schedule is not None else settings.steps or STEPS
    return matfun.msign(matrices, steps=steps, schedule=settings.schedule, dtype=dtype, out_dtype=out)


def dtype_of(settings: Settings, like: Tensor) -> torch.dtype:
    """Return the dtype in which msign iterates: never one that the schedule is not made for, or cannot bear."""
    dtype = working_dtype(settings.compute_dtype, like, tol=settings.tol)
    schedule = settings.schedule
    if schedule is None:
        return dtype
    return able_dtype(schedule, torch.float32 if dtype.itemsize == 2 and schedule.dtype != "bfloat16" else dtype)


def working_dtype(name: str, matrix: Tensor, *, tol: float | int | None = None) -> torch.dtype:
    """Return the dtype of the iteration.

    ``"auto"`` is bfloat16 for float32 matrices where it pays, unless a tolerance is asked for, and else the momentum's
    own dtype. It pays on CUDA from Ampere on. On a processor what it can do says nothing about what is fast (with
    AVX512-BF16 alone such products can be slower than in float32, with AMX five times faster): there it must have been
    measured, by ``matfun.planning.calibrate``, to be 1.5 times as fast.
    """
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    fast = tol is None and matrix.dtype == torch.float32 and _multiplies_bfloat16(matrix.device)
    return torch.bfloat16 if fast else matrix.dtype


@constant_in_graphs
def _multiplies_bfloat16(device: torch.device) -> bool:
    return _asked_once(device)


@functools.cache
def _asked_once(device: torch.device) -> bool:
    if device.type == "cuda":  # older ones emulate it, and say that they support it
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and costs() is not SHIPPED and _pays(costs())


def _pays(table: CostTable) -> bool:
    """Whether products of 256 and more are 1.5 times as fast in bfloat16: what is less is eaten by conversions."""
    return all(table.product("float32", k, 1) >= 1.5 * table.product("bfloat16", k, 1) for k in (256, 512, 1024))


def assemble(layout: Matrix, like: Tensor, matrices: list[Tensor]) -> Tensor:
    """Logical matrices put back in the shape they were cut from."""
    if len(matrices) == 1 and matrices[0].is_contiguous() and layout.in_order:
        return matrices[0].view(like.shape)
    update = torch.empty_like(like, memory_format=torch.contiguous_format)
    torch._foreach_copy_(layout.batches(update), matrices)
    return update


def apply(
    params: list[Tensor], updates: list[Tensor], settings: Settings, leading: Sequence[Tensor | None] = ()
) -> None:
    """Move this rank's tensors: decay, then W <- W - lr U within the bound, in float32 or wider, rounded once.

    ``leading``: what spectral decay shrinks.
    """
    lr = settings.rate
    wide = [p.to(u.dtype) for p, u in zip(params, updates, strict=True)]
    bounded = settings.bound is not None and settings.algorithm == "muon"
    if bounded and settings.bound_by == "pre-decay":
        pre_decay(wide, settings)
    if settings.decay == "spectral":
        for W, top in zip(wide, leading, strict=True):
            assert top is not None
            W.sub_(top * (lr * settings.weight_decay))
    step = 1.0 if isinstance(lr, Tensor) else lr
    for some in in_cache(wide):
        weights, moves = wide[some], updates[some]
        if settings.decay != "spectral":
            ENTRYWISE[settings.decay](weights, moves, settings)
        if isinstance(lr, Tensor):
            torch._foreach_mul_(moves, lr)
        torch._foreach_add_(weights, moves, alpha=step if settings.maximize else -step)
    if bounded and settings.bound_by == "post-clip":
        post_clip(wide, settings)
    narrow = [(p, w) for p, w in zip(params, wide, strict=True) if p is not w]
    if narrow:
        torch._foreach_copy_([p for p, _ in narrow], [w for _, w in narrow])
