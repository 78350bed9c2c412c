"""What a run writes down about itself besides its steps: validations, spectra, samples, the summary."""

import math
from pathlib import Path

import safetensors.torch

from spectrain import data, optim
from spectrain.train import _machine, _samples
from spectrain.train._atomic import write_file, write_json
from spectrain.train._evaluation import Score, evaluate
from spectrain.train._horizon import CALIBRATION, by_clock
from spectrain.train._progress import Progress
from spectrain.train._session import Session
from spectrain.train._step import first_bad_tensor


def validate(session: Session, screen: Progress) -> None:
    """Score the first part of the held-out text and record it."""
    score = validation(session, tokens=session.config.eval_tokens)
    counters = session.counters
    session.folder.record(
        "eval",
        {
            "step": counters.step,
            "tokens": counters.tokens,
            "loss": score.loss,
            "bits_per_byte": score.bits_per_byte,
            "seconds": session.seconds,
        },
    )
    if not math.isfinite(score.loss):
        inputs, _ = session.stream.batch(max(0, counters.step - 1))
        bad = first_bad_tensor(session.model, inputs.to(session.device), autocast=session.autocast)
        raise FloatingPointError(f"validation after step {counters.step}: {bad}")
    screen.say(f"  validation at step {counters.step}: loss {score.loss:.3f}, {score.bits_per_byte:.3f} bits/byte")


def validation(session: Session, *, tokens: int | None = None) -> Score:
    """Score the held-out text, or its first ``tokens`` tokens."""
    held_out = session.text.validation[:tokens]
    session.model.eval()
    score = evaluate(
        session.model,
        data.validation_batches(held_out, block=session.config.block, batch=session.config.micro_batch),
        byte_lengths=session.text.tokenizer.byte_lengths,
        autocast=session.autocast,
        device=session.device,
    )
    session.model.train()
    return score


def record_spectra(session: Session) -> None:
    """Record the singular values of weights, momenta and updates, before the next step clears the gradients."""
    ends = ("blocks.0.", f"blocks.{session.config.depth - 1}.")  # first and last: the rest lie between
    names = [name for name, _ in session.model.named_parameters() if name.startswith(ends)]
    for row in optim.spectra(session.model, session.optimizer, names=names):
        session.folder.record("spectrum", {"step": session.counters.step, **row})


def ends_a_quarter(session: Session) -> bool:
    """Whether this step ends a quarter of the run."""
    steps = session.steps
    step = session.counters.step
    if steps is None or step == steps or (by_clock(session.config) and step < CALIBRATION):
        return False  # before a clock has fixed the steps nobody knows where the quarters are, on a resume neither
    return any(step == max(1, steps * q // 4) for q in (1, 2, 3))


def sample(session: Session) -> None:
    """Append samples of this moment to ``samples.txt``; the draws depend on seed and step only."""
    with session.autocast, open(session.folder.samples, "a", encoding="utf-8") as file:
        for i, prompt in enumerate(_samples.prompts(session.text.validation_text)):
            written = _samples.write(
                session.model,
                session.text.tokenizer,
                prompt,
                tokens=session.config.sample_tokens,
                context=session.config.block,
                generator=data.generator(session.config.seed, "sample", session.counters.step, i),
            )
            title = f"prompt {prompt.strip()!r}" if prompt else "no prompt"
            file.write(f"=== step {session.counters.step}, {title}\n{written}\n")


def finish(session: Session, screen: Progress) -> Path:
    """Score all held-out text, write samples, weights and summary."""
    folder, counters = session.folder, session.counters
    score = validation(session)
    if session.config.sample_tokens:
        sample(session)
    write_file(folder.model, lambda temporary: safetensors.torch.save_model(session.model, str(temporary)))
    xz = data.compressed_bits_per_byte(session.text.validation_text)
    summary = {
        "validation_loss": score.loss,
        "bits_per_byte": score.bits_per_byte,
        "xz_bits_per_byte": xz,
        "validation_bytes": score.bytes,
        "validation_tokens": score.tokens,
        "optimizer": session.config.optimizer,
        "parameters": sum(p.numel() for p in session.model.parameters()),
        "steps": counters.step,
        "tokens": counters.tokens,
        "bytes": counters.bytes,
        "epochs": session.stream.epoch(counters.step),
        "seconds": session.seconds,
        "optimizer_share": counters.optimizer_seconds / max(1e-9, session.seconds),
        "peak_memory_bytes": _machine.peak_memory_bytes(),
    }
    write_json(folder.summary, summary)
    screen.say(
        f"validation on all {score.bytes:,} held-out bytes: loss {score.loss:.4f}, {score.bits_per_byte:.4f} bits/byte"
    )
    screen.say(f"xz -6 on the same bytes: {xz:.4f} bits/byte (it has seen nothing else, and needs no training)")
    share = f"{100 * counters.optimizer_seconds / session.seconds:.0f} %"
    screen.say(f"{counters.tokens:,} tokens in {session.seconds:.0f} s, {share} of it in the optimizer")
    return folder.path
