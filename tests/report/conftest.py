"""A synthetic run folder, written by formulas: what the trainer writes, without a trainer."""

import itertools
import json
import math
from pathlib import Path

import pytest

LAYERS = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.out",
    "mlp.gate",
    "mlp.up",
    "mlp.down",
)
LEVELS = [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]


def best_cubic(lower, upper):
    """The best odd cubic for 1 on [lower, upper], in closed form (Chen and Chow 2014): 3 alternation points.

    p(lower) = p(upper) fixes the ratio of the coefficients, p'(x) = 0 the inner point, equal errors the scale.
    """
    inner = math.sqrt((upper**2 + upper * lower + lower**2) / 3)
    a, b = upper**2 + upper * lower + lower**2, -1.0
    scale = 2 / (a * lower + b * lower**3 + a * inner + b * inner**3)
    a, b = scale * a, scale * b
    return (a, b), 1 - (a * lower + b * lower**3), [lower, inner, upper]


def cubic_schedule(lower, steps):
    """A greedy composition of best cubics as ``polynomials.json`` holds it."""
    interval, found = (lower, 1.0), []
    for _ in range(steps):
        (a, b), error, reference = best_cubic(*interval)
        x = [interval[0] + (interval[1] - interval[0]) * i / 200 for i in range(201)]
        found.append(
            {
                "powers": [1, 3],
                "coefficients": [a, b],
                "interval": list(interval),
                "error": error,
                "curve": {"x": x, "error": [a * v + b * v**3 - 1 for v in x]},
                "reference": reference,
            }
        )
        interval = (1 - error, 1 + error)
    return {
        "name": "best cubics",
        "interval": [lower, 1.0],
        "error": found[-1]["error"],
        "products": 2 * steps,
        "dtype": "float32",
        "steps": found,
    }


def metrics(*, steps, every, floor):
    """The lines of ``metrics.jsonl``: a power law with a ripple."""
    for step in range(1, steps + 1):
        loss = floor + 2.8 * step**-0.35 + 0.12 * math.sin(12.9898 * step) * math.sin(78.233 * step)
        seconds = 0.4 * step + 0.4
        lr = 0.002 * min(step / (0.1 * steps), (steps + 1 - step) / (0.9 * steps))
        yield {
            "kind": "step", "step": step, "tokens": 4096 * step, "bytes": 13001 * step, "loss": loss,
            "bits_per_byte": loss / math.log(2) * 0.315, "lr": lr, "seconds": seconds,
            "grad_norm": 0.4 + 3 / step + 0.1 * math.sin(step) ** 2,
            "step_seconds": 0.4 + 0.02 * math.cos(7.7 * step) ** 8,
            "optimizer_seconds": 0.031 + 0.003 * math.sin(step) ** 2,
            "tokens_per_second": 9800 + 200 * math.cos(step), **expert_figures(step), "moe_loads": loads(step),
        }  # fmt: skip
        if step % every == 0:
            smooth = floor + 2.8 * step**-0.35
            bits = smooth / math.log(2) * 0.315
            yield {
                "kind": "eval",
                "step": step,
                "tokens": 4096 * step,
                "loss": smooth,
                "bits_per_byte": bits,
                "seconds": seconds,
                **expert_figures(step),
            }
            yield from spectrum_rows(step, steps)
            yield from activation_rows(step)
            yield {"kind": "memory", "step": step, "note": "a kind that this reader does not know"}


def loads(step):
    """Tokens of four experts in each of two layers, more and more even."""
    return [[1024, 1024 + 600 * layer // (step + 1), 1024 - 600 * layer // (step + 1), 1024] for layer in (1, 2)]


def expert_figures(step):
    each = [max(layer) / 1024 - 1 for layer in loads(step)]
    return {"moe_max_violation": max(each), **{f"moe_max_violation.{i}": value for i, value in enumerate(each)}}


def activation_rows(step):
    for i, name in enumerate(("blocks.0.attention", "blocks.0.feed_forward", "norm")):
        yield {
            "kind": "activation", "step": step, "name": name, "calls": 1, "rows": 1024, "numbers": 262_144,
            "not_finite": 0, "mean": 0.01, "rms": 1.0 + i + 0.01 * step, "largest": 9.5 + i, "quantile_0.99": 2.5,
            "spectral_norm": 80.0 + step, "effective_rank": 120.0 - i, "stable_rank": 12.0 + i,
        }  # fmt: skip


def spectrum_rows(step, steps):
    for block in range(4):
        for i, layer in enumerate(LAYERS):
            grown = 1 + (0.4 + 0.2 * i) * step / steps
            weight = [grown * (0.02 + 1.2 * q**1.5) for q in LEVELS]
            yield {
                "kind": "spectrum", "step": step, "name": f"blocks.{block}.{layer}.weight",
                "quantiles": LEVELS, "weight": weight, "update": [0.002 * (0.97 + 0.05 * q) for q in LEVELS],
                "momentum": [10 ** (-4 + 3 * q) for q in LEVELS],
                "weight_stable_rank": 40 / grown + block, "update_stable_rank": 240.0 - 3 * i,
                "momentum_stable_rank": 4 + i, "update_to_weight": 0.02 / grown * (1 + 0.3 * block),
            }  # fmt: skip


def routing_rows():
    for block in range(4):
        for layer in LAYERS:
            yield row(f"blocks.{block}.{layer}.weight", [256, 256], "Muon", "matrix of a linear layer", 3.2)
        yield row(f"blocks.{block}.norm.weight", [256], "AdamW", "a vector, not a matrix", 1.0)
    yield row("embedding.weight", [512, 256], "AdamW", "an embedding table: rows are looked up, not multiplied", 1.0)
    yield row("head.weight", [512, 256], "AdamW", "the output head", 1.0)


def row(name, shape, algorithm, reason, lr_factor):
    matrix = shape if algorithm == "Muon" else None
    return {
        "name": name,
        "shape": shape,
        "matrix": matrix,
        "algorithm": algorithm,
        "reason": reason,
        "lr_factor": lr_factor,
    }


SAMPLES = """=== step 300, temperature 0.8, prompt "def "
def read_text(self, encoding=None, errors=None):
    \"\"\"Open the file in text mode, read it, and close the file.\"\"\"
    with self.open(mode='r', encoding=encoding) as f:
        return f.read()
=== step 300, temperature 0.8, prompt "import "
import os
import sys
"""


def write_run(folder, *, optimizer="muon", lr=2e-3, seed=0, steps=120, every=20, floor=3.35, text=SAMPLES):
    """Write a whole run folder and return its path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = list(metrics(steps=steps, every=every, floor=floor))
    last = [entry for entry in lines if entry["kind"] == "eval"][-1]
    config = {
        "depth": 4, "width": 256, "optimizer": optimizer, "lr": lr, "weight_decay": 0.1, "max_steps": steps,
        "seed": seed, "data": ["the standard library"], "autocast": "bfloat16", "threads": 2, "vocabulary": 512,
    }  # fmt: skip
    environment = {
        "python": "3.11.2", "torch": "2.13.0", "spectrain": "0.1.0", "platform": "Linux", "cpu": "a CPU",
        "cores": 2, "memory": "8 GiB", "commit": "0123abc", "started_at": "2026-01-01T00:00:00Z",
        "measurements": {"matmul_gflops_float32": 91.5, "autocast": "bfloat16 is 2.6 times faster"},
    }  # fmt: skip
    summary = {
        "validation_loss": last["loss"], "bits_per_byte": last["bits_per_byte"], "xz_bits_per_byte": 2.04,
        "parameters": 3_312_640, "tokens": 4096 * steps, "seconds": 0.4 * steps + 0.4,
        "peak_memory_bytes": 1_310_000_000, "optimizer_share": 0.079,
    }  # fmt: skip
    write_json(folder / "config.json", config)
    write_json(folder / "environment.json", environment)
    write_json(folder / "summary.json", summary)
    write_json(folder / "routing.json", list(routing_rows()))
    write_json(folder / "polynomials.json", {"schedules": [cubic_schedule(0.02, 7)]})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines), encoding="utf-8")
    (folder / "samples.txt").write_text(text, encoding="utf-8")
    return folder


def write_json(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")


def write_comparison(folder, *, rates=(1e-3, 2e-3), seeds=(0,), **more):
    """A folder of runs as `spectrain compare` writes it."""
    kinds, rows = (("muon", 3.35), ("adamw", 3.6)), []
    for (optimizer, base), lr, seed in itertools.product(kinds, rates, seeds):
        floor = base + 0.15 * abs(math.log2(lr / 1.5e-3)) + 0.01 * seed
        name = f"{optimizer}-{lr:g}-{seed}"
        run = write_run(folder / name, optimizer=optimizer, lr=lr, seed=seed, floor=floor, **more)
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        row = {"optimizer": optimizer, "lr": lr, "seed": seed, "tokens": summary["tokens"]}
        row |= {"final_bits_per_byte": summary["bits_per_byte"], "final_loss": summary["validation_loss"]}
        rows.append({**row, "tokens_to_target": 300_000 if optimizer == "muon" else None})
    write_json(folder / "compare.json", {"rows": rows, "target": 4.05, "ratio": 0.61})
    return folder


@pytest.fixture
def make_run():
    """The function that writes a run folder."""
    return write_run


@pytest.fixture
def cubic():
    """The best odd cubic in closed form."""
    return best_cubic


@pytest.fixture
def run_folder(tmp_path):
    """A complete run."""
    return write_run(tmp_path / "a run")


@pytest.fixture
def comparison_folder(tmp_path):
    """Four runs and their compare.json."""
    return write_comparison(tmp_path / "compare", steps=40, every=10)
