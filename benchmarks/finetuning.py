"""Measure what converting a trained U-Net gains: as converted, fine-tuned, and with all taps. See README.md.

    python benchmarks/finetuning.py --out benchmarks/results/finetuning.jsonl
    python benchmarks/finetuning.py --table benchmarks/results/finetuning.jsonl

A U-Net is trained on upright crops. Each candidate then continues for the same processor time, on rotated and reflected
crops. Rows that the file already contains are not computed again. ``--quick`` takes two steps of each candidate on
corners of the bundled sample.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from result_rows import append_row, read_rows
from result_tables import markdown_table, mean_of, range_cells
from segmentation_tasks import Task, load_task, quick_parts, read_parts, score, size_of, train
from torch import nn

from gconv_ga import GroupAverage, convert
from gconv_ga.conversion import ConvertedNetwork
from gconv_ga.models import UNet
from gconv_ga.train import Segmenter

TASKS = ("nuclei", "histology")
# Training after the first stage, by method.
METHODS = {
    "plain": "the trained network",
    "C4": "converted, not trained further",
    "D4": "converted, not trained further",
    "plain, further": "upright crops",
    "plain, augmented": "rotated and reflected crops",
    "plain, augmented, averaged at test": "the same weights, averaged over D4",
    "C4, m=1": "converted, fine-tuned",
    "D4, m=1": "converted, fine-tuned",
    "C4, opened": "converted, all taps, fine-tuned",
}


class TapRates(Segmenter):
    """Lightning module that trains new taps at the lower rate of `ConvertedNetwork.param_groups`."""

    def configure_optimizers(self) -> Any:
        if not isinstance(self.model, ConvertedNetwork):
            return super().configure_optimizers()
        groups = self.model.param_groups(self.learning_rate)
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        steps, rates = int(self.trainer.estimated_stepping_batches), [group["lr"] for group in groups]
        # The cycle of `Segmenter`. With a warm-up of exactly one step torch would divide by zero.
        warm_up = 0.1 if steps != 10 else 0.2
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=warm_up)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def candidate(method: str, trained: nn.Module, task: Task) -> nn.Module:
    """Return a copy of the trained network in the form that the method trains further."""
    model = copy.deepcopy(trained)
    if method.startswith("plain"):
        return model
    net = convert(model, method[:2], task.test.images[:1, :, :24, :20])
    if method.endswith("opened"):
        net.open_taps()
    return net


def seconds_per_step(model: nn.Module, task: Task) -> float:
    """Measure the seconds per training step, on copies of the model."""
    two_steps, eight_steps = (
        train(copy.deepcopy(model), task, steps=steps, seed=0, segmenter=TapRates) for steps in (2, 8)
    )
    return max((eight_steps - two_steps) / 6, 1e-3)


def fine_tune(method: str, model: nn.Module, task: Task, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train a model in place within the budget, and return the steps and seconds spent."""
    steps = 2 if args.quick else max(2, round(args.budget / seconds_per_step(model, task)))
    symmetry = None if method == "plain, further" else "D4"
    seconds = train(
        model, task, steps=steps, seed=1000 + seed, symmetry=symmetry, learning_rate=args.fine_lr, segmenter=TapRates
    )
    return {"steps": steps, "train seconds": seconds}


def study(task: Task, seed: int, known: set[str], args: argparse.Namespace) -> None:
    """Run the missing methods of one set and seed, all starting from the same trained network."""
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
            f"{task.name}, seed {seed}, {method}: Dice {row['dice']:.4f}, rotated {row['dice turned']:.4f}", flush=True
        )


def by_task_and_method(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group the rows by set and method, in a fixed order and each group by seed; leave out methods no longer run."""
    cells = {(task, method): [] for task in TASKS for method in METHODS}
    for row in sorted(rows, key=lambda row: row["seed"]):
        if (cell := (row["task"], row["method"])) in cells:
            cells[cell].append(row)
    return {cell: found for cell, found in cells.items() if found}


def mean_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the means over seeds, one line per set and method."""
    lines = []
    for (task, method), found in by_task_and_method(rows).items():
        scores = [f"{mean_of(found, key):.4f}" for key in ("dice", "dice turned")]
        changed, seconds = f"{100 * mean_of(found, 'changed'):.2f} %", f"{mean_of(found, 'test seconds'):.1f}"
        steps = f"{mean_of(found, 'steps'):.0f}"
        lines.append([task, method, METHODS[method], len(found), steps, *scores, changed, seconds])
    titles = ["set", "network", "training", "seeds", "steps", "Dice, upright", "Dice, rotated", "changed", "test s"]
    return markdown_table(titles, lines)


def seed_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the ranges over seeds, and for each seed the gain in upright Dice over the trained network."""
    seeds = sorted({row["seed"] for row in rows})
    plain = {(row["task"], row["seed"]): row["dice"] for row in rows if row["method"] == "plain"}
    lines = []
    for (task, method), found in by_task_and_method(rows).items():
        ranges = [cell for key in ("dice", "dice turned") for cell in range_cells(found, key, 4)]
        gains = {row["seed"]: f"{row['dice'] - plain[task, row['seed']]:+.4f}" for row in found}
        lines.append([task, method, *ranges, *(gains.get(seed, "-") for seed in seeds)])
    titles = ["upright, lowest", "highest", "rotated, lowest", "highest", *(f"gain, seed {seed}" for seed in seeds)]
    return markdown_table(["set", "network", *titles], lines)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks and print the tables of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--steps", type=int, default=800, help="training steps of the baseline")
    parser.add_argument("--budget", type=float, default=20.0, help="processor seconds of fine-tuning")
    parser.add_argument("--width", type=int, default=8, help="channels of the baseline at the finest level")
    parser.add_argument("--fine-lr", type=float, default=3e-3, help="highest learning rate of fine-tuning")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    parser.add_argument("--quick", action="store_true", help="two steps on small crops of the bundled sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("give --out FILE or --table FILE")
    torch.set_num_threads(1)  # times are those of one thread
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
    shown = [row for row in rows if row["budget"] == args.budget]
    print(mean_table(shown), seed_table(shown), sep="\n\n")
    return rows


if __name__ == "__main__":
    main()
