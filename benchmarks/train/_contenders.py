"""Who trains in `main_job`, each in a process of its own, which waits for its turn."""

import contextlib
import dataclasses
import importlib.util
import itertools
import multiprocessing
import multiprocessing.connection
import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks._runs import QUIET, new_session
from benchmarks.train._plain import Shape, plain_step, train_step
from spectrain.train import TrainConfig
from spectrain.train._run import loop
from spectrain.train._run.machine import keep_memory
from spectrain.train._run.repeating import repeating
from spectrain.train.runs import Progress

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv_")
ATTENTION = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward")
PEAK = 2048  # rows and columns of the product that stands for the peak


class Asked(NamedTuple):
    """What all contenders are told."""

    model: Mapping[str, Any]
    bfloat16: bool
    threads: int
    nanogpt: Path | None
    scratch: Path

    @property
    def config(self) -> TrainConfig:
        """Our configuration, with the precision of the model fixed."""
        narrow = {"autocast": "bfloat16" if self.bfloat16 else "off"}
        return TrainConfig(**{**QUIET, **self.model, **narrow, "max_steps": 10**6, "threads": self.threads})

    @property
    def shape(self) -> Shape:
        """The same sizes for everybody."""
        c, _ = self.config.derive()
        words = 257 if c.tokenizer == "bytes" else c.vocabulary
        assert c.width and c.heads and c.kv_heads and c.hidden  # noqa: PT018
        return Shape(words, c.depth, c.width, c.heads, c.kv_heads, c.hidden, c.block, c.batch_size)


def ours(asked: Asked, **flags: Any) -> Callable[[], object]:
    """A step of the loop of `spectrain train`, its row of metrics and all."""
    keep_memory()
    folder = asked.scratch / "-".join(["ours", *flags])
    session = new_session(dataclasses.replace(asked.config, **flags), folder)
    nowhere = Path(os.devnull).open("w")  # noqa: SIM115
    screen = Progress(stream=nowhere)
    weakref.finalize(screen, nowhere.close)

    def step() -> None:
        with repeating():
            loop._one_step(session, screen)

    return step


def plain(asked: Asked, *, kept: bool = False, **how: Any) -> Callable[[], object]:
    """The plain loop; ``kept``: with the C library asked to keep memory, as ours asks it."""
    if kept:
        keep_memory()
    return plain_step(asked.shape, bfloat16=asked.bfloat16, **{"moved": "muon", "compiled": False, **how})


def nanogpt(asked: Asked, *, compiled: bool = False) -> Callable[[], object]:
    """nanoGPT's own model and optimizer, from its ``model.py``, in the loop of its ``train.py`` as `_plain` has it."""
    assert asked.nanogpt is not None
    spec = importlib.util.spec_from_file_location("nanogpt_model", asked.nanogpt / "model.py")
    assert spec is not None
    assert spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = theirs
    s = asked.shape
    with contextlib.redirect_stdout(None):
        spec.loader.exec_module(theirs)
        model = theirs.GPT(
            theirs.GPTConfig(
                block_size=s.block, vocab_size=s.vocabulary, n_layer=s.depth, n_head=s.heads, n_embd=s.width,
                dropout=0.0, bias=False,
            )
        )  # fmt: skip
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")
    forward = torch.compile(model, dynamic=False) if compiled else model
    return train_step(
        lambda x, y: forward(x, y.contiguous())[1], [optimizer], s, bfloat16=asked.bfloat16,
        parameters=list(model.parameters()),
    )  # fmt: skip


def peak(asked: Asked) -> Callable[[], object]:
    """One large product in the dtype of the job."""
    a = torch.ones(PEAK, PEAK, dtype=torch.bfloat16 if asked.bfloat16 else torch.float32)
    return lambda: a @ a


CONTENDERS: dict[str, tuple[Callable[..., Callable[[], object]], dict[str, Any]]] = {
    "ours": (ours, {}),
    "ours, compiled": (ours, {"compile": True}),
    "ours, AdamW": (ours, {"optimizer": "adamw"}),
    "plain": (plain, {}),
    "plain, memory kept": (plain, {"kept": True}),
    "plain, compiled": (plain, {"compiled": True}),
    "plain, AdamW": (plain, {"moved": "adamw"}),
    "nanoGPT": (nanogpt, {}),
    "nanoGPT, compiled": (nanogpt, {"compiled": True}),
    "peak": (peak, {}),
}


def shares(step: Callable[[], object]) -> dict[str, float]:
    """Shares of a step's time, the profiler's own included: in products, in torch's attention, in Muon or AdamW."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    rows = {row.key.removeprefix("aten::"): row for row in seen.key_averages()}
    whole = sum(row.self_cpu_time_total for row in rows.values())
    steps = sum(row.cpu_time_total for name, row in rows.items() if name.startswith("Optimizer.step#"))

    def of(names: tuple[str, ...]) -> float:
        return sum(rows[name].self_cpu_time_total for name in names if name in rows) / whole

    return {"in products": of(PRODUCTS), "in torch's attention": of(ATTENTION), "in the optimizer": steps / whole}


class Here:
    """A contender in this process: quick to make, which is all that tiny sizes need."""

    def __init__(self, name: str, asked: Asked) -> None:
        make, how = CONTENDERS[name]
        self.step = make(asked, **how)

    def seconds(self, steps: int) -> float:
        """Processor time of a step."""
        start = time.process_time()
        for _ in itertools.repeat(None, steps):
            self.step()
        return (time.process_time() - start) / steps

    def shares(self, steps: int) -> dict[str, float]:
        """What takes it."""
        return shares(self.step)

    def close(self) -> None:
        """Nothing is left to end."""


class Apart:
    """A contender in a process of its own: what one asks of the C library or of the compiler, the others do not get."""

    def __init__(self, name: str, asked: Asked) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, asked), daemon=False)
        self.process.start()
        theirs.close()
        self.pipe.recv()  # it is ready

    def ask(self, what: str, steps: int) -> Any:
        """Call a method of the contender there."""
        self.pipe.send((what, steps))
        return self.pipe.recv()

    def seconds(self, steps: int) -> float:
        """Processor time of a step."""
        found: float = self.ask("seconds", steps)
        return found

    def shares(self, steps: int) -> dict[str, float]:
        """What takes it."""
        found: dict[str, float] = self.ask("shares", steps)
        return found

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join()


def serve(pipe: multiprocessing.connection.Connection, name: str, asked: Asked) -> None:
    """Make a contender, then do what is asked until the pipe closes."""
    torch.set_num_threads(asked.threads)
    here = Here(name, asked)
    here.step()  # compiles, where it compiles
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            what, steps = pipe.recv()
            pipe.send(getattr(here, what)(steps))
