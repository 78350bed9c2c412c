"""What this machine is and how fast it multiplies; the device and the precisions that follow from it."""

import ctypes
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

import spectrain

WORTHWHILE = 1.25
"""bfloat16 has to win clearly: near a tie the choice would depend on noise and buy nothing."""
ROUNDS = 7
"""Rounds of a race; all that other programs can do to a contestant's best one is to touch all seven."""


def choose_device(name: str) -> str:
    """``auto`` is CUDA where there is one; any other name must be a device that torch can use."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {name!r} cannot be used: {str(error).splitlines()[0]} Try 'auto' or 'cpu'."
        ) from None
    return name


def race(calls: Sequence[Callable[[], object]], *, clock: Callable[[], float] = time.perf_counter) -> list[list[float]]:
    """Seconds of each call in each of :data:`ROUNDS` rounds, in turns, after one round to warm up.

    Whatever else the machine does falls on all of them alike, and each round begins with another one.
    """
    rounds = []
    for at in range(-1, ROUNDS):
        seconds = [0.0] * len(calls)
        for i in range(len(calls)):
            which = (i + at) % len(calls)
            start = clock()
            calls[which]()
            seconds[which] = clock() - start
        rounds.append(seconds)
    return rounds[1:]


def faster(rounds: Sequence[Sequence[float]]) -> tuple[bool, float, float]:
    """Whether the second of two contestants is clearly faster, its best time's ratio, and the median of the rounds'.

    Clearly: both ratios are at least :data:`WORTHWHILE`. The best of each is what the machine can do; a single lucky
    or unlucky round moves it, but not the median with it.

    >>> faster([(2.0, 1.0), (2.0, 1.0), (9.0, 1.0)])
    (True, 2.0, 2.0)
    >>> faster([(1.0, 1.0), (9.0, 1.0), (9.0, 1.0)])
    (False, 1.0, 9.0)
    """
    best = min(first for first, _ in rounds) / min(second for _, second in rounds)
    typical = statistics.median(first / second for first, second in rounds)
    return min(best, typical) >= WORTHWHILE, best, typical


def choose_dtype(
    rows: int,
    inner: int,
    columns: int,
    *,
    batch: int = 1,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[str, str]:
    """``("bfloat16" | "float32", why)`` for products of this shape, by several rounds of both on ``device``."""

    def product(dtype: torch.dtype) -> Callable[[], object]:
        left = torch.ones(batch, rows, inner, dtype=dtype, device=device)
        right = torch.ones(batch, inner, columns, dtype=dtype, device=device)
        return lambda: torch.bmm(left, right).flatten()[-1].item()

    rounds = race([product(torch.float32), product(torch.bfloat16)], clock=clock)
    taken, best, typical = faster(rounds)
    wide, narrow = (2e-9 * batch * rows * inner * columns / min(times) for times in zip(*rounds, strict=True))
    why = (
        f"{rows} x {inner} x {columns} products run at {wide:.0f} GFLOP/s in float32 and {narrow:.0f} in bfloat16, "
        f"best of {ROUNDS} rounds in turns ({best:.2f} times, {typical:.2f} in the median round; taken where both are "
        f"at least {WORTHWHILE})"
    )
    return "bfloat16" if taken else "float32", why


def describe() -> dict[str, object]:
    """The environment of a run, for its ``environment.json``."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "spectrain": spectrain.__version__,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def keep_memory() -> bool:
    """Ask the C library to keep freed memory for the next step; whether it could be asked.

    glibc maps each block of more than 32 MiB anew and gives it back when freed, so that every step pays for the pages
    of all its large tensors again: on CPUs a third to a half of a small model's time. What a step frees the next one
    takes; blocks that do not fit each other's places cost some memory at first. It holds for the process, to its end.
    Elsewhere (musl, macOS, Windows) nothing is done.
    """
    no_mapping, no_trimming, kept_beyond = (-4, 0), (-1, -1), (-2, 64 << 20)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library of that name
        return False
    return platform.libc_ver()[0] == "glibc" and all(mallopt(*pair) for pair in (no_mapping, no_trimming, kept_beyond))


def peak_memory_bytes() -> int | None:
    """Largest resident size of this process so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else 1024 * peak


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed copy."""
    root = Path(spectrain.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    call = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:  # no git here
        return None
