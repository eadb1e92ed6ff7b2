"""A trained U-Net, converted: what is its average worth as it is, fine-tuned, and opened? The table: README.md.

    python benchmarks/finetuning.py --out benchmarks/results/finetuning.jsonl
    python benchmarks/finetuning.py --table benchmarks/results/finetuning.jsonl

A plain U-Net learns on upright crops. Then every candidate has the same processor seconds to go on, on crops that are
turned and mirrored. Rows that the file holds already are not run again. ``--quick`` takes two steps of each on corners
of the sample that comes with the package.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from result_rows import append_row, read_rows
from segmentation_tasks import (
    Task,
    load_task,
    mean_and_range,
    quick_parts,
    read_parts,
    score,
    size_of,
    train,
)
from torch import nn

from gconv_ga import GroupAverage, convert
from gconv_ga.conversion import ConvertedNetwork
from gconv_ga.models import UNet
from gconv_ga.train import Segmenter

TASKS = ("nuclei", "histology")
METHODS = {
    "plain": "the trained network",
    "C4": "converted, as it is",
    "D4": "converted, as it is",
    "plain, further": "upright crops",
    "plain, augmented": "turned and mirrored crops",
    "plain, augmented, averaged at test": "the same weights, average over D4",
    "C4, m=1": "converted, fine-tuned",
    "D4, m=1": "converted, fine-tuned",
    "C4, opened": "converted, all taps, fine-tuned",
}


class TapRates(Segmenter):
    """New taps learn slower, as `ConvertedNetwork.param_groups` says."""

    def configure_optimizers(self) -> Any:
        if not isinstance(self.model, ConvertedNetwork):
            return super().configure_optimizers()
        groups = self.model.param_groups(self.learning_rate)
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        steps, rates = int(self.trainer.estimated_stepping_batches), [group["lr"] for group in groups]
        # The cycle of `Segmenter`: a rise of exactly one step makes torch divide by zero.
        rise = 0.1 if steps != 10 else 0.2
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=rise)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def candidate(method: str, trained: nn.Module, task: Task) -> nn.Module:
    """A copy of the trained network, in the form that goes on learning."""
    model = copy.deepcopy(trained)
    if method.startswith("plain"):
        return model
    net = convert(model, method[:2], task.test.images[:1, :, :24, :20])
    if method.endswith("opened"):
        net.open_taps()
    return net


def seconds_per_step(model: nn.Module, task: Task) -> float:
    """The seconds of one more step, measured on copies."""
    few, more = (train(copy.deepcopy(model), task, steps=steps, seed=0, segmenter=TapRates) for steps in (2, 8))
    return max((more - few) / 6, 1e-3)


def fine_tune(method: str, model: nn.Module, task: Task, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains in place for the budget; what was spent."""
    steps = 2 if args.quick else max(2, round(args.budget / seconds_per_step(model, task)))
    symmetry = None if method == "plain, further" else "D4"
    seconds = train(
        model, task, steps=steps, seed=1000 + seed, symmetry=symmetry, learning_rate=args.fine_lr, segmenter=TapRates
    )
    return {"steps": steps, "train seconds": seconds}


def study(task: Task, seed: int, known: set[str], args: argparse.Namespace) -> None:
    """The methods of one set and seed that are not known yet, all from the same trained network."""
    torch.manual_seed(seed)
    trained = UNet(task.test.images.shape[1], task.kind.classes, width=args.width, depth=3)
    seconds = train(trained, task, steps=args.steps, seed=seed, symmetry=None)
    averaged: nn.Module | None = None
    for method in METHODS:
        if method in known:
            continue
        if method == "plain, augmented, averaged at test" and averaged is None:
            averaged = candidate("plain, augmented", trained, task)
            fine_tune("plain, augmented", averaged, task, seed, args)
        spent: dict[str, Any] = {"steps": args.steps, "train seconds": seconds}
        if method.endswith("averaged at test") and averaged is not None:
            model: nn.Module = GroupAverage(averaged, "D4")
            spent = {"steps": 0, "train seconds": 0.0}
        else:
            model = candidate(method, trained, task)
            if "," in method:
                spent = fine_tune(method, model, task, seed, args)
        if method == "plain, augmented":
            averaged = model
        row = {"task": task.name, "method": method, "seed": seed, "budget": args.budget, "quick": args.quick}
        row |= spent | size_of(model, task) | score(model, task)
        append_row(args.out, row)
        print(
            f"{task.name}, seed {seed}, {method}: Dice {row['dice']:.4f}, turned {row['dice turned']:.4f}", flush=True
        )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, as Markdown, and what each method adds to the trained network on upright images."""
    lines = [
        '| set | network | then | seeds | steps | Dice | over "plain", by seed | turned | changed | test s |',
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task in TASKS:
        there = [row for row in rows if row["task"] == task]
        plain = {row["seed"]: row["dice"] for row in there if row["method"] == "plain"}
        for method, then in METHODS.items():
            found = sorted((row for row in there if row["method"] == method), key=lambda row: row["seed"])
            if not found:
                continue
            gains = ", ".join(f"{row['dice'] - plain[row['seed']]:+.4f}" for row in found)
            steps, changed, seconds = (
                sum(row[key] for row in found) / len(found) for key in ("steps", "changed", "test seconds")
            )
            lines.append(
                f"| {task} | {method} | {then} | {len(found)} | {steps:.0f} | {mean_and_range(found, 'dice', 4)} | "
                f"{gains} | {mean_and_range(found, 'dice turned', 4)} | {100 * changed:.2f} % | {seconds:.1f} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks, and print the table of what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800, help="of the plain network's first training")
    parser.add_argument("--budget", type=float, default=20.0, help="processor seconds of fine-tuning")
    parser.add_argument("--width", type=int, default=8, help="channels of the plain network's finest level")
    parser.add_argument("--fine-lr", type=float, default=3e-3, help="highest learning rate of fine-tuning")
    parser.add_argument("--out", type=Path, help="JSON lines, added to")
    parser.add_argument("--table", type=Path, help="only print the table of this file")
    parser.add_argument("--quick", action="store_true", help="two steps on corners of the package's sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("say --out FILE or --table FILE")
    torch.set_num_threads(1)  # seconds are those of one thread
    if args.quick:
        args.steps = 2
    if args.table is None:
        for seed in range(args.seeds):
            for name in args.tasks:
                rows = read_rows(args.out)
                key = (name, seed, args.budget, args.quick)
                known = {r["method"] for r in rows if (r["task"], r["seed"], r["budget"], r["quick"]) == key}
                if known < METHODS.keys():
                    parts = quick_parts(name) if args.quick else read_parts(name)
                    study(load_task(parts, name, seed=seed, crop=32 if args.quick else 0), seed, known, args)
    rows = [row for row in read_rows(args.table or args.out) if row["quick"] == args.quick]
    print(table([row for row in rows if row["budget"] == args.budget]))
    return rows


if __name__ == "__main__":
    main()
