"""What this machine is and how fast it multiplies; the choices that follow from it."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

import spectrain

# bfloat16 has to win clearly: near a tie the choice would depend on noise and buy nothing.
WORTHWHILE = 1.25


def median_seconds(call: Callable[[], object], *, repeats: int) -> float:
    """Median wall-clock seconds of a call, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def choose_dtype(rows: int, inner: int, columns: int, *, batch: int = 1, device: torch.device) -> tuple[str, str]:
    """``("bfloat16" | "float32", why)`` for products of this shape, by measuring both on ``device``."""

    def rate(dtype: torch.dtype) -> float:
        left = torch.ones(batch, rows, inner, dtype=dtype, device=device)
        right = torch.ones(batch, inner, columns, dtype=dtype, device=device)
        seconds = median_seconds(lambda: torch.bmm(left, right).flatten()[-1].item(), repeats=5)
        return 2e-9 * batch * rows * inner * columns / seconds

    wide, narrow = rate(torch.float32), rate(torch.bfloat16)
    why = (
        f"{rows} x {inner} x {columns} products run at {wide:.0f} GFLOP/s in float32 and {narrow:.0f} in bfloat16 "
        f"({narrow / wide:.2f} times; taken from {WORTHWHILE} on)"
    )
    return "bfloat16" if narrow / wide >= WORTHWHILE else "float32", why


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
