"""The rules for another batch or length, of docs/weight-decay.md: what each of them holds still."""

import math

import pytest

from spectrain.optim import WarmupDecay
from spectrain.optim.averaging import averaging_coefficients

TOKENS, BATCH, RATE, DECAY = 2_000_000, 2_000, 0.01, 0.1


def memory(*, tokens=TOKENS, batch=BATCH, rate=RATE, decay=DECAY):
    """Half-life as a share of the run, and the share of the initial weights that is left, under a linear schedule."""
    steps = tokens // batch
    rates, decays = WarmupDecay(steps=steps, warmup=steps // 20).values(steps, lr=rate, weight_decay=decay)
    found = averaging_coefficients(rates, decays)
    return found.half_life / steps, found.initial


RULES = {
    "twice the tokens": {"tokens": 2 * TOKENS, "decay": DECAY / 2},
    "eight times the tokens": {"tokens": 8 * TOKENS, "decay": DECAY / 8},
    "four times the batch": {"batch": 4 * BATCH, "decay": 4 * DECAY},
    "four times the batch, rate by the square root": {"batch": 4 * BATCH, "rate": 2 * RATE, "decay": 2 * DECAY},
    "nanochat, twice the tokens and four times the batch": {
        "tokens": 2 * TOKENS,
        "batch": 4 * BATCH,
        "rate": RATE * math.sqrt(4),
        "decay": DECAY * math.sqrt(4) / 2,
    },
}
FORGOTTEN = {
    "twice the tokens": {"tokens": 2 * TOKENS},
    "four times the batch": {"batch": 4 * BATCH},
    "the rate alone": {"batch": 4 * BATCH, "rate": 2 * RATE},
    "the decay by the square root at a rate that stays": {"batch": 4 * BATCH, "decay": 2 * DECAY},
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_keeps_the_memory_of_the_run(rule):
    """mup #56, #64: nothing said what to do with decay and rate when the batch or the length of training changes."""
    for found, wanted in zip(memory(**rule), memory(), strict=True):
        assert found == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("changed", FORGOTTEN.values(), ids=FORGOTTEN)
def test_without_it_the_memory_changes(changed):
    assert abs(memory(**changed)[1] / memory()[1] - 1) > 0.2
