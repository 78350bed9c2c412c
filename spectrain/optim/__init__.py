"""Muon for a whole model, routing with reasons, muP, schedules seen as averages, weight averaging."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.optim._averaging import averaging_coefficients as averaging_coefficients
    from spectrain.optim._averaging import schedule_from_coefficients as schedule_from_coefficients
    from spectrain.optim._averaging import weight_rms as weight_rms
    from spectrain.optim._clip import clip_grad_norm_ as clip_grad_norm_
    from spectrain.optim._layout.matrix import Matrix as Matrix
    from spectrain.optim._muon import Muon as Muon
    from spectrain.optim._mup.mup import Parametrisation as Parametrisation
    from spectrain.optim._mup.mup import mup as mup
    from spectrain.optim._qk_clip import qk_clip_ as qk_clip_
    from spectrain.optim._ranks.cost import Machine as Machine
    from spectrain.optim._ranks.plan import plan as plan
    from spectrain.optim._routing.route import route as route
    from spectrain.optim._schedule import Schedule as Schedule
    from spectrain.optim._schedule import ScheduleLR as ScheduleLR
    from spectrain.optim._schedule import UniformMemory as UniformMemory
    from spectrain.optim._spectra import spectra as spectra
    from spectrain.optim._weight_average import WeightAverage as WeightAverage

__getattr__, __dir__ = door(__name__)
