"""Jobs to tokens, here or in processes of their own, handed back in order."""

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectrain.data._shards.jobs import Job
from spectrain.data._text.tokenizer import Tokenizer, load_tokenizer


class Encoded(NamedTuple):
    """What a job becomes."""

    shard: int
    tokens: np.ndarray
    starts: np.ndarray
    """Where documents begin among these tokens: at their end-of-text."""
    bytes: int
    chars: int


class EncoderError(RuntimeError):
    """A process that tokenizes failed or died; the message says how."""


def encode(job: Job, tokenizer: Tokenizer) -> Encoded:
    """The tokens of a job, an end-of-text before each document."""
    end = np.array([tokenizer.end_of_text], np.int32)
    parts: list[np.ndarray] = []
    starts: list[int] = []
    place = size = 0
    for text, begins in zip(job.texts, job.begins, strict=True):
        if begins:
            starts.append(place)
            parts.append(end)
        parts.append(tokenizer.encode(text))
        place += int(begins) + len(parts[-1])
        size += len(text.encode())
    tokens = np.concatenate(parts).astype(tokenizer.dtype)
    return Encoded(job.shard, tokens, np.array(starts, np.int64), size, job.chars)


def encode_all(jobs: Iterable[Job], tokenizer: Tokenizer, *, file: Path, workers: int) -> Iterator[Encoded]:
    """What the jobs become, in order; ``file`` holds the tokenizer. One worker is this process.

    Raises :class:`EncoderError` when a process fails or is killed. Processes end with this one, however it ends.
    """
    if workers == 1:
        return (encode(job, tokenizer) for job in jobs)
    return _elsewhere(jobs, file, workers)


def _elsewhere(jobs: Iterable[Job], file: Path, workers: int) -> Iterator[Encoded]:
    with _processes(file, workers) as idle, ThreadPoolExecutor(workers) as threads:
        waiting: deque[Future[Encoded]] = deque()
        try:
            for job in jobs:
                waiting.append(threads.submit(_ask, idle, job))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _ask(idle: "queue.SimpleQueue[subprocess.Popen[bytes]]", job: Job) -> Encoded:
    process = idle.get()
    assert process.stdin
    assert process.stdout
    try:
        pickle.dump(job, process.stdin)
        process.stdin.flush()
        kind, value = pickle.load(process.stdout)
    except (OSError, EOFError):
        code = process.wait()
        raise EncoderError(
            f"a process that tokenizes died (exit code {code}), for want of memory perhaps; the same command goes on, "
            "with --workers 1 in one process."
        ) from None
    finally:
        idle.put(process)
    if kind == "error":
        raise EncoderError(f"a process that tokenizes failed:\n{value}")
    found: Encoded = value
    return found


@contextlib.contextmanager
def _processes(file: Path, count: int) -> Iterator["queue.SimpleQueue[subprocess.Popen[bytes]]"]:
    """Processes that tokenize. Each ends when its input does, so none outlives this one."""
    code = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import serve; serve(sys.argv[2])"
    command = [sys.executable, "-c", code, json.dumps(sys.path), str(file)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) for _ in range(count)
    ]
    idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)
    try:
        yield idle
    finally:
        for process in processes:
            process.kill()
            with contextlib.suppress(OSError):  # what it had not read
                process.communicate()


def serve(file: str) -> None:
    """What such a process does: jobs in on standard input, tokens out where standard output was."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the one that asks
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed goes where errors go
    tokenizer = load_tokenizer(file, exact=False)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            answer = _answer(pickle.load(sys.stdin.buffer), tokenizer)
            pickle.dump(answer, out)
            out.flush()
    os._exit(0)  # nobody reads what may still be buffered


def _answer(job: Job, tokenizer: Tokenizer) -> tuple[str, object]:
    try:
        return "done", encode(job, tokenizer)
    except Exception:
        return "error", traceback.format_exc()
