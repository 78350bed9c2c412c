"""A setting is the key of its design; every frozen schedule is what its setting gives."""

import inspect
from dataclasses import MISSING, fields

import pytest

from spectrain.approx import sign_schedule
from spectrain.approx._schedules.frozen import SETTINGS
from spectrain.approx._schedules.sign import design
from spectrain.approx._setting import Setting
from spectrain.approx.tables import TABLES

ONE = Setting(lower=0.01, steps=5)
WRONG = {
    "another interval": Setting(lower=0.01, upper=2.0, steps=5),
    "another stop": Setting(lower=0.01, tol=5e-3),
    "products are no steps": Setting(lower=0.01, products=5),
    "another dtype": Setting(lower=0.01, steps=5, dtype="bfloat16"),
    "a cushion": Setting(lower=0.01, steps=5, cushion=0.02),
    "another price": Setting(lower=0.01, steps=5, gram=True),
    "a list of degrees": Setting(lower=0.01, degree=(5, 5, 5, 5, 5)),
}


@pytest.mark.parametrize("setting", [s for s in SETTINGS if not s.rounded], ids=str)
def test_the_frozen_schedule_is_recomputed(setting):
    assert design(setting) == TABLES[setting]


SHORT = [s for s in SETTINGS if s.rounded and s.steps in (3, 5)]
OFTEN = {*SHORT[:4], *SHORT[4::6]}  # what Muon and msign ask for by default, and some of what a measured spectrum may
ROUNDED = [pytest.param(s, marks=() if s in OFTEN else pytest.mark.full, id=str(s)) for s in SETTINGS if s.rounded]


@pytest.mark.parametrize("setting", ROUNDED)
def test_the_frozen_schedule_for_a_rounding_is_recomputed(setting):
    """A search in doubles, which may add in another order elsewhere."""
    found, frozen = design(setting), TABLES[setting]
    for p, q in zip(found.polynomials, frozen.polynomials, strict=True):
        assert p.powers == q.powers
        assert p.coefficients == pytest.approx(q.coefficients, rel=1e-9)
    assert (found.interval, found.dtype, found.target) == (frozen.interval, frozen.dtype, frozen.target)
    assert found.error == pytest.approx(frozen.error, rel=1e-9)


def test_nothing_else_is_frozen():
    assert set(TABLES) == set(SETTINGS)


def test_a_setting_is_the_arguments_of_sign_schedule():
    given = inspect.signature(sign_schedule).parameters.values()
    defaults = {p.name: MISSING if p.default is inspect.Parameter.empty else p.default for p in given}
    assert {f.name: f.default for f in fields(Setting)} == defaults


def test_equal_settings_are_one_key_and_one_text():
    same = Setting(lower=0.01, upper=1.0, steps=5, degree=5, cushion=0, margin=1, aspect=1, dtype="float64")
    assert same == ONE
    assert hash(same) == hash(ONE)
    assert repr(same) == repr(ONE) == "Setting(lower=0.01, steps=5)"
    assert sign_schedule(0.01, steps=5, degree=5, aspect=1) is TABLES[ONE]


@pytest.mark.parametrize("other", WRONG.values(), ids=WRONG)
def test_other_settings_are_other_keys(other):
    assert other != ONE
    assert repr(other) != repr(ONE)
    assert other not in TABLES


def test_every_argument_is_in_the_text():
    every = {
        "lower": 0.02, "upper": 2.0, "steps": 3, "degree": (3, 5, 7), "cushion": 0.01, "margin": 1.01, "gram": True,
        "symmetric": True, "aspect": 2.0, "dtype": "float32",
    }  # fmt: skip
    assert eval(repr(Setting(**every))) == Setting(**every)
    assert repr(Setting(lower=0.1, products=12, degree="auto")) == "Setting(lower=0.1, products=12, degree='auto')"
