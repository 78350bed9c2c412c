"""The least a + b + c with ab + c = N, against brute force, a square-root scan, and wrong answers."""

import dataclasses
from math import isqrt, sqrt

import numpy as np
import pytest

from spectrain.gallery import product_sum
from spectrain.gallery.product_sum import Certificate, all_minimisers, certificate, solve, verify


def brute_force(limit):
    """Every minimiser for every N < limit, from all pairs a <= b with ab < limit and nothing else."""
    excess = [[] for _ in range(limit)]  # excess[m]: (a + b - m, a, b) of the products ab = m
    excess[0].append((0, 0, 0))
    for a in range(1, isqrt(limit) + 1):
        for b in range(a, (limit - 1) // a + 1):
            excess[a * b].append((a + b - a * b, a, b))
    best, winners, answers = limit, [], []
    for N in range(limit):
        for value, a, b in excess[N]:
            if value < best:
                best, winners = value, []
            if value == best:
                winners.append((a, b))
        answers.append(sorted(((a, b, N - a * b) for a, b in winners), key=lambda t: t[0] + t[1]))
    return answers


def square_root_scan(N):
    """The least sum by the first algorithm of the article: all a up to sqrt(N), with b = floor(N/a)."""
    a = np.arange(1, isqrt(N) + 1, dtype=np.int64)
    b = N // a
    return int((a + b + N - a * b).min())


def test_every_minimiser_up_to_100000_is_the_one_of_brute_force(full, record_property):
    answers = brute_force(100_001)
    numbers = range(100_001) if full else [*range(3000), *range(3000, 100_001, 23)]
    record_property("cases", len(numbers))
    for N in numbers:
        assert all_minimisers(N) == answers[N], N


def test_the_least_sum_is_that_of_the_square_root_scan(full, record_property):
    rng = np.random.default_rng(0)
    count = 400 if full else 40
    record_property("cases", count)
    for exponent in rng.uniform(1, 12, count):
        N = int(10**exponent)
        assert sum(solve(N)) == square_root_scan(N), N


def test_the_worked_example():
    assert solve(130) == (10, 13, 0)
    assert [all_minimisers(N)[0] for N in range(5)] == [(0, 0, N) for N in range(5)]
    assert all_minimisers(5) == [(0, 0, 5), (2, 2, 1)]


def near_the_root(N):
    r = isqrt(N)
    return min(((r, r, N - r * r), (r, r + 1, N - r * r - r)), key=lambda t: sum(t) if t[2] >= 0 else N + 1)


def square_only(N):
    r = isqrt(N)
    return r, r, N - r * r


def nearest_factors(N):
    a = next(a for a in range(isqrt(N), 0, -1) if N % a == 0)
    return a, N // a, 0


def ignores_parity(N):
    best = None
    for p in range(isqrt(4 * N), isqrt(4 * N) + 40):
        D = p * p - 4 * N
        q = isqrt(D - 1) + 1 if D > 0 else 0
        a, b = (p - q) // 2, (p + q) // 2
        found = (a, b, N - a * b)
        best = found if best is None or sum(found) < sum(best) else best
    return best


WRONG = {
    "the two next to the root": near_the_root,
    "the square": square_only,
    "the nearest factors": nearest_factors,
    "no parity": ignores_parity,
    "never (0, 0, N)": lambda N: solve(N) if N > 3 else (1, N, 0),
    "stops at the first p": lambda N: square_only(N) if isqrt(4 * N) % 2 == 0 else near_the_root(N),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_answers(wrong):
    answers = brute_force(2000)
    assert any(wrong(N) not in answers[N] for N in range(1, 2000))


@pytest.mark.parametrize("digits", [12, 18, 24])
def test_a_certificate_is_verified_and_covers_the_proved_range(digits):
    rng = np.random.default_rng(digits)
    for _ in range(5):
        N = int("".join(map(str, rng.integers(1, 10, digits))))
        found = certificate(N)
        assert verify(found)
        assert found.last - found.first <= sqrt(1 + 4 * sqrt(N)) + 4
        assert len(found.reasons) == 4


TAMPERED = {
    "a sum one too large": lambda c: dataclasses.replace(c, sum=c.sum + 1),
    "another triple of the same N": lambda c: dataclasses.replace(c, minimisers=((1, c.N, 0),)),
    "a second best triple as the best": lambda c: dataclasses.replace(
        c, minimisers=((11, 11, 9),), sum=31, first=c.first, last=31
    ),
    "no triple": lambda c: dataclasses.replace(c, minimisers=()),
    "a negative c": lambda c: dataclasses.replace(c, minimisers=((11, 12, -2),), sum=21, last=21),
    "a range that ends early": lambda c: dataclasses.replace(c, last=c.last - 1),
    "a range that begins late": lambda c: dataclasses.replace(c, first=c.first + 1),
    "another number": lambda c: dataclasses.replace(c, N=131),
    "a minimiser twice": lambda c: dataclasses.replace(c, minimisers=c.minimisers * 2),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_certificate_is_refused(tamper):
    assert not verify(tamper(certificate(130)))


def test_a_certificate_that_forgets_a_tie_is_refused():
    assert verify(Certificate(5, 5, ((0, 0, 5), (2, 2, 1)), 4, 5))
    assert not verify(Certificate(5, 5, ((0, 0, 5),), 4, 5))


@pytest.mark.parametrize("digits", [8, 19, 31, 44])
def test_64_bit_blocks_equal_plain_integers(digits):
    rng = np.random.default_rng(digits)
    N = int("".join(map(str, rng.integers(1, 10, digits))))
    first = isqrt(4 * N)
    for start in (64, 12_345, 10 ** (digits // 6)):
        start = max(start, 64)
        sums = product_sum._least_sums(N, first, start, start + 200)
        assert [int(s) for s in sums] == [product_sum._least_c(N, first + t) + t for t in range(start, start + 200)]


def test_numbers_too_large_for_64_bits_are_searched_in_plain_integers(monkeypatch):
    N = 3_141_592_653_589_793_238
    fast = certificate(N)
    monkeypatch.setattr(product_sum, "SAFE_ROOT", 1)
    assert certificate(N) == fast


def test_ten_to_the_forty(full):
    N = 10**40 + 1_234_567_890_123_456_789_012_345 if full else 10**33 + 12_345_678_901_234_567
    assert verify(certificate(N))


def test_integers_of_numpy_are_integers():
    assert solve(np.int32(130)) == (10, 13, 0)


@pytest.mark.parametrize("bad", [-1, 130.0, 2.5, float("nan"), float("inf")])
def test_bad_input_is_refused(bad):
    with pytest.raises(ValueError, match=r"must be"):
        solve(bad)


def test_the_picture_shows_the_winner():
    text, picture = product_sum.Show(130)()
    assert "(10, 13, 0)" in text
    assert (list(picture.lines[-1].x), list(picture.lines[-1].y)) == ([23 - 22], [1 + 23 - 22])


def test_a_tampered_certificate_is_refuted_at_once_and_never_raises():
    big = 10**40
    huge = product_sum.Certificate(big, big, ((0, 0, big),), 0, big)
    negative = dataclasses.replace(product_sum.certificate(130), N=-130)
    assert not any(product_sum.verify(claim) for claim in (huge, negative))
