"""Muon for a whole model, routing with reasons, muP, schedules seen as averages, weight averaging."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.optim import averaging as averaging
    from spectrain.optim import ranks as ranks
    from spectrain.optim import schedules as schedules
    from spectrain.optim._clip import clip_grad_norm_ as clip_grad_norm_
    from spectrain.optim._layout.matrix import Matrix as Matrix
    from spectrain.optim._muon import Muon as Muon
    from spectrain.optim._mup.mup import Parametrisation as Parametrisation
    from spectrain.optim._mup.mup import mup as mup
    from spectrain.optim._qk_clip import qk_clip_ as qk_clip_
    from spectrain.optim._routing.route import route as route
    from spectrain.optim._schedule import ScheduleLR as ScheduleLR
    from spectrain.optim._schedule import WarmupDecay as WarmupDecay
    from spectrain.optim._spectra import spectra as spectra
    from spectrain.optim._weight_average import WeightAverage as WeightAverage

# Old names, which warn and work for one release, and where they are now.
_MOVED = {
    "averaging_coefficients": "averaging.averaging_coefficients",
    "schedule_from_coefficients": "averaging.schedule_from_coefficients",
    "weight_rms": "averaging.weight_rms",
    "Machine": "ranks.Machine",
    "plan": "ranks.plan_shards",
    "UniformMemory": "schedules.UniformMemory",
    "Schedule": "WarmupDecay",
}

if TYPE_CHECKING:  # old names are types, too
    from spectrain.optim._averaging import averaging_coefficients as averaging_coefficients
    from spectrain.optim._averaging import schedule_from_coefficients as schedule_from_coefficients
    from spectrain.optim._averaging import weight_rms as weight_rms
    from spectrain.optim._ranks.cost import Machine as Machine
    from spectrain.optim._ranks.plan import plan_shards
    from spectrain.optim._schedule import UniformMemory as UniformMemory

    Schedule = WarmupDecay
    plan = plan_shards

__getattr__, __dir__ = door(__name__, moved=_MOVED)
