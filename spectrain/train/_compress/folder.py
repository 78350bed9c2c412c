"""The run folder of a compressed model: weights, their shapes, and a table of what was done."""

import dataclasses
from pathlib import Path

import safetensors.torch
from torch import nn

from spectrain._files.write import write_bytes, write_file, write_json, write_text
from spectrain.train._compress.units import Parts
from spectrain.train._jobs.language import LanguageJob
from spectrain.train._run import recorded
from spectrain.train._run.folder import RunFolder
from spectrain.train._saved.factored import Factored, Selected

Row = dict[str, object]


def write_run(job: LanguageJob, run: Path, out: Path, summary: Row, parts: Parts) -> Path:
    """Write weights, shapes, the table and what :func:`load_run` needs; return the folder."""
    folder = RunFolder(out)
    write_bytes(folder.tokenizer, RunFolder(Path(run)).tokenizer.read_bytes())
    job.text.tokenizer.save_settings(out)
    write_json(folder.factors, {name: _shape(part) for name, part in parts.items()})
    write_file(folder.model, lambda temporary: safetensors.torch.save_model(job.model, str(temporary)))
    write_json(out / "compress.json", summary)
    write_text(out / "compress.md", table(summary))
    write_json(
        folder.summary,
        {
            "validation_loss": summary["loss"],
            "bits_per_byte": summary["bits_per_byte"],
            "parameters": sum(p.numel() for p in job.model.parameters()),
        },
    )
    recorded.write(dataclasses.replace(job.config, out_dir=str(out)), folder.config)
    return out


def _shape(part: nn.Module) -> dict[str, int]:
    if isinstance(part, Factored):
        return {"rank": part.down.out_features}
    if isinstance(part, Selected):
        return {"kept": part.take.in_features}
    assert isinstance(part, nn.Linear)
    return {"inputs": part.in_features, "outputs": part.out_features}


def table(summary: Row) -> str:
    """The rows of ``compress.json`` as a page."""
    rows = summary["units"]
    assert isinstance(rows, list)
    head = "| unit | size | weights | of | relative error | loss alone | time ratio |\n|---|---|---|---|---|---|---|\n"
    lines = [
        f"| {r['unit']} | {r['size'] or 'as it was'} | {r['parameters']:,} | {r['parameters_before']:,} "
        f"| {r['relative_error']:.3f} | {r['loss_alone']:+.4f} | {r['time_ratio']:.2f} |"
        for r in rows
    ]
    return (
        f"# {summary['run']}, compressed by {summary['method']}\n\n"
        f"{summary['linear_parameters']:,} of {summary['linear_parameters_before']:,} linear weights. Loss "
        f"{summary['loss_before']:.4f} before, {summary['loss_compressed']:.4f} compressed, {summary['loss']:.4f} "
        f"after {summary['finetune_steps']} steps of training.\n\n{head}" + "\n".join(lines) + "\n"
    )
