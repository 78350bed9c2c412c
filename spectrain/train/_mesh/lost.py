"""Ranks that no longer answer: those that are left say which, once."""

import time

import torch.distributed as dist

from spectrain.train._mesh.failing import Elsewhere, told


class RankLost(RuntimeError):  # noqa: N818 - what happened
    """A rank is gone, or does not answer; the message says which."""


_GRACE = 3.0
"""Seconds in which all that live notice that somebody is gone: a broken connection is felt at once by its ends only."""
_SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "timed out", "broken pipe")


def is_broken(error: BaseException) -> bool:
    """Whether an error comes from the connection between ranks, and so from what happened to another one."""
    said = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in said for sign in _SIGNS)
    )


class Witness:
    """What this rank leaves where the others can see it when a run breaks."""

    def __init__(self, store: dist.Store, rank: int, world: int, timeout: float) -> None:
        self.store, self.rank, self.world, self.timeout = store, rank, world, timeout

    def speaks(self) -> bool:
        """Whether this rank is the first with something to say."""
        me = str(self.rank)
        try:
            return bool(self.store.compare_set("speaker", "", me).decode() == me)
        except RuntimeError:  # the store is gone, and with it the rank that kept it
            return self.rank == 1

    def explain(self, error: Exception) -> Exception:
        """What to raise for a broken connection: what the rank that caused it says, or which ranks are missing."""
        missing = self._missing()
        if not self.speaks():
            return Elsewhere(1)
        late = "timed out" in str(error).lower()
        if not missing:
            return told(RankLost(f"the ranks lost each other: {str(error).splitlines()[0]}"))
        names = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
        if late:
            return told(RankLost(f"no answer from {names} for {self.timeout:g} s: it hangs, or its machine does."))
        return told(RankLost(f"{names} is gone: it was killed, or its machine is."))

    def _missing(self) -> list[int]:
        """Ranks that neither speak nor have noticed anything after a while."""
        try:
            self.store.set(f"notices/{self.rank}", "1")
            until = time.monotonic() + _GRACE
            while time.monotonic() < until:
                left = [rank for rank in range(self.world) if not self.store.check([f"notices/{rank}"])]
                if not left or self.store.check(["speaker"]):
                    break
                time.sleep(0.05)
            return left
        except RuntimeError:  # rank 0 kept the store, and is gone
            return [0]
