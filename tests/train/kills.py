"""Moments at which a rank ends itself, as a kill from outside would: by what the run does, and then some time later.

A kill comes ``delay`` seconds after its moment, and before so many further steps are taken: so that it does come, on
any machine, and that an attempt gets no further than is known beforehand.
"""

import os
import signal
import threading

from spectrain.train._jobs import language
from spectrain.train._mesh import shards

LATER = 2
"""Steps after the moment that are the latest one."""
MOMENTS = ("start", "step", "step", "checkpoint")
EVERY, MOST_STEPS = 4, 4
"""Steps between checkpoints, and of an attempt before a kill at a step."""
FURTHEST = 2 * EVERY + LATER
"""Steps that an attempt takes at most: a checkpoint is begun within ``EVERY``, and on the disk before the next one."""


def drawn(draw, ranks, count):
    """So many kills, of any rank at any moment."""
    return [
        {"rank": draw.randrange(ranks), "moment": draw.choice(MOMENTS), "steps": draw.randint(1, MOST_STEPS),
         "delay": draw.uniform(0, 0.4)}
        for _ in range(count)
    ]  # fmt: skip


def arm(kill):
    """Let this process end at that moment of the attempt that begins now."""
    taken, since = [], []

    def now():
        os.kill(os.getpid(), signal.SIGKILL)

    def come():
        if not since:
            since.append(len(taken))
            timer = threading.Timer(kill["delay"], now)
            timer.daemon = True
            timer.start()

    accumulate, digest = language.LanguageJob.accumulate, shards.file_digest

    def counted(job, at):
        taken.append(at)
        if kill["moment"] == "step" and len(taken) == kill["steps"]:
            come()
        if since and len(taken) - since[0] > LATER:
            now()
        return accumulate(job, at)

    def written(file):
        if kill["moment"] == "checkpoint":
            come()
        return digest(file)

    language.LanguageJob.accumulate, shards.file_digest = counted, written
    if kill["moment"] == "start":
        come()
