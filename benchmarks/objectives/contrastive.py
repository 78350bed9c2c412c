"""What the full batch's gradient costs in chunks: time beside plain steps, and memory as the batch grows.

Time: pairs of runs side by side, chunked and plain. Plain is twice: one graph over the whole batch, which has the same
gradient; and accumulation over the same chunks, each with a loss of its own, which has another gradient but not one
operation more. Memory: the most anonymous memory of a fresh process, above what it had after a tiny step, with chunks
of 64 pairs and similarities in blocks of rows, beside a bill of what grows with the batch.
"""

from spectrain._spinning import limit_spinning

limit_spinning()  # before torch loads

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time

import torch
from _memory import Peak
from _record import table, write

from spectrain import nn, objectives

WIDTH, DEPTH, LENGTH, CHUNK, BLOCK = 192, 2, 32, 64, 256
LOSS = functools.partial(objectives.info_nce, temperature=0.05, block=BLOCK)


def made(batch):
    """A shared text encoder and a batch of pairs of texts."""
    encoder = nn.TextEncoder(vocabulary=8192, width=WIDTH, depth=DEPTH, heads=3, generator=0)
    draw = torch.Generator().manual_seed(1)
    return encoder, torch.randint(8192, (2, batch, LENGTH), generator=draw)


def chunked(encoder, pairs):
    objectives.Contrastive(encoder, LOSS, chunk=CHUNK).backward(*pairs)


def one_graph(encoder, pairs):
    LOSS(encoder(pairs[0]), encoder(pairs[1])).backward()


def accumulated(encoder, pairs):
    for queries, documents in zip(pairs[0].split(CHUNK), pairs[1].split(CHUNK), strict=True):
        one_graph(encoder, (queries, documents))


KINDS = {"chunked": chunked, "one graph": one_graph, "accumulated": accumulated}


def seconds(kind, encoder, pairs):
    encoder.zero_grad()
    began = time.perf_counter()
    KINDS[kind](encoder, pairs)
    return time.perf_counter() - began


def overhead(batch, repeats):
    """Ratios of chunked to plain steps, by kind of plain step."""
    encoder, pairs = made(batch)
    ratios = {"one graph": [], "accumulated": []}
    for kind in KINDS:
        seconds(kind, encoder, pairs)
    for _ in range(repeats):
        for plain, found in ratios.items():
            found.append(seconds("chunked", encoder, pairs) / seconds(plain, encoder, pairs))
    return {plain: statistics.median(found) for plain, found in ratios.items()}


def peak(kind, batch):
    """MiB of this process above its own start."""
    encoder, pairs = made(batch)
    seconds("chunked", encoder, pairs[:, :4])
    with Peak(interval=0.002) as memory:
        seconds(kind, encoder, pairs)
    return memory.most - memory.before


def peak_apart(kind, batch):
    """The same, of a fresh process."""
    asked = [sys.executable, __file__, "--peak", kind, "--batch", str(batch)]
    return json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)


def bill(batch):
    """MiB that must grow: the texts, each tower's embeddings as such, as unit vectors, and their two gradients twice
    over while they pass from one to the other; three blocks of similarities.
    """
    texts, embeddings, block = 2 * batch * LENGTH, 2 * batch * WIDTH, min(BLOCK, batch) * batch
    return (8 * texts + 4 * 6 * embeddings + 4 * 3 * block) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--timed", type=int, default=256, help="pairs in a timed batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", choices=list(KINDS), help="print one peak and stop")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--smoke", action="store_true", help="small and few, no record")
    asked = parser.parse_args()
    if asked.peak:
        print(json.dumps(peak(asked.peak, asked.batch)))
        return
    if asked.smoke:
        asked.batches, asked.timed, asked.repeats = [64, 128], 128, 1
    ratios = overhead(asked.timed, asked.repeats)
    found = [{"batch": batch, "chunked": peak_apart("chunked", batch), "bill": bill(batch)} for batch in asked.batches]
    for row in found:
        if row["batch"] <= 512:  # larger ones take all the memory of a small machine
            row["one graph"] = peak_apart("one graph", row["batch"])
    first = found[0]
    rows = [
        [row["batch"], f"{row['chunked']:.0f}", f"{row['chunked'] - first['chunked']:.0f}",
         f"{row['bill'] - first['bill']:.0f}", f"{row['one graph']:.0f}" if "one graph" in row else "not run"]
        for row in found
    ]  # fmt: skip
    head = ["pairs", "MiB in chunks", f"more than with {first['batch']}", "bill of what grows", "MiB in one graph"]
    words = (
        f"Text encoder of {DEPTH} blocks, width {WIDTH}, texts of {LENGTH} tokens, chunks of {CHUNK}, similarities in "
        f"blocks of {BLOCK} rows.\n\nTime of a step of {asked.timed} pairs over that of one graph: "
        f"{ratios['one graph']:.2f}; over plain accumulation: {ratios['accumulated']:.2f} (medians of {asked.repeats} "
        "pairs of runs; asked: at most 1.45)."
    )
    body = f"{words}\n\n{table(head, rows)}"
    print(body)
    if not asked.smoke:
        claim = "Contrastive gradients of the full batch, in chunks"
        write("contrastive", claim=claim, body=body, data={"overhead": ratios, "memory": found})


if __name__ == "__main__":
    main()
