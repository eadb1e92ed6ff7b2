"""What is enforced symmetry worth when labels are few, at equal multiply-adds and at equal parameters? See README.md.

    nohup python benchmarks/label_efficiency.py --out benchmarks/results/label_efficiency.jsonl &
    python benchmarks/label_efficiency.py --table benchmarks/results/label_efficiency.jsonl

The grid takes hours, begins with what tells most, and goes on where it was stopped: rows that the file holds already
are not run again. ``--quick`` takes twenty steps of each method on corners of the sample that comes with the package.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from label_methods import METHODS
from result_rows import append_row, read_rows
from segmentation_tasks import (
    TASKS,
    Task,
    load_task,
    mean_and_range,
    quick_parts,
    read_parts,
    score,
    size_of,
    train,
)

from gconv_ga import GroupAverage, convert
from gconv_ga.train import start_at_frequencies

ALL = 0  # in place of a number of images
AT_TEST = "plain, augmented, averaged at test"
FIRST = ("plain, augmented", "C4", "D4")
CHEAP = tuple(method for method in METHODS if method not in FIRST and "4 x" not in method)
STAGES = (
    (FIRST, (4, 8)),
    (FIRST, (2, 16, ALL)),
    (CHEAP, (4,)),
    (("plain, augmented, 4 x the multiply-adds", "C4, 4 x the multiply-adds", "D4, 4 x the multiply-adds"), (4, 8)),
    (CHEAP, (8, 16, ALL, 2)),
    (tuple(METHODS), (4, 8, 2, 16, ALL)),
)


def grid(seeds: int) -> Iterator[tuple[str, str, int, int]]:
    """Method, set, images, seed: what tells most comes first."""
    seen = set()
    for methods, counts in STAGES:
        for seed in range(seeds):
            for images in counts:
                for task in TASKS:
                    for method in methods:
                        cell = method, task, images, seed
                        if cell not in seen:
                            seen.add(cell)
                            yield cell


def run(method: str, task: Task, seed: int, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row, and for the augmented network a second: the same weights averaged at test."""
    torch.manual_seed(seed)
    how = METHODS[method]
    model = how.build(task.test.images.shape[1], task.kind.classes, how.width(args.channels))
    if args.head == "frequencies":
        start_at_frequencies(model, task.train.masks)
    arguments = {"seed": seed, "symmetry": how.symmetry}
    seconds = train(model, task, steps=args.steps, learning_rate=args.lr, **arguments)
    if method.startswith("converted"):
        model = convert(model, "C4", task.test.images[:1, :, :24, :20])
        arguments["seed"] = 1000 + seed
        seconds += train(model, task, steps=max(2, args.steps // 3), learning_rate=args.lr / 3, **arguments)
    yield {"method": method, "train seconds": seconds} | size_of(model, task) | score(model, task)
    if method == "plain, augmented" and not args.no_average:
        mean = GroupAverage(model, "D4")
        yield {"method": AT_TEST, "train seconds": seconds} | size_of(mean, task) | score(mean, task)


# --- the tables


def score_table(rows: Sequence[dict[str, Any]], key: str) -> str:
    """Dice or mean IoU on upright images by set, method and number of images."""
    counts = sorted({row["images"] for row in rows}, key=lambda images: images or math.inf)
    title = " | ".join(f"{images or 'all'} images" for images in counts)
    lines = [f"| set | method | {title} |", "|---" * (2 + len(counts)) + "|"]
    for task in TASKS:
        for method in order(rows):
            cells = [select(rows, task=task, method=method, images=images) for images in counts]
            if any(cells):
                texts = (mean_and_range(cell, key) if cell else "-" for cell in cells)
                lines.append(f"| {task} | {method} | {' | '.join(texts)} |")
    return "\n".join(lines)


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    """What a method costs, and what turning does to it, over all its rows."""
    lines = [
        "| method | rows | parameters | multiply-adds a pixel | train s | test s | Dice turned - upright | changed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in order(rows):
        found = select(rows, method=method)
        parameters, adds, training, testing, changed = (
            sum(row[key] for row in found) / len(found)
            for key in ("parameters", "multiply-adds", "train seconds", "test seconds", "changed")
        )
        fall = sum(row["dice turned"] - row["dice"] for row in found) / len(found)
        lines.append(
            f"| {method} | {len(found)} | {parameters:.0f} | {adds:.0f} | {training:.0f} | {testing:.1f} | "
            f"{fall:+.4f} | {100 * changed:.2f} % |"
        )
    return "\n".join(lines)


def gain_table(rows: Sequence[dict[str, Any]], key: str) -> str:
    """The score over that of "plain, augmented", the mean over pairs of one seed: as many labels, and twice as many."""
    lines = ["| method | images | " + " | ".join(TASKS) + " |", "|---" * (2 + len(TASKS)) + "|"]
    for method in order(rows):
        if method == "plain, augmented":
            continue
        for images, other in ((2, 2), (4, 4), (8, 8), (16, 16), (ALL, ALL), (2, 4), (4, 8), (8, 16)):
            texts = []
            for task in TASKS:
                ours = {row["seed"]: row for row in select(rows, task=task, method=method, images=images)}
                theirs = select(rows, task=task, method="plain, augmented", images=other)
                gains = [ours[row["seed"]][key] - row[key] for row in theirs if row["seed"] in ours]
                texts.append(
                    f"{sum(gains) / len(gains):+.3f} ({sum(g > 0 for g in gains)}/{len(gains)})" if gains else "-"
                )
            if any(text != "-" for text in texts):
                name = "all" if images == ALL else str(images)
                lines.append(
                    f"| {method} | {name + (f' against {other}' if other != images else '')} | {' | '.join(texts)} |"
                )
    return "\n".join(lines)


def order(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The methods that there are rows of."""
    there = {row["method"] for row in rows}
    names = list(METHODS)
    return [method for method in (names[0], AT_TEST, *names[1:]) if method in there]


def select(rows: Sequence[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """The rows that agree."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks, and print the tables of what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--images", nargs="+", type=int, help=f"numbers of labelled images, {ALL} for all; default: all of the grid"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--channels", type=int, default=16, help="of the plain network's finest level")
    parser.add_argument(
        "--head", choices=("frequencies", "random"), default="frequencies", help="how the last layer begins"
    )
    parser.add_argument("--hours", type=float, default=math.inf, help="start nothing after so many processor hours")
    parser.add_argument("--out", type=Path, help="JSON lines, added to")
    parser.add_argument("--table", type=Path, help="only print the tables of this file")
    parser.add_argument("--no-average", action="store_true", help="score nothing averaged at test: it takes longest")
    parser.add_argument("--score", choices=("dice", "iou"), default="dice", help="what the tables show")
    parser.add_argument("--quick", action="store_true", help="twenty steps on corners of the package's sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("say --out FILE or --table FILE")
    torch.set_num_threads(1)  # seconds are those of one thread
    if args.quick:
        args.tasks, args.images, args.seeds, args.steps = ["nuclei", "histology"], [2], 1, 20
    setting = {"steps": args.steps, "lr": args.lr, "channels": args.channels, "head": args.head, "quick": args.quick}
    if args.table is None:
        fill(setting, args)
    shown = {*args.methods, *([AT_TEST] if "plain, augmented" in args.methods else [])}
    rows = [
        row
        for row in select(read_rows(args.table or args.out), **setting)
        if row["method"] in shown and (args.images is None or row["images"] in args.images)
    ]
    print("\n\n".join((score_table(rows, args.score), gain_table(rows, args.score), cost_table(rows))))
    return rows


def fill(setting: dict[str, Any], args: argparse.Namespace) -> None:
    """Runs the cells of the grid that the file lacks."""
    cells = [
        cell
        for cell in grid(args.seeds)
        if cell[0] in args.methods and cell[1] in args.tasks and (args.images is None or cell[2] in args.images)
    ]
    known = {(row["method"], row["task"], row["images"], row["seed"]) for row in select(read_rows(args.out), **setting)}
    parts = {name: quick_parts(name) if args.quick else read_parts(name) for name in args.tasks}
    for place, (method, name, images, seed) in enumerate(cells, start=1):
        last = AT_TEST if method == "plain, augmented" and not args.no_average else method
        if (last, name, images, seed) in known:
            continue
        if time.process_time() > 3600 * args.hours:
            break
        task = load_task(parts[name], name, images or None, seed, crop=32 if args.quick else 0)
        for row in run(method, task, seed, args):
            if (row["method"], name, images, seed) in known:
                continue
            row = {"task": name, "images": images, "seed": seed} | setting | row
            append_row(args.out, row)
            text = f"{name}, {images or 'all'} images, seed {seed}, {row['method']}: Dice {row['dice']:.4f}"
            print(f"[{place}/{len(cells)}, {time.process_time() / 3600:.2f} h] {text}", flush=True)


if __name__ == "__main__":
    main()
