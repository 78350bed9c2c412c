"""The choice of a precision: several rounds in turns, the best of each, and only where it is clear."""

import itertools
import platform
import resource
import subprocess
import sys

import pytest
import torch

from spectrain.train._run import machine as _machine


class Clock:
    """Time that goes on by what each call costs: ``seconds[call](round)``, read before and after every call."""

    def __init__(self, *costs):
        self.costs, self.now, self.reads = costs, 0.0, 0

    def __call__(self):
        if self.reads % 2:
            turn = self.reads // 2
            at, i = divmod(turn, len(self.costs))
            self.now += self.costs[(i + at - 1) % len(self.costs)](at - 1)
        self.reads += 1
        return self.now


def chosen(float32, bfloat16):
    dtype, why = _machine.choose_dtype(2, 2, 2, device=torch.device("cpu"), clock=Clock(float32, bfloat16))
    assert f"best of {_machine.ROUNDS} rounds" in why
    return dtype


STEADY = {"bfloat16 is twice as fast": (2.0, 1.0, "bfloat16"), "half as fast": (1.0, 2.0, "float32"),
          "a tie": (1.0, 1.0, "float32"), "not worthwhile": (1.2, 1.0, "float32"),
          "worthwhile": (1.3, 1.0, "bfloat16")}  # fmt: skip


@pytest.mark.parametrize("case", STEADY)
def test_a_clear_winner_is_taken(case):
    first, second, wanted = STEADY[case]
    assert chosen(lambda _: first, lambda _: second) == wanted


@pytest.mark.parametrize("bad", [*itertools.combinations(range(_machine.ROUNDS), 3)])
def test_disturbed_rounds_decide_nothing(bad):
    slow = lambda seconds: lambda at: seconds * (50 if at in bad else 1)  # noqa: E731
    assert chosen(slow(1.0), lambda _: 1.0) == "float32"  # what one shot would have called 50 times faster
    assert chosen(lambda _: 2.0, slow(1.0)) == "bfloat16"


def test_the_first_round_warms_up_and_does_not_count():
    assert chosen(lambda _: 2.0, lambda at: 1000.0 if at < 0 else 1.0) == "bfloat16"


def test_one_lucky_round_is_no_clear_winner():
    assert chosen(lambda _: 1.0, lambda at: 0.1 if at == 3 else 1.0) == "float32"


WRONG = {
    "the first round alone": lambda rounds: rounds[0][0] / rounds[0][1] >= _machine.WORTHWHILE,
    "the mean": lambda rounds: sum(a for a, _ in rounds) / sum(b for _, b in rounds) >= _machine.WORTHWHILE,
    "the best alone": lambda rounds: min(a for a, _ in rounds) / min(b for _, b in rounds) >= _machine.WORTHWHILE,
}


@pytest.mark.parametrize("rule", WRONG.values(), ids=WRONG)
def test_rules_that_a_disturbance_turns_are_told_from_ours(rule):
    disturbed = [[(50.0, 1.0)] + [(1.0, 1.0)] * 6, [(1.0, 1.0)] * 6 + [(1.0, 0.1)]]
    assert any(rule(rounds) for rounds in disturbed)
    assert not any(_machine.faster(rounds)[0] for rounds in disturbed)


FAULTS = """
import resource, sys, torch
from spectrain.train._run.machine import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.set_num_threads(1)
for i in range(22):
    if i == 12:  # the first blocks lie apart
        before = faults()
    torch.ones(64 << 20, dtype=torch.uint8)
print(faults() - before)
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is asked")
def test_memory_that_was_freed_is_taken_again():
    """Ten blocks of 64 MiB, one after the other: every page of each faults anew, or hardly one does."""
    pages = (64 << 20) // resource.getpagesize()
    assert faults("kept") < pages / 10
    assert faults("as it comes") > pages / 10
