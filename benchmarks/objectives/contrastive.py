"""What the full batch's gradient costs in chunks: time beside plain steps, and memory as the batch grows.

Time: pairs of runs side by side, chunked and plain. Plain is twice: one graph over the whole batch, which has the same
gradient; and accumulation over the same chunks, each with a loss of its own, which has another gradient but not one
operation more. Memory: the most anonymous memory of a fresh process, above what it had after a tiny step, with chunks
of 64 pairs and similarities in blocks of rows, beside a bill of what grows with the batch.
"""

import functools
import json
import subprocess
import sys
import time

import torch

from benchmarks import _record
from benchmarks._memory import Peak
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from spectrain import nn, objectives

WIDTH, DEPTH, LENGTH, CHUNK, BLOCK = 192, 2, 32, 64, 256
LOSS = functools.partial(objectives.info_nce, temperature=0.05, block=BLOCK)


def make(batch):
    """A shared text encoder and a batch of pairs of texts."""
    encoder = nn.TextEncoder(vocabulary=8192, width=WIDTH, depth=DEPTH, heads=3, generator=0)
    draw = torch.Generator().manual_seed(1)
    return encoder, torch.randint(8192, (2, batch, LENGTH), generator=draw)


def in_chunks(encoder, pairs):
    objectives.Contrastive(encoder, LOSS, chunk=CHUNK).backward(*pairs)


def in_one_graph(encoder, pairs):
    LOSS(encoder(pairs[0]), encoder(pairs[1])).backward()


def by_accumulation(encoder, pairs):
    for queries, documents in zip(pairs[0].split(CHUNK), pairs[1].split(CHUNK), strict=True):
        in_one_graph(encoder, (queries, documents))


KINDS = {"chunked": in_chunks, "one graph": in_one_graph, "accumulated": by_accumulation}


def step(kind, encoder, pairs):
    """One pass forward and back."""
    encoder.zero_grad()
    KINDS[kind](encoder, pairs)


def overhead(batch, plain, rounds):
    """Ratios of chunked to plain steps, by kind of plain step, each beside it in pairs of its own."""
    encoder, pairs = make(batch)
    calls = {kind: functools.partial(step, kind, encoder, pairs) for kind in KINDS}
    found = {}
    for name in plain:
        both = {kind: calls[kind] for kind in ("chunked", name)}
        found[name] = alternate(both, rounds=rounds, clock=time.process_time).ratio("chunked", name)
    return found


def peak(kind, batch):
    """MiB of this process above its own start."""
    encoder, pairs = make(batch)
    step("chunked", encoder, pairs[:, :4])
    with Peak(interval=0.002) as memory:
        step(kind, encoder, pairs)
    return memory.most - memory.before


def peak_apart(kind, batch):
    """The same, of a fresh process."""
    program = f"from {__spec__.name} import peak; print(peak({kind!r}, {batch}))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=_record.ROOT)
    return json.loads(done.stdout)


def bill(batch):
    """MiB that must grow: the texts, each tower's embeddings as such, as unit vectors, and their two gradients twice
    over while they pass from one to the other; three blocks of similarities.
    """
    texts, embeddings, block = 2 * batch * LENGTH, 2 * batch * WIDTH, min(BLOCK, batch) * batch
    return (8 * texts + 4 * 6 * embeddings + 4 * 3 * block) / 2**20


def table(rows):
    """Memory by size of the batch."""
    head = ["pairs", "MiB in chunks", f"more than with {rows[0]['pairs']}", "bill of what grows", "MiB in one graph"]
    cells = [
        [row["pairs"], f"{row['chunked']:.0f}", f"{row['chunked'] - rows[0]['chunked']:.0f}",
         f"{row['bill'] - rows[0]['bill']:.0f}", f"{row['one graph']:.0f}" if "one graph" in row else "not run"]
        for row in rows
    ]  # fmt: skip
    return _record.table(head, cells)


def measure(
    *,
    batches: tuple[int, ...] = (64, 512, 4096),
    timed: int = 256,
    plain: tuple[str, ...] = ("one graph", "accumulated"),
    rounds: int = 5,
    whole: int = 512,
) -> Found:
    """Memory with so many pairs in a batch, in one graph too up to ``whole``; time with ``timed`` pairs."""
    ratios = overhead(timed, plain, rounds)
    rows = [{"pairs": batch, "chunked": peak_apart("chunked", batch), "bill": bill(batch)} for batch in batches]
    for row in rows:
        if row["pairs"] <= whole:  # larger ones take all the memory of a small machine
            row["one graph"] = peak_apart("one graph", row["pairs"])
    body = (
        f"Text encoder of {DEPTH} blocks, width {WIDTH}, texts of {LENGTH} tokens, chunks of {CHUNK}, similarities in "
        f"blocks of {BLOCK} rows.\n\nTime of a step of {timed} pairs over that of plain ones, "
        f"medians of {rounds} pairs of runs: {', '.join(f'{name} {ratio:.2f}' for name, ratio in ratios.items())} "
        f"(asked: at most 1.45).\n\n{table(rows) if rows else ''}"
    )
    named = {f"{timed} pairs: chunked over {name}": ratio for name, ratio in ratios.items()}
    return Found(rows=rows, body=body, figures=ratios, ratios=named)


if __name__ == "__main__":
    main(
        "contrastive",
        "Contrastive gradients of the full batch in chunks take {one graph:.2f} of the time of one graph, and "
        "{accumulated:.2f} of plain accumulation",
        measure,
        smoke={"batches": (4,), "timed": 8, "rounds": 1, "whole": 0},
        check={"batches": (), "plain": ("accumulated",), "rounds": 1},
    )
