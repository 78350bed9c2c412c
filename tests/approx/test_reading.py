"""What is read says "proven" only if it is: changed files are refused by name, or computed anew."""

import json
import math

import pytest

from spectrain.approx import Polynomial, Schedule, root_schedule, sign_schedule
from spectrain.approx._schedules.cache import cache_folder, recall
from spectrain.approx.recipes import RECIPES, certify

SCHEDULE = sign_schedule(0.1, steps=3)


def changed(**fields):
    return json.dumps(json.loads(SCHEDULE.to_json()) | fields)


def scaled(factor):
    data = json.loads(SCHEDULE.to_json())
    data["polynomials"][1]["coefficients"] = [factor * c for c in data["polynomials"][1]["coefficients"]]
    return json.dumps(data)


def first_powers(powers):
    data = json.loads(SCHEDULE.to_json())
    data["polynomials"][0]["powers"] = powers
    return json.dumps(data)


SPOILED = {
    "scaled": scaled(1.01),
    "scaled by an ulp's worth": scaled(1 + 2.0**-40),
    "NaN coefficient": scaled(math.nan),
    "infinite coefficient": scaled(math.inf),
    "a smaller error": changed(error=0.5 * SCHEDULE.error),
    "an error one ulp smaller": changed(error=math.nextafter(SCHEDULE.error, 0)),
    "no error": changed(error=0.0),
    "negative error": changed(error=-1.0),
    "NaN error": changed(error=math.nan),
    "an error beyond doubles": SCHEDULE.to_json().replace(
        f'"error": {SCHEDULE.error!r}', '"error": ' + "1" + "0" * 400
    ),
    "a text": changed(error="0.1"),
    "a truth value": changed(error=True),
    "another interval": changed(interval=[0.05, 1.0]),
    "an infinite interval": changed(interval=[0.1, math.inf]),
    "a reversed interval": changed(interval=[1.0, 0.1]),
    "a narrower image": changed(intervals=[*SCHEDULE.intervals[:-1], (1.0, 1.0)]),
    "too few images": changed(intervals=SCHEDULE.intervals[:-1]),
    "too many images": changed(intervals=[*SCHEDULE.intervals, (0.0, 2.0)]),
    "a function as dtype": changed(dtype="load"),
    "a list as dtype": changed(dtype=["float64"]),
    "another target": changed(target="clip"),
    "negative products": changed(products=-1),
    "NaN reached": changed(reached=math.nan),
    "no polynomials": changed(polynomials=[]),
    "another name": changed(more=1),
    "fractional powers": first_powers([1, 3.0, 5]),
    "falling powers": first_powers([5, 3, 1]),
    "one power too many": first_powers([1, 3, 5, 7]),
    "a power beyond all": first_powers([1, 3, 10**400]),
    "a power beyond memory": first_powers([1, 4, 2 * 10**9]),
    "deep": "[" * 100_000,
    "deep inside": SCHEDULE.to_json().replace('"sign"', "[" * 100_000 + "]" * 100_000),
    "digits": changed(error=0).replace('"error": 0', '"error": ' + "9" * 5000),
    "a number": "3",
    "null": "null",
    "nothing": "",
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_does_not_hold_is_refused(name):
    with pytest.raises(ValueError, match=r"Schedule\.from_json: not a schedule written by to_json"):
        Schedule.from_json(SPOILED[name])


def test_the_refusal_says_what_is_proven_and_what_to_do():
    with pytest.raises(ValueError, match=r"is proven and .* make the schedule anew with sign_schedule"):
        Schedule.from_json(SPOILED["scaled"])


def test_whatever_is_made_here_comes_back():
    for schedule in (
        sign_schedule(1e-3, steps=8, cushion=0.02, margin=1.01), sign_schedule(1e-12, products=30),
        sign_schedule(1e-2, steps=5, dtype="bfloat16"), root_schedule(100, -1, lower=1e-4, terms=5),
        *(certify(name, low) for name in RECIPES for low in (1e-3, 0.3)),
        certify("you", 1e-3, 1e9), certify("jordan", 1e-3, 1e300),
    ):  # fmt: skip
        assert Schedule.from_json(schedule.to_json()) == schedule


def test_a_wider_error_is_still_a_bound():
    for error in (2 * SCHEDULE.error, math.inf):
        assert Schedule.from_json(changed(error=error)).error == error
    plain = Schedule((Polynomial((1, 3), (1.5, -0.5)),), 0.4, 2.0, (0.5, 1.0))
    assert Schedule.from_json(plain.to_json()) == plain
    with pytest.raises(ValueError, match="is proven"):  # at 1/2 the cubic step is 0.6875
        Schedule.from_json(plain.to_json().replace("0.4", "0.3"))


@pytest.mark.parametrize("name", SPOILED)
def test_a_cached_file_that_does_not_hold_is_computed_again(name, tmp_path):
    recall("key", lambda: SCHEDULE, folder=tmp_path)
    path = next(tmp_path.iterdir())
    path.write_text(SPOILED[name])
    assert recall("key", lambda: SCHEDULE, folder=tmp_path) == SCHEDULE
    assert path.read_text() == SCHEDULE.to_json()


def test_a_cached_schedule_for_something_else_is_computed_again(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = sign_schedule(0.2, steps=3, dtype="bfloat16")
    path = next(cache_folder().iterdir())
    for other in (sign_schedule(0.3, steps=3), root_schedule(2, -1, lower=0.04, steps=3)):
        path.write_text(other.to_json())
        assert sign_schedule(0.2, steps=3, dtype="bfloat16") == ours


def test_without_any_home_nothing_is_cached(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert sign_schedule(0.2, steps=3, dtype="bfloat16").error < 1
    with pytest.raises(FileNotFoundError, match="XDG_CACHE_HOME"):
        cache_folder()
