"""How long OpenMP's threads spin while they wait. Standard library only: it has to come before torch.

Between two pieces of work a thread of OpenMP waits by spinning, by default for so long that it practically never
sleeps. Alone on a machine that is the fastest way. Beside other programs the spinning threads hold the cores that the
working ones need: training then falls to a small part of its speed. A limit on the spins costs little and keeps most
of the speed beside others; ``benchmarks/train/threads.py`` measures both.
"""

import os
from collections.abc import MutableMapping

SPINS = "10000"
"""Turns of the loop for libgomp, which torch's wheels bring along: below a tenth of a millisecond."""
BLOCKTIME = "1"
"""Milliseconds for the OpenMP of Intel and LLVM, which torch uses on macOS and in conda; 0 would sleep at once."""

KNOWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""What a user may have set: any of them, and nothing is changed."""


def limit_spinning(environment: MutableMapping[str, str] | None = None) -> bool:
    """Limit the spinning of OpenMP's threads, unless the user has said how they wait; whether it was set.

    Sets ``GOMP_SPINCOUNT`` and ``KMP_BLOCKTIME`` in ``environment``, by default that of this process, which the
    processes that it starts inherit. The libraries read them once, when torch loads: call it before. It is called by
    the command ``spectrain``, by the tests and by the benchmarks, and never by ``import spectrain``: how the threads of
    somebody else's program wait is not ours to decide.

    >>> mine: dict[str, str] = {}
    >>> limit_spinning(mine), mine
    (True, {'GOMP_SPINCOUNT': '10000', 'KMP_BLOCKTIME': '1'})
    >>> limit_spinning({"OMP_WAIT_POLICY": "ACTIVE"})
    False
    """
    environment = os.environ if environment is None else environment
    if any(name in environment for name in KNOWN):
        return False
    environment.update({"GOMP_SPINCOUNT": SPINS, "KMP_BLOCKTIME": BLOCKTIME})
    return True
