"""Matrices with known answers, exact references, and wrong answers that a check must reject.

The layer imports nothing of spectrain: an oracle must not use what it judges.
"""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.testing._precise import precise_msign as precise_msign
    from spectrain.testing._reference import exact_msign as exact_msign
    from spectrain.testing._reference import noise_floor as noise_floor
    from spectrain.testing._reference import polar_error as polar_error
    from spectrain.testing._reference import relative_error as relative_error
    from spectrain.testing._reference import spectral_function as spectral_function
    from spectrain.testing._spectra import random_orthonormal as random_orthonormal
    from spectrain.testing._spectra import with_singular_values as with_singular_values
    from spectrain.testing._wrong import WRONG_MSIGN as WRONG_MSIGN
    from spectrain.testing._zoo import zoo as zoo

__getattr__, __dir__ = door(__name__)
