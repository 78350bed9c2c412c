"""Pursuit against closed forms, the other closed forms, time reversal, and wrong answers."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from spectrain.gallery import pursuit
from spectrain.gallery.pursuit import (
    Round,
    Straight,
    intercept,
    pursue,
    ring,
    straight_flight,
    straight_flight_path,
)

UP = Straight((0.0, 0.0), (0.0, 1.0))


def capture_time(speed, start):
    """Bouguer's result for a target that starts at the origin and flies along y at speed 1.

    With n = speed and D = distance, along = -start_y: T = (n D + along)/(n^2 - 1).
    """
    return (speed * np.hypot(*start) - start[1]) / (speed**2 - 1)


def test_the_cow_is_caught_after_4800_sevenths():
    chase = pursue(UP, 4 / 3, (300.0, 0.0))
    assert chase.captured
    assert abs(chase.distance - 4800 / 7) < 1e-9 * 4800 / 7
    assert abs(chase.time - 3600 / 7) < 1e-9 * 3600 / 7


@pytest.mark.parametrize("speed", [1.05, 4 / 3, 2.0, 7.0])
@pytest.mark.parametrize("start", [(3.0, 1.0), (3.0, -4.0), (0.01, 2.0), (-1.0, 0.0)])
def test_straight_flight_is_captured_at_the_closed_form(speed, start):
    chase = pursue(UP, speed, start)
    np.testing.assert_allclose(chase.time, capture_time(speed, start), rtol=1e-10)
    np.testing.assert_allclose(straight_flight(UP, speed, start)[0], capture_time(speed, start), rtol=1e-13)
    assert "had to" in chase.certificate


@pytest.mark.parametrize("n", [1.2, 5.0, 30.0])
def test_the_missile_hits_the_ship_where_the_textbook_says(n):
    """From (0, 0) at (1, 0) along x = 1: y' = sinh(q) with q = -log(1 - x) / n, so the hit is at y = n / (n^2 - 1)."""
    text, picture = pursuit.Show("missile", n)()
    assert text.startswith("pursuit: capture")
    path = np.array([picture.lines[1].x, picture.lines[1].y])
    np.testing.assert_allclose(path[:, -1], [1.0, n / (n * n - 1)], atol=2e-9)
    path = path[:, path[0] < 0.999]  # near the end the curve turns into the line x = 1, and y says nothing of x
    left = 1 - path[0]
    curve = n / (n * n - 1) + left ** (1 + 1 / n) / (2 + 2 / n) - left ** (1 - 1 / n) / (2 - 2 / n)
    np.testing.assert_allclose(path[1], curve, atol=1e-8)
    assert not np.allclose(path[1], path[0] * n / (n * n - 1), atol=1e-3)  # no straight line


WRONG = {
    "as if the target stood still": lambda n, p: np.hypot(*p) / n,
    "lead guidance": lambda n, p: intercept(UP, n, p),
    "only across": lambda n, p: n * np.hypot(*p) / (n * n - 1),
    "closing at the difference of speeds": lambda n, p: np.hypot(*p) / (n - 1),
    "the wrong sign": lambda n, p: (n * np.hypot(*p) + p[1]) / (n * n - 1),
    "stopped at a thousandth": lambda n, p: pursue(UP, n, p, radius=1e-3 * np.hypot(*p)).time,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_answers(wrong):
    cases = [(1.5, (3.0, 1.0)), (2.0, (3.0, -4.0)), (4 / 3, (300.0, 0.0))]
    assert any(abs(wrong(n, p) / capture_time(n, p) - 1) > 1e-8 for n, p in cases)


@pytest.mark.parametrize("speed", [0.6, 1.3, 2.5])
def test_the_path_is_the_closed_form_one(speed):
    start = (2.0, 1.5)
    phi0 = np.arctan2(2.0, -1.5)
    t, P = straight_flight_path(UP, speed, start, np.linspace(0.3, phi0, 9))
    chase = pursue(UP, speed, start)
    np.testing.assert_allclose(chase.position(t).T, P, atol=1e-10)


@pytest.mark.parametrize("speed", [0.2, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("start", [(3.0, 1.0), (3.0, -1.0), (0.5, 4.0)])
def test_slower_pursuers_miss_by_the_closed_form(speed, start):
    chase = pursue(UP, speed, start, until=100.0)
    time, closest = straight_flight(UP, speed, start)
    assert chase.outcome == "miss"
    assert time == np.inf
    np.testing.assert_allclose(chase.closest, closest, rtol=2e-2 if speed == 1 else 1e-8)


def test_head_on_even_a_slow_pursuer_arrives():
    chase = pursue(UP, 0.5, (0.0, 3.0))
    assert chase.captured
    np.testing.assert_allclose(chase.time, 2.0, rtol=1e-9)
    assert straight_flight(UP, 0.5, (0.0, 3.0)) == (2.0, 0.0)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_round_the_block_a_slower_guard_ends_on_a_circle(ratio):
    """The steady circle has radius ratio * R, and the sight is its tangent: the gap is R sqrt(1 - ratio^2)."""
    chase = pursue(Round(2.0, 3.0), 3 * ratio, (5.0, 1.0))
    assert chase.outcome == "limit cycle"
    assert "contracts" in chase.certificate
    end = chase.position(chase.time)
    np.testing.assert_allclose(np.linalg.norm(end), 2 * ratio, rtol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(Round(2.0, 3.0)(chase.time) - end), 2 * np.sqrt(1 - ratio**2), rtol=1e-8)


def test_round_the_block_a_faster_guard_arrives():
    chase = pursue(Round(2.0, 3.0), 3.6, (5.0, 1.0))
    assert chase.captured
    gap = np.linalg.norm(Round(2.0, 3.0)(chase.time) - chase.position(chase.time))
    assert gap < 1e-5


def test_a_period_may_be_given_and_space_has_three_dimensions():
    def bird(t):
        return np.cos(t), np.sin(t), 0.3 * np.sin(3 * t)

    chase = pursue(bird, 0.7, (2.0, 0.0, 1.0), period=2 * np.pi)
    assert chase.outcome == "limit cycle"
    assert pursue(bird, 0.7, (2.0, 0.0, 1.0), until=20.0).outcome == "undecided"
    assert pursue(bird, 1.8, (2.0, 0.0, 1.0)).captured


def test_equal_speeds_round_the_block_are_left_undecided():
    assert pursue(Round(1.0, 1.0), 1.0, (2.0, 0.0), until=30.0).outcome == "undecided"


def test_time_can_be_reversed():
    target, speed, start = Round(2.0, 3.0), 2.0, np.array([5.0, 1.0])
    end = pursue(target, speed, start, until=4.0).position(4.0)

    def backwards(s, P):
        R = target(4.0 - s) - P
        return -speed * R / np.linalg.norm(R)

    run = solve_ivp(backwards, (0, 4.0), end, method="DOP853", rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(run.y[:, -1], start, atol=1e-7)


def test_two_pursuers_of_one_target_never_move_apart():
    target, t = Round(1.0, 1.0), np.linspace(0, 20, 200)
    a = pursue(target, 0.6, (3.0, 0.0), until=20.0).position(t)
    b = pursue(target, 0.6, (-1.0, 2.0), until=20.0).position(t)
    assert np.all(np.diff(np.linalg.norm(a - b, axis=0)) < 1e-9)


def test_the_motion_commutes_with_rotation_and_scale():
    R = np.array([[0.6, -0.8], [0.8, 0.6]])
    plain = pursue(UP, 1.5, (3.0, 1.0))
    turned = pursue(Straight((0.0, 0.0), tuple(R @ [0.0, 1.0])), 1.5, R @ [30.0, 10.0])
    np.testing.assert_allclose(turned.time, 10 * plain.time, rtol=1e-10)


def test_a_missile_with_reaction_time_stays_behind_by_that_time():
    chase = pursue(UP, 2.0, (30.0, 0.0), delay=3.0)
    assert chase.outcome == "miss"
    np.testing.assert_allclose(np.linalg.norm(UP(chase.time) - chase.position(chase.time)), 3.0, rtol=1e-5)
    assert pursue(UP, 2.0, (30.0, 0.0), delay=3.0, radius=3.5).captured


def test_a_delay_of_nothing_is_no_delay():
    np.testing.assert_allclose(
        pursue(UP, 2.0, (3.0, 0.0), delay=1e-9).time, pursue(UP, 2.0, (3.0, 0.0)).time, rtol=1e-6
    )


@pytest.mark.parametrize("start", [(4.0, 0.0), (3.0, 5.0), (-2.0, -1.0)])
def test_lead_guidance_meets_the_target_at_the_interception_and_never_later(start):
    chase = pursue(UP, 1.7, start, law="lead")
    time = intercept(UP, 1.7, start)
    np.testing.assert_allclose(chase.time, time, rtol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(UP(time) - np.array(start)), 1.7 * time, rtol=1e-13)
    assert time <= pursue(UP, 1.7, start).time


def test_interception_by_a_slower_pursuer():
    assert intercept(UP, 0.5, (3.0, 0.0)) == np.inf
    assert pursue(UP, 0.5, (3.0, 0.0), law="lead").outcome == "miss"
    time = intercept(UP, 0.5, (0.1, 3.0))
    np.testing.assert_allclose(np.hypot(0.1, 3.0 - time), 0.5 * time, rtol=1e-13)
    assert intercept(UP, 1.0, (3.0, 0.0)) == np.inf
    np.testing.assert_allclose(intercept(UP, 1.0, (3.0, 3.0)), 3.0, rtol=1e-13)
    assert pursue(Round(1.0, 1.0), 1.5, (3.0, 0.0), law="lead").captured


@pytest.mark.parametrize("n", [2, 3, 4, 6, 9])
def test_a_regular_ring_meets_in_the_middle_at_the_closed_form(n):
    phi = 2 * np.pi * np.arange(n) / n
    run = ring(5 * np.stack([np.cos(phi), np.sin(phi)], axis=1), 2.0)
    side = 10 * np.sin(np.pi / n)
    assert run.captured
    np.testing.assert_allclose(run.time, side / (2 * (1 - np.cos(2 * np.pi / n))), rtol=1e-9)
    if n < 9:  # rounding breaks the symmetry of large rings
        np.testing.assert_allclose(run.position(run.time * 0.999), 0, atol=0.5)


def test_an_irregular_ring_in_space_meets_within_the_bound():
    starts = np.random.default_rng(0).normal(size=(5, 3))
    run = ring(starts, 2.0)
    sides = np.linalg.norm(np.roll(starts, -1, axis=0) - starts, axis=1)
    assert run.captured
    assert run.time <= 5 * sides.sum() / 16


def test_capture_within_a_radius_and_at_once():
    chase = pursue(UP, 2.0, (3.0, 0.0), radius=0.5)
    np.testing.assert_allclose(np.linalg.norm(UP(chase.time) - chase.position(chase.time)), 0.5, rtol=1e-9)
    assert pursue(UP, 2.0, (0.3, 0.0), radius=0.5).time == 0
    assert pursue(UP, 2.0, (0.0, 0.0)).captured


@pytest.mark.parametrize("speed", [0.5, 0.999, 1.0])
@pytest.mark.parametrize("aside", [1e-3, 1e-6, 1e-9, 1e-15])
def test_almost_head_on_a_slow_pursuer_misses_as_the_closed_form_says(speed, aside):
    """Bouguer: d = C tan(phi/2)^n/sin(phi) with n <= 1 is least at cos(phi) = n, and then it is not 0."""
    chase = pursue(UP, speed, (aside, 1.0))
    psi = np.arctan2(aside, 1.0)  # from pi: phi itself has no digits for it
    turn = np.arccos(speed)
    tangents = (np.tan(turn / 2) * np.tan(psi / 2)) ** speed
    least = np.hypot(aside, 1) * (np.sin(psi) / np.sin(turn) * tangents if speed < 1 else np.sin(psi / 2) ** 2)
    assert chase.outcome == "miss"
    np.testing.assert_allclose(straight_flight(UP, speed, (aside, 1.0)), (np.inf, least), rtol=1e-7)


def test_a_slow_pursuer_across_the_flight_misses():
    assert pursue(UP, 0.5, (1.0, 1e-6)).outcome == "miss"


def test_near_on_a_path_that_nothing_decides_is_undecided():
    """Head-on, but turned by an angle that floats do not hold: whether they meet is in the digits that are lost."""
    assert pursue(lambda t: (np.sin(t), 0.0), 0.5, (3.0, 0.0)).captured
    turned = pursue(lambda t: (0.6 * np.sin(t), 0.8 * np.sin(t)), 0.5, (1.8, 2.4))
    assert turned.outcome in ("undecided", "capture")
    assert turned.closest < 1e-6


def test_a_tail_chase_by_a_hair_takes_the_time_of_the_closed_form():
    chase = pursue(UP, 1.0001, (1.0, 0.0))
    np.testing.assert_allclose(chase.time, capture_time(1.0001, (1.0, 0.0)), rtol=1e-9)


def test_a_delay_of_one_turn_is_no_miss():
    assert pursue(Round(1.0, 1.0), 2.0, (3.0, 0.0), delay=2 * np.pi).outcome == "undecided"
    assert pursue(Round(1.0, 1.0), 2.0, (3.0, 0.0), delay=1.0).outcome == "miss"


BAD = {
    "a target that vanishes": (lambda: pursue(lambda t: (t if t < 3 else np.nan, 0.0), 0.5, (2.0, 5.0)), "finite"),
    "a circle without radius": (lambda: Round(0.0, 1.0), "positive"),
    "a circle run backwards": (lambda: Round(1.0, -1.0), "positive"),
    "a flight at NaN": (lambda: Straight((0.0, 0.0), (np.nan, 1.0)), "finite"),
    "a flight of mixed dimensions": (lambda: Straight((0.0, 0.0), (0.0, 1.0, 0.0)), "coordinates"),
    "a period of NaN": (lambda: pursue(UP, 0.5, (3.0, 1.0), period=np.nan), "period"),
    "no speed": (lambda: pursue(UP, 0.0, (1.0, 0.0)), "ratio"),
    "a negative speed": (lambda: pursue(UP, -1.0, (1.0, 0.0)), "ratio"),
    "a speed of NaN": (lambda: straight_flight(UP, np.nan, (1.0, 0.0)), "ratio"),
    "NaN in the start": (lambda: pursue(UP, 1.0, (np.nan, 0.0)), "finite"),
    "other dimensions": (lambda: pursue(UP, 1.0, (1.0, 0.0, 0.0)), "coordinates"),
    "a negative delay": (lambda: pursue(UP, 1.0, (1.0, 0.0), delay=-1.0), "delay"),
    "a negative radius": (lambda: pursue(UP, 1.0, (1.0, 0.0), radius=-1.0), "radius"),
    "a path along the flight": (lambda: straight_flight_path(UP, 2.0, (0.0, 3.0), [1.0]), "sight"),
    "a ring of one": (lambda: ring([[0.0, 0.0]], 1.0), "two"),
    "a ring with two in one place": (lambda: ring([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], 1.0), "same place"),
    "a show without speed": (lambda: pursuit.Show(ratio=0.0)(), "ratio"),
}


@pytest.mark.parametrize(("call", "word"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call()


@pytest.mark.parametrize("problem", ["cow", "thief", "missile", "delay", "ring", "lead"])
def test_every_show_draws(problem):
    text, picture = pursuit.Show(problem, 1.5)()
    assert len(picture.lines) >= 2
    assert len(text) > 30


def test_a_target_that_stops_is_not_called_missed_after_a_delay():
    chase = pursue(lambda t: (min(t, 10.0), 0.0), 1.5, (-3.0, 1.0), delay=1.0, radius=0.05)
    assert chase.outcome == "undecided"


@pytest.mark.parametrize("wrong", [{"delay": np.inf}, {"until": np.nan}, {"until": -1.0}], ids=str)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="pursue"):
        pursue(UP, 2.0, (3.0, 0.0), **wrong)


@pytest.mark.parametrize("speed", [1 + 2.0**-40, 1 + 2.0**-20, 1.0001])
@pytest.mark.parametrize("start", [(0.0, 300.0), (1.0, 300.0), (300.0, 0.0)])
def test_the_closed_form_keeps_its_digits_at_nearly_equal_speeds(speed, start):
    with mpmath.workdps(50):
        n, x, y = map(mpmath.mpf, (speed, *start))
        truth = float((n * mpmath.hypot(x, y) - y) / (n * n - 1))
    assert abs(straight_flight(UP, speed, start)[0] / truth - 1) < 1e-14


def test_far_from_the_origin_the_pursuit_is_the_same():
    far = pursue(Straight((1e8, -1e8), (0.0, 1.0)), 1.01, (1e8 + 30.0, -1e8 - 40.0))
    assert abs(far.time / capture_time(1.01, (30.0, -40.0)) - 1) < 1e-9
    np.testing.assert_allclose(far.position(0.0), (1e8 + 30.0, -1e8 - 40.0), atol=1e-7)


def test_an_event_that_rounding_hides_is_sought_by_other_steps_and_else_told(monkeypatch):
    calls = []

    def fails(times):
        def solve(*args, **kwargs):
            calls.append(kwargs["method"])
            if len(calls) in times:
                raise ValueError("f(a) and f(b) must have different signs")
            return solve_ivp(*args, **kwargs)

        return solve

    monkeypatch.setattr("spectrain.gallery._outcomes.solve_ivp", fails({2}))
    assert abs(pursue(UP, 1.5, (3.0, 1.0)).time / capture_time(1.5, (3.0, 1.0)) - 1) < 1e-10
    assert calls == ["DOP853", "LSODA", "DOP853"]
    calls.clear()
    monkeypatch.setattr("spectrain.gallery._outcomes.solve_ivp", fails({1, 2}))
    with pytest.raises(ValueError, match=r"pursue: .*hidden by rounding"):
        pursue(UP, 1.5, (3.0, 1.0))


def test_a_pursuit_that_does_not_get_on_ends_with_words(monkeypatch):
    monkeypatch.setattr("spectrain.gallery._outcomes.CALLS", 100)
    with pytest.raises(ValueError, match=r"pursue: .*100 times"):
        pursue(UP, 1.5, (3.0, 1.0))
