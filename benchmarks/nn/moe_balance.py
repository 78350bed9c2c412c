"""How evenly the experts of the main job are loaded on held-out text, and whether they pay for their time.

    python -m benchmarks.nn.moe_balance                    # sign and quantile rules, then dense for the same time
    python -m benchmarks.nn.moe_balance --pace 1.5         # a step with experts costs 1.5 dense ones, as was measured

MaxVio is the largest load over the mean load, minus 1, of the loads summed over the whole validation set: whole files
that the run has not seen. Beside it stands that of as many tokens of the batches that the run would have read next: as
new to it, but an exchangeable sample of the text that it learned from. What an exact fit on one does with the other
says how much the two texts differ. The last checkpoint is measured on all of it, those before on --glance tokens. Runs
and their loads that are finished in --runs are kept. Steps are limited, not minutes, so that a busy machine changes
nothing; the pace turns steps into time, and is measured in alternating steps of both models, where it is not given.
"""

import functools
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from benchmarks import _record
from benchmarks._program import main
from benchmarks._record import Found
from benchmarks._rounds import alternate
from benchmarks._runs import FIXED, TINY, finish_run, held_out_tokens, summary
from spectrain import nn, objectives, optim, train
from spectrain.nn.experts import Loads
from spectrain.train._jobs import text as _text
from spectrain.train._jobs.model import build_model

RULES = ("sign", "quantile")
MODEL = {"validation_fraction": 0.08}
EXPERTS = {"attention": "mla", "moe_experts": 16, "moe_top_k": 4, "moe_shared": 1}


def unread_tokens(made: train.TrainedRun, *, steps: int, tokens: int) -> torch.Tensor:
    """Tokens of the batches that come after a run of ``steps`` steps; ``ValueError`` where it has read them before."""
    text = _text.load(made.config, tokenizer_file=made.source.parent / "tokenizer.json")
    stream, count = _text.stream(made.config, text), -(-tokens // made.config.tokens_per_step)
    if stream.epoch(steps + count) > 1:
        raise ValueError(f"{steps} and {count} steps are more than an epoch; give fewer --steps or --tokens.")
    return torch.cat([stream.batch(steps + i)[0].flatten() for i in range(count)])[:tokens]


@torch.no_grad()
def loads_and_scores(made: train.TrainedRun, tokens: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each layer of experts the loads and the router's scores on all ``tokens``."""
    layers = [module for module in made.model.modules() if isinstance(module, nn.MoE)]
    scores: list[list[torch.Tensor]] = [[] for _ in layers]
    handles = [
        layer.router.register_forward_hook(lambda _, __, routing, kept=kept: kept.append(routing.scores))
        for layer, kept in zip(layers, scores, strict=True)
    ]
    block = made.config.block
    with nn.experts.expert_loads(made.model) as loads, torch.autocast("cpu", dtype=torch.bfloat16):
        for rows in tokens[: len(tokens) // block * block].view(-1, block).split(16):
            made.model.features(rows)
    for handle in handles:
        handle.remove()
    return [(load.counts, torch.cat(parts)) for load, parts in zip(loads.values(), scores, strict=True)]


def violation(loads: torch.Tensor) -> float:
    return Loads(loads, tokens=0).max_violation


def by_bins(scores: torch.Tensor, bias: torch.Tensor, *, top_k: int) -> tuple[float, float]:
    """MaxVio of these scores after eight warm-started steps of quantile balancing: exact, and by histogram."""
    chosen = []
    for rule in ("quantile", "histogram"):
        balance, moved = nn.experts.Balance(rule=rule), bias
        for _ in range(8):
            evidence = balance.evidence(scores, moved, top_k=top_k)
            loads = Loads(torch.zeros(len(bias), dtype=torch.long), tokens=len(scores))
            moved = balance.moved(moved, loads, evidence, top_k=top_k, dynamic=False)
        chosen.append(violation_of(scores, moved, top_k=top_k))
    return chosen[0], chosen[1]


def fit(scores: torch.Tensor, *, top_k: int) -> torch.Tensor:
    """The bias that balances these scores, exactly."""
    return nn.experts.quantile_bias(scores, top_k=top_k, iterations=40)


def violation_of(scores: torch.Tensor, bias: torch.Tensor, *, top_k: int) -> float:
    best = (scores + bias).topk(top_k, dim=1).indices
    return violation(best.flatten().bincount(minlength=len(bias)))


def balance(folder: Path, *, checkpoints: int, tokens: int, glance: int) -> dict:
    """What the checkpoints of a run do with held-out files and with batches that it has not read."""
    done = folder / "balance.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    made = train.load_run(folder)
    files = held_out_tokens(made)[:tokens]
    following = unread_tokens(made, steps=summary(folder)["steps"], tokens=len(files))
    routed = [m for m in made.model.modules() if isinstance(m, nn.MoE)]
    top_k = routed[0].router.top_k
    found: dict = {"steps": [], "files": [], "unread": [], "tokens": len(files)}
    last = sorted((folder / "checkpoints").glob("step-*"))[-checkpoints:]
    for checkpoint in last:
        size = len(files) if checkpoint == last[-1] else glance
        safetensors.torch.load_model(made.model, str(checkpoint / "model.safetensors"))
        found["steps"].append(int(checkpoint.name.split("-")[1]))
        both = {"files": loads_and_scores(made, files[:size]), "unread": loads_and_scores(made, following[:size])}
        for name, layers in both.items():
            found[name].append([violation(loads) for loads, _ in layers])
        print(folder.name, found["steps"][-1], found["files"][-1], found["unread"][-1], flush=True)
    at = {name: [scores for _, scores in layers] for name, layers in both.items()}
    fits = {name: [fit(s, top_k=top_k) for s in scores] for name, scores in at.items()}
    halves = [s.view(-1, made.config.block, s.shape[1]) for s in at["unread"]]
    found["fits"] = {
        "of the unread batches, on the files": _pairs(at["files"], fits["unread"], top_k=top_k),
        "of the files, on the unread batches": _pairs(at["unread"], fits["files"], top_k=top_k),
        "of every second sequence of the batches, on the others": _pairs(
            [h[1::2].flatten(0, 1) for h in halves],
            [fit(h[::2].flatten(0, 1), top_k=top_k) for h in halves],
            top_k=top_k,
        ),
    }
    found["bins"] = [by_bins(s, m.bias, top_k=top_k) for s, m in zip(at["files"], routed, strict=True)]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    each = [row["moe_max_violation"] for row in rows if row["kind"] == "step" and row["step"] > 10]
    found |= {"mean_of_steps": statistics.fmean(each or [0.0]), "loss": summary(folder)["validation_loss"]}
    done.write_text(json.dumps(found), encoding="utf-8")
    return found


def _pairs(scores: list[torch.Tensor], biases: list[torch.Tensor], *, top_k: int) -> list[float]:
    return [violation_of(s, b, top_k=top_k) for s, b in zip(scores, biases, strict=True)]


def pace_of(model: Mapping[str, Any], rounds: int) -> float:
    """The median ratio of the times of steps that follow each other, with experts and dense."""
    dense, experts = (functools.partial(step, *build(flags)) for flags in (model, {**model, **EXPERTS}))
    return alternate({"dense": dense, "experts": experts}, rounds=rounds, warm=2).ratio("experts", "dense")


def build(flags: Mapping[str, Any]) -> tuple:
    """A model of the main job, its optimizer, and a batch."""
    config, _ = train.TrainConfig(**flags).derive()
    model = build_model(config, vocabulary=config.vocabulary)
    shape = (config.batch_size, config.block + 1)
    tokens = torch.randint(0, config.vocabulary, shape, generator=torch.Generator().manual_seed(0))
    return model, optim.Muon(model, lr=1e-3), tokens


def step(model, optimizer, tokens) -> None:
    """One step of training."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens[:, :-1])
    objectives.negative_log_likelihood(logits, tokens[:, 1:]).div(tokens.numel()).backward()
    optimizer.step()
    optimizer.zero_grad()
    for layer in model.modules():
        if isinstance(layer, nn.MoE):
            layer.update_bias()


def measure(
    *,
    runs: Path,
    steps: int = 300,
    pace: float | None = None,
    only: tuple[str, ...] = (*RULES, "dense"),
    checkpoints: int = 6,
    tokens: int = 204_800,
    glance: int = 49_152,
    model: Mapping[str, Any] = MODEL,
    rounds: int = 12,
) -> Iterator[Found]:
    """``pace``: dense steps in the time of one with experts, measured over ``rounds`` where not given. ``only``:
    runs to train; the record needs both rules. ``checkpoints``: the last ones of each run, that are measured, on so
    many ``tokens`` of either text, those before the last on the first ``glance``.
    """
    ratio = pace or pace_of(model, rounds)
    found = {}
    for rule in [rule for rule in RULES if rule in only]:
        flags = {**FIXED, "threads": 1, **model, **EXPERTS, "moe_balance": rule, "max_steps": steps}
        folder = finish_run(runs / rule, **flags, save_interval=max(1, steps // 6), keep_last=7)
        found[rule] = balance(folder, checkpoints=checkpoints, tokens=tokens, glance=glance)
    if "dense" in only:
        dense = summary(
            finish_run(runs / "dense", **{**FIXED, "threads": 1, **model, "max_steps": round(steps * ratio)})
        )
        found["dense"] = {"loss": dense["validation_loss"], "steps": dense["steps"]}
    if set(RULES) <= set(found):
        rows = [
            {"run": name, **{k: v for k, v in one.items() if k in ("loss", "mean_of_steps")}}
            for name, one in found.items()
        ]
        figures = {rule: max(found[rule]["files"][-1]) for rule in RULES} | {"pace": ratio}
        body = report(found, ratio=ratio, steps=steps, glance=glance)
        yield Found(rows=rows, body=body, figures=figures, data={"runs": found})


def report(found: dict, *, ratio: float, steps: int, glance: int) -> str:
    """The record in words and tables."""
    depth, tokens = len(found["sign"]["files"][0]), found["sign"]["tokens"]
    tables = {name: _violations(found, name, depth=depth) for name in ("files", "unread")}
    fits = [
        (rule, words, *(f"{v:.3f}" for v in each), f"{max(each):.3f}")
        for rule in RULES
        for words, each in found[rule]["fits"].items()
    ]
    layers = (*(f"layer {i}" for i in range(depth)), "largest")
    apart = max(abs(a - b) for rule in RULES for a, b in found[rule]["bins"])
    lines = [
        *(f"{rule} at the end: {max(found[rule]['files'][-1]):.3f} on held-out files, "
          f"{max(found[rule]['unread'][-1]):.3f} on unread batches (asked, of the sign rule: at most 0.04)."
          for rule in RULES),
        *(f"Mean over the checkpoints after step 10 on {words}: "
          + ", ".join(f"{rule} {_mean(found[rule], name):.3f}" for rule in RULES)
          + " (asked: quantile lower)."
          for name, words in (("files", "held-out files"), ("unread", "unread batches"))),
        "Mean over single training steps after the tenth, the worst layer of each: "
        + ", ".join(f"{rule} {found[rule]['mean_of_steps']:.3f}" for rule in RULES) + ".",
        f"Histogram against exact quantile on the routers' scores: MaxVio at most {apart:.4f} apart (asked: 0.02).",
        f"A step with MLA and experts takes the time of {ratio:.2f} dense ones.",
        f"Loss on all held-out text after {steps} steps: "
        + ", ".join(f"{rule} {found[rule]['loss']:.4f}" for rule in RULES) + ".",
        f"Dense, in the same time, {found['dense']['steps']} steps: {found['dense']['loss']:.4f}."
        if "dense" in found else "The dense run of the same time was left out.",
    ]  # fmt: skip
    return (
        f"Runs of {steps} steps; MaxVio of the loads summed over {tokens:,} tokens at the end, and over the first "
        f"{glance:,} of them at the checkpoints before, where chance alone leaves more.\n\n"
        f"Held-out files, the validation text of the run:\n\n{tables['files']}\n\n"
        f"The training batches that would have come next, which the run has not read:\n\n{tables['unread']}\n\n"
        "How much of it is the text and not the rule: the last model's scores with biases fitted by exact quantiles\n\n"
        f"{_record.table(('run', 'fit', *layers), fits)}\n\n" + "".join(f"- {line}\n" for line in lines)
    )


def _violations(found: dict, name: str, *, depth: int) -> str:
    rows = [
        (rule, step, *(f"{v:.3f}" for v in layers), f"{max(layers):.3f}")
        for rule in RULES
        for step, layers in zip(found[rule]["steps"], found[rule][name], strict=True)
    ]
    return _record.table(("rule", "step", *(f"layer {i}" for i in range(depth)), "largest"), rows)


def _mean(run_: dict, name: str) -> float:
    each = zip(run_["steps"], run_[name], strict=True)
    return statistics.fmean(max(layers) for step, layers in each if step > 10)


if __name__ == "__main__":
    main(
        "moe_balance",
        "Loads of experts on held-out text: MaxVio is {sign:.3f} by signs and {quantile:.3f} by quantiles, and a step "
        "with experts takes the time of {pace:.2f} dense ones",
        measure,
        smoke={"model": TINY, "steps": 12, "tokens": 256, "glance": 64, "checkpoints": 2, "rounds": 1, "only": RULES},
    )
