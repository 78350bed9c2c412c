"""How evenly the experts of the main job are loaded on held-out text, and whether they pay for their time.

    python benchmarks/moe_balance.py                      # sign and quantile rules, then dense for the same time
    python benchmarks/moe_balance.py --pace 1.5           # a step with experts costs 1.5 dense ones: measured elsewhere
    python benchmarks/moe_balance.py --smoke              # a few steps of each, nothing is recorded

MaxVio is the largest load over the mean load, minus 1, of the loads summed over the whole validation set. Runs that
are finished in --out-dir are kept. Steps are limited, not minutes, so that a busy machine changes nothing; --pace
turns steps into time, and `--pace-only` measures it, on a quiet machine, in alternating steps of both models.
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
from spectrain.nn._balance_rule import Loads
from spectrain.train._language import build_model

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


@torch.no_grad()
def seen(made: train.TrainedRun, tokens: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each layer of experts the loads and the router's scores on all ``tokens``."""
    layers = [module for module in made.model.modules() if isinstance(module, nn.MoE)]
    loads = [torch.zeros(len(layer.bias), dtype=torch.long) for layer in layers]
    scores: list[list[torch.Tensor]] = [[] for _ in layers]

    def watch(i: int):
        def hook(_, __, routing) -> None:
            loads[i] += routing.chosen.sum(dim=0)
            scores[i].append(routing.scores)

        return hook

    handles = [layer.router.register_forward_hook(watch(i)) for i, layer in enumerate(layers)]
    block = made.config.block
    for rows in tokens[: len(tokens) // block * block].view(-1, block).split(16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made.model.features(rows)
    for handle in handles:
        handle.remove()
    return [(load, torch.cat(parts)) for load, parts in zip(loads, scores, strict=True)]


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
        best = (scores + moved).topk(top_k, dim=1).indices
        chosen.append(violation(best.flatten().bincount(minlength=len(bias))))
    return chosen[0], chosen[1]


def balance(folder: Path, tokens: torch.Tensor | None, args: argparse.Namespace) -> tuple[dict, torch.Tensor]:
    """What the checkpoints of a run do with the held-out tokens."""
    made = train.load_run(folder)
    tokens = held_out(made) if tokens is None else tokens
    tokens = tokens[: 4096 if args.smoke else args.tokens]
    steps, violations, bins = [], [], []
    for checkpoint in sorted((folder / "checkpoints").glob("step-*"))[-args.checkpoints :]:
        safetensors.torch.load_model(made.model, str(checkpoint / "model.safetensors"))
        layers = seen(made, tokens)
        steps.append(int(checkpoint.name.split("-")[1]))
        violations.append([violation(loads) for loads, _ in layers])
        routed = [m for m in made.model.modules() if isinstance(m, nn.MoE)]
        bins.append([by_bins(s, m.bias, top_k=m.router.top_k) for (_, s), m in zip(layers, routed, strict=True)])
        print(folder.name, steps[-1], violations[-1], bins[-1], flush=True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    each = [row["moe_max_violation"] for row in rows if row["kind"] == "step" and row["step"] > 10]
    return {
        "steps": steps,
        "violations": violations,
        "bins": bins,
        "mean_of_steps": statistics.fmean(each or [0.0]),
        "loss": summary(folder)["validation_loss"],
    }, tokens


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
    parser.add_argument("--only", choices=("sign", "quantile", "dense"), help="train this run and stop")
    parser.add_argument("--checkpoints", type=int, default=6, help="of each run, the last ones, that are measured")
    parser.add_argument("--tokens", type=int, help="of the held-out text, at most; default: all")
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
        run(args.only, args.steps, args, moe_balance=args.only, **EXPERTS)
        return
    ratio = args.pace or pace(args)[2]
    found, tokens = {}, None
    for rule in ("sign", "quantile"):
        found[rule], tokens = balance(run(rule, args.steps, args, moe_balance=rule, **EXPERTS), tokens, args)
    assert tokens is not None
    if not args.no_dense:
        dense = summary(run("dense", round(args.steps * ratio), args))
        found["dense"] = {"loss": dense["validation_loss"], "steps": dense["steps"]}
    print(report(found, tokens=len(tokens), ratio=ratio, steps=args.steps))
    if not args.smoke:
        data_ = {"runs": found, "tokens": len(tokens), "pace": ratio}
        body = report(found, tokens=len(tokens), ratio=ratio, steps=args.steps)
        _record.write("moe_balance", claim="Loads of experts on held-out text, and experts beside a dense model",
                      body=body, data=data_)  # fmt: skip


def report(found: dict, *, tokens: int, ratio: float, steps: int) -> str:
    """The record in words and tables."""
    rows = []
    for rule in ("sign", "quantile"):
        run_ = found[rule]
        for step, layers in zip(run_["steps"], run_["violations"], strict=True):
            rows.append((rule, step, *(f"{v:.3f}" for v in layers), f"{max(layers):.3f}"))
    depth = len(found["sign"]["violations"][0])
    table = _record.table(("rule", "step", *(f"layer {i}" for i in range(depth)), "largest"), rows)
    means = {
        rule: statistics.fmean(max(v) for s, v in zip(found[rule]["steps"], found[rule]["violations"], strict=True)
                               if s > 10)
        for rule in ("sign", "quantile")
    }  # fmt: skip
    apart = max(abs(a - b) for run_ in (found["sign"], found["quantile"]) for row in run_["bins"] for a, b in row)
    return (
        f"MaxVio of the loads summed over {tokens:,} held-out tokens, at the checkpoints of a run of {steps} steps.\n\n"
        f"{table}\n\n"
        f"- Sign rule at the end: {max(found['sign']['violations'][-1]):.3f} (asked: at most 0.04).\n"
        f"- Mean over the checkpoints after step 10: sign {means['sign']:.3f}, quantile {means['quantile']:.3f}.\n"
        f"- Mean over single training steps after the tenth, the worst layer of each: sign "
        f"{found['sign']['mean_of_steps']:.3f}, quantile {found['quantile']['mean_of_steps']:.3f}.\n"
        f"- Histogram against exact quantile on the routers' scores: MaxVio at most {apart:.4f} apart (asked: 0.02).\n"
        f"- A step with MLA and experts takes the time of {ratio:.2f} dense ones.\n"
        f"- Loss on all held-out text after {steps} steps: sign {found['sign']['loss']:.4f}, quantile "
        f"{found['quantile']['loss']:.4f}.\n"
        + (
            f"- Dense, in the same time, {found['dense']['steps']} steps: {found['dense']['loss']:.4f}.\n"
            if "dense" in found
            else "- The dense run of the same time was left out.\n"
        )
    )


if __name__ == "__main__":
    main()
