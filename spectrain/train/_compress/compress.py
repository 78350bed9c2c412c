"""A trained model made smaller: linear layers by factors, neurons by selection, then judged and healed."""

import dataclasses
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from spectrain.train._compress.folder import Row, write_run
from spectrain.train._compress.one_layer import Seen
from spectrain.train._compress.units import Method, Parts, Unit, sizes, units_of
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run.claim import claimed
from spectrain.train._run.config import MOST_STEPS
from spectrain.train._run.folder import RunFolder
from spectrain.train._run.machine import choose_device
from spectrain.train._run.progress import Progress
from spectrain.train._saved.factored import Selected, replace
from spectrain.train._saved.load import load_run

_MOST_TOKENS = 10**9
METHODS = ("svd", "id", "cur", "cr")


def compress(
    run: Path,
    *,
    out_dir: Path,
    method: Method = "id",
    params: float | None = None,
    rtol: float | None = None,
    calibration_tokens: int = 16384,
    finetune_steps: int = 0,
    lr: float = 1e-3,
    progress: Progress | None = None,
) -> Path:
    """Replace the linear layers of a run's blocks by smaller ones; write and return a run folder.

    ``id`` is the default: with half of the weights it lost least (``benchmarks/train/compress_run.py``).

    ========= ====================================================================================
    ``svd``   rank r: the projection of each layer's outputs on their leading directions. Ranks go where they explain
              most of the outputs for their weights
    ``id``    gated blocks keep some neurons, and all others are written by them; other layers keep some outputs
    ``cr``    gated blocks keep some neurons with a weight each; other layers read some of their inputs
    ``cur``   real rows and columns of the weights, the core fitted to the inputs
    ========= ====================================================================================

    One of ``params``, the share of the blocks' linear weights that stays, and ``rtol``, the relative error allowed in
    what each layer writes on calibration text. Errors are those for the inputs that layers really get, on
    ``calibration_tokens`` of the training text; with 0 all directions count alike (and ``svd`` is plain truncation,
    with the same share of each layer). ``finetune_steps`` of AdamW at ``lr`` heal the result. A layer that would not
    become smaller stays.

    The folder holds what :func:`load_run` needs (``factors.json`` says the new shapes), and ``compress.json``: a row
    for each unit with size, weights, relative error, loss when it alone is replaced, and time; the losses before,
    after, and after healing, on the same held-out text.

    Raises ValueError for a folder that is no run of ``train``, and for arguments that fit no model.
    """
    with claimed(Path(out_dir)) as out:
        _check(method, params, rtol, calibration_tokens, finetune_steps, lr, out)
        return _compress(
            run, out, method, params, rtol, calibration_tokens, finetune_steps, lr, progress or Progress(interval=10)
        )


def _compress(
    run: Path,
    out: Path,
    method: Method,
    params: float | None,
    rtol: float | None,
    calibration_tokens: int,
    finetune_steps: int,
    lr: float,
    screen: Progress,
) -> Path:
    job = _load(run)
    model = job.model
    before = job.score(tokens=None)
    screen.say(f"{run}: loss {before.loss:.4f} on {before.tokens:,} held-out tokens")
    seen = _watch(job, calibration_tokens)
    units = units_of(model, seen, method)
    shared = method == "svd" and calibration_tokens > 0
    rows, parts = _replace_all(job, units, sizes(units, params=params, rtol=rtol, shared=shared), screen)
    after = job.score(tokens=None)
    screen.say(f"compressed: loss {after.loss:.4f} ({after.loss - before.loss:+.4f})")
    healed = after
    if finetune_steps:
        _finetune(job, finetune_steps, lr, screen)
        healed = job.score(tokens=None)
        screen.say(f"after {finetune_steps} steps: loss {healed.loss:.4f} ({healed.loss - before.loss:+.4f})")
    linear = sum(unit.parameters for unit in units)
    saved = sum(int(row["parameters_before"]) - int(row["parameters"]) for row in rows)  # type: ignore[call-overload]
    summary: Row = {
        "run": str(run),
        "method": method,
        "params": params,
        "rtol": rtol,
        "calibration_tokens": calibration_tokens,
        "finetune_steps": finetune_steps,
        "loss_before": before.loss,
        "loss_compressed": after.loss,
        "loss": healed.loss,
        "bits_per_byte": healed.bits_per_byte,
        "linear_parameters_before": linear,
        "linear_parameters": linear - saved,
        "units": rows,
    }
    return write_run(job, run, out, summary, parts)


def _check(
    method: str, params: float | None, rtol: float | None, tokens: int, steps: int, lr: float, out_dir: Path
) -> None:
    if method not in METHODS:
        raise ValueError(f"--method must be one of {', '.join(METHODS)}, got {method!r}.")
    if (params is None) == (rtol is None):
        raise ValueError("compress needs one of --params (the share of weights that stays) and --rtol, not both.")
    for name, value in (("params", params), ("rtol", rtol)):
        if value is not None and not 0 < value < 1:
            raise ValueError(f"--{name} must be above 0 and below 1, got {value}.")
    if not (0 <= tokens <= _MOST_TOKENS and 0 <= steps <= MOST_STEPS):
        raise ValueError(
            f"--calibration-tokens and --finetune-steps must be 0 or more, and at most {_MOST_TOKENS:,} and "
            f"{MOST_STEPS:,}, got {tokens} and {steps}."
        )
    if not 0 < lr < float("inf"):
        raise ValueError(f"--lr must be positive and finite, got {lr}.")
    if method in ("id", "cr") and tokens == 0:
        raise ValueError(f"--method {method} chooses by what layers are given: --calibration-tokens must be above 0.")
    if (Path(out_dir) / "config.json").exists():
        raise ValueError(f"{out_dir} already holds a run; choose another --out-dir.")


def _load(run: Path) -> LanguageJob:
    """The job of a finished run, with its trained model on the device it was trained on."""
    folder = RunFolder(Path(run))
    trained = load_run(run)
    if folder.factors.exists():
        raise ValueError(f"{run} is compressed already; give the run that it was made of.")
    if trained.config.lora is not None:
        raise ValueError(f"{run} has adapters beside its layers, and is not compressed with them.")
    if any(layer.bias is not None for layer in trained.model.modules() if isinstance(layer, nn.Linear)):
        raise ValueError(f"{run} has layers with biases, and what would replace them has none.")
    config = dataclasses.replace(trained.config, device=choose_device("auto"))
    job = LanguageJob(config, folder, resuming=True)
    job.device = torch.device(config.device)
    job.model = trained.model.to(job.device)
    job.autocast = torch.autocast(job.device.type, dtype=torch.bfloat16, enabled=False)
    return job


def _watch(job: LanguageJob, tokens: int) -> dict[str, Seen]:
    """What each linear layer of the blocks reads, over batches of the training text."""
    prefix = "blocks."
    layers = {n: m for n, m in job.model.named_modules() if n.startswith(prefix) and isinstance(m, nn.Linear)}
    if not tokens:
        return {name: Seen.nothing(layer.in_features) for name, layer in layers.items()}
    seen = {name: Seen(torch.zeros(layer.in_features, 0, dtype=torch.float64)) for name, layer in layers.items()}

    def keep(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[name] = seen[name].and_also(inputs[0].detach().flatten(0, -2).cpu())

        return hook

    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]  # type: ignore[arg-type]
    count = step = 0
    job.model.eval()
    with torch.no_grad():
        while count < tokens:
            inputs, _, documents = job.batch(step)
            job.model(inputs, documents=documents)
            count, step = count + inputs.numel(), step + 1
    for hook in hooks:
        hook.remove()
    return seen


def _replace_all(
    job: LanguageJob, units: list[Unit], wanted: list[int | None], screen: Progress
) -> tuple[list[Row], Parts]:
    """Judge each unit alone, then put all of them in; return a row for each and what was put in."""
    model, tokens = job.model, min(job.config.eval_tokens, 8192)
    base = job.score(tokens=tokens).loss
    rows: list[Row] = []
    parts: Parts = {}
    for unit, size in zip(units, wanted, strict=True):
        if size is None:
            rows.append(_row(unit, None, unit.parameters, 0.0, 0.0, 1.0))
            continue
        made, error = unit.make(size)
        ratio = sum(map(_seconds, made.values())) / sum(_seconds(layer) for layer in unit.layers.values())
        for name, part in made.items():
            replace(model, name, part.to(job.device))
        loss = job.score(tokens=tokens).loss - base
        for name, layer in unit.layers.items():
            replace(model, name, layer)
        weights = sum(p.numel() for part in made.values() for p in part.parameters())
        rows.append(_row(unit, size, weights, error, loss, ratio))
        screen.say(f"  {unit.name}: size {size}, {weights:,} of {unit.parameters:,} weights, loss {loss:+.4f}")
        parts |= made
    for name, part in parts.items():
        replace(model, name, part.to(job.device))
    return rows, parts


def _row(unit: Unit, size: int | None, weights: int, error: float, loss: float, ratio: float) -> Row:
    return {
        "unit": unit.name,
        "size": size,
        "parameters_before": unit.parameters,
        "parameters": weights,
        "relative_error": error,
        "loss_alone": loss,
        "time_ratio": ratio,
    }


def _seconds(layer: nn.Module) -> float:
    """Median time of the layer on 512 positions."""
    width = layer.inputs if isinstance(layer, Selected) else _first(layer).in_features
    x = torch.zeros(512, width, device=_first(layer).weight.device)
    times = []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            layer(x)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _first(layer: nn.Module) -> nn.Linear:
    return next(module for module in layer.modules() if isinstance(module, nn.Linear))


def _finetune(job: LanguageJob, steps: int, lr: float, screen: Progress) -> None:
    """Train what is left on further batches of the same text; the learning rate falls linearly to zero."""
    job.model.train()
    optimizer = torch.optim.AdamW(job.model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    begin = job.config.horizon or 0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        measured = job.accumulate(begin + step)
        torch.nn.utils.clip_grad_norm_(job.model.parameters(), 1.0)
        optimizer.step()
        screen.step(step + 1, steps, measured.words)
