"""Every frozen schedule is what its setting gives."""

import pytest

from spectrain.approx._schedules.frozen import SETTINGS, key_of
from spectrain.approx._schedules.sign import compute_sign_schedule
from spectrain.approx.tables import TABLES


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_frozen_schedule_is_recomputed(setting):
    assert compute_sign_schedule(**setting) == TABLES[key_of(setting)]


def test_nothing_else_is_frozen():
    assert set(TABLES) == {key_of(setting) for setting in SETTINGS}
