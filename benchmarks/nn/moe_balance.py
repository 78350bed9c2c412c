"""How evenly the experts of the main job are loaded on held-out text, and whether they pay for their time.

    python benchmarks/moe_balance.py                      # sign and quantile rules, then dense for the same time
    python benchmarks/moe_balance.py --pace 1.5           # a step with experts costs 1.5 dense ones: measured elsewhere
    python benchmarks/moe_balance.py --smoke              # a few steps of each, nothing is recorded

MaxVio is the largest load over the mean load, minus 1, of the loads summed over the whole validation set: whole files
that the run has not seen. Beside it stands that of as many tokens of the batches that the run would have read next: as
new to it, but an exchangeable sample of the text that it learned from. What an exact fit on one does with the other
says how much the two texts differ. The last checkpoint is measured on all of it, those before on --glance tokens. Runs
and their loads that are finished in --out-dir are kept. Steps are limited, not minutes, so that a busy machine changes
nothing; --pace turns steps into time, and `--pace-only` measures it, on a quiet machine, in alternating steps of both
models.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import _record
import safetensors.torch
import torch
from _runs import held_out

from spectrain import nn, objectives, optim, train
from spectrain.nn._experts.balance import Loads
from spectrain.train._jobs import text as _text
from spectrain.train._jobs.language import build_model

RULES = ("sign", "quantile")
EXPERTS = {"attention": "mla", "moe_experts": 16, "moe_top_k": 4, "moe_shared": 1}
SMALL = {"depth": 2, "width": 32, "heads": 2, "vocabulary": 300, "block": 32, "batch_size": 4, "eval_tokens": 2048}


def run(name: str, steps: int, args: argparse.Namespace, **flags: object) -> Path:
    """The folder of a run of the main job, trained unless it is there."""
    folder = args.out_dir / name
    if (folder / "summary.json").exists():
        return folder
    config = train.TrainConfig(
        out_dir=str(folder),
        resume="auto",
        max_steps=steps,
        save_interval=max(1, steps // 6),
        keep_last=7,
        validation_fraction=0.08,
        spectrum_interval=0,
        sample_tokens=0,
        threads=1,
        autocast="bfloat16",
        muon_dtype="bfloat16",
        **(SMALL if args.smoke else {}),
        **flags,
    )
    return train.train(config)


def unread(made: train.TrainedRun, *, steps: int, tokens: int) -> torch.Tensor:
    """Tokens of the batches that come after a run of ``steps`` steps; ``ValueError`` where it has read them before."""
    text = _text.load(made.config, tokenizer_file=made.source.parent / "tokenizer.json")
    stream, count = _text.stream(made.config, text), -(-tokens // made.config.tokens_per_step)
    if stream.epoch(steps + count) > 1:
        raise ValueError(f"{steps} and {count} steps are more than an epoch; give fewer --steps or --tokens.")
    return torch.cat([stream.batch(steps + i)[0].flatten() for i in range(count)])[:tokens]


@torch.no_grad()
def seen(made: train.TrainedRun, tokens: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each layer of experts the loads and the router's scores on all ``tokens``."""
    layers = [module for module in made.model.modules() if isinstance(module, nn.MoE)]
    scores: list[list[torch.Tensor]] = [[] for _ in layers]
    handles = [
        layer.router.register_forward_hook(lambda _, __, routing, kept=kept: kept.append(routing.scores))
        for layer, kept in zip(layers, scores, strict=True)
    ]
    block = made.config.block
    with nn.expert_loads(made.model) as loads, torch.autocast("cpu", dtype=torch.bfloat16):
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
        balance, moved = nn.Balance(rule=rule), bias
        for _ in range(8):
            evidence = balance.evidence(scores, moved, top_k=top_k)
            loads = Loads(torch.zeros(len(bias), dtype=torch.long), tokens=len(scores))
            moved = balance.moved(moved, loads, evidence, top_k=top_k, dynamic=False)
        chosen.append(violation_of(scores, moved, top_k=top_k))
    return chosen[0], chosen[1]


def fitted(scores: torch.Tensor, *, top_k: int) -> torch.Tensor:
    """The bias that balances these scores, exactly."""
    return nn.quantile_bias(scores, top_k=top_k, iterations=40)


def violation_of(scores: torch.Tensor, bias: torch.Tensor, *, top_k: int) -> float:
    best = (scores + bias).topk(top_k, dim=1).indices
    return violation(best.flatten().bincount(minlength=len(bias)))


def balance(folder: Path, args: argparse.Namespace) -> dict:
    """What the checkpoints of a run do with held-out files and with batches that it has not read."""
    done = folder / "balance.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    made = train.load_run(folder)
    most = 1024 if args.smoke else args.tokens
    files = held_out(made)[:most]
    following = unread(made, steps=summary(folder)["steps"], tokens=len(files))
    routed = [m for m in made.model.modules() if isinstance(m, nn.MoE)]
    top_k = routed[0].router.top_k
    found: dict = {"steps": [], "files": [], "unread": [], "tokens": len(files)}
    checkpoints = sorted((folder / "checkpoints").glob("step-*"))[-args.checkpoints :]
    for checkpoint in checkpoints:
        size = len(files) if checkpoint == checkpoints[-1] else args.glance
        safetensors.torch.load_model(made.model, str(checkpoint / "model.safetensors"))
        found["steps"].append(int(checkpoint.name.split("-")[1]))
        both = {"files": seen(made, files[:size]), "unread": seen(made, following[:size])}
        for name, layers in both.items():
            found[name].append([violation(loads) for loads, _ in layers])
        print(folder.name, found["steps"][-1], found["files"][-1], found["unread"][-1], flush=True)
    at = {name: [scores for _, scores in layers] for name, layers in both.items()}
    fits = {name: [fitted(s, top_k=top_k) for s in scores] for name, scores in at.items()}
    halves = [s.view(-1, made.config.block, s.shape[1]) for s in at["unread"]]
    found["fits"] = {
        "of the unread batches, on the files": _pairs(at["files"], fits["unread"], top_k=top_k),
        "of the files, on the unread batches": _pairs(at["unread"], fits["files"], top_k=top_k),
        "of every second sequence of the batches, on the others": _pairs(
            [h[1::2].flatten(0, 1) for h in halves],
            [fitted(h[::2].flatten(0, 1), top_k=top_k) for h in halves],
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


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def pace(args: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds of a training step, dense and with experts, and the median ratio of steps that follow each other."""
    small, repeats = (SMALL, 2) if args.smoke else ({}, 12)
    models = [built(small), built(small | EXPERTS)]
    times = [[one_step(*model) for model in models] for _ in range(repeats + 2)][2:]
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    return first, second, statistics.median(b / a for a, b in times)


def built(flags: dict) -> tuple:
    """A model of the main job, its optimizer, and a batch."""
    config, _ = train.TrainConfig(**flags).derive()
    model = build_model(config, vocabulary=config.vocabulary)
    shape = (config.batch_size, config.block + 1)
    tokens = torch.randint(0, config.vocabulary, shape, generator=torch.Generator().manual_seed(0))
    return model, optim.Muon(model, lr=1e-3), tokens


def one_step(model, optimizer, tokens) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens[:, :-1])
    objectives.negative_log_likelihood(logits, tokens[:, 1:]).div(tokens.numel()).backward()
    optimizer.step()
    optimizer.zero_grad()
    for layer in model.modules():
        if isinstance(layer, nn.MoE):
            layer.update_bias()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out-dir", type=Path, default=Path("runs/moe_balance"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pace", type=float, help="dense steps in the time of one with experts")
    parser.add_argument("--pace-only", action="store_true")
    parser.add_argument("--only", choices=("sign", "quantile", "dense"), help="train and measure this run, and stop")
    parser.add_argument("--checkpoints", type=int, default=6, help="of each run, the last ones, that are measured")
    parser.add_argument("--tokens", type=int, default=204_800, help="of either text, at most")
    parser.add_argument("--glance", type=int, default=49_152, help="the same, of checkpoints before the last")
    parser.add_argument("--no-dense", action="store_true", help="leave the dense run out")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.pace_only:
        print("dense {:.3f} s a step, experts {:.3f} s, ratio {:.3f}".format(*pace(args)))
        return
    args.steps = 12 if args.smoke else args.steps
    if args.only == "dense":
        run("dense", round(args.steps * (args.pace or 1.5)), args)
        return
    if args.only:
        balance(run(args.only, args.steps, args, moe_balance=args.only, **EXPERTS), args)
        return
    ratio = args.pace or pace(args)[2]
    found = {rule: balance(run(rule, args.steps, args, moe_balance=rule, **EXPERTS), args) for rule in RULES}
    if not args.no_dense:
        dense = summary(run("dense", round(args.steps * ratio), args))
        found["dense"] = {"loss": dense["validation_loss"], "steps": dense["steps"]}
    body = report(found, ratio=ratio, steps=args.steps, glance=args.glance)
    print(body)
    if not args.smoke:
        data_ = {"runs": found, "pace": ratio}
        _record.write("moe_balance", claim="Loads of experts on held-out text, and experts beside a dense model",
                      body=body, data=data_)  # fmt: skip


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
    main()
