"""Measure the value of built-in symmetry with few labels, compute-matched and parameter-matched. See README.md.

    nohup python benchmarks/label_efficiency.py --out benchmarks/results/label_efficiency.jsonl &
    python benchmarks/label_efficiency.py --table benchmarks/results/label_efficiency.jsonl

The grid takes hours and starts with the most informative runs. An interrupted run is continued: rows that the file
already contains are not computed again. ``--quick`` takes twenty steps of each method on corners of the bundled sample.
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
from result_tables import markdown_table, mean_of, range_cells
from segmentation_tasks import TASKS, Task, load_task, quick_parts, read_parts, score, size_of, train

from gconv_ga import GroupAverage, convert
from gconv_ga.train import start_at_frequencies

ALL = 0  # stands for all training images in place of a number of images
BASELINE = "plain, augmented"
AT_TEST = "plain, augmented, averaged at test"
FIRST = (BASELINE, "C4", "D4")
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
    """Yield (method, set, images, seed), the most informative runs first."""
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
    """Train and yield one row, and for the augmented baseline a second one: the same weights averaged at test."""
    torch.manual_seed(seed)
    spec = METHODS[method]
    model = spec.build(task.test.images.shape[1], task.kind.classes, spec.width(args.channels))
    if args.head == "frequencies":
        start_at_frequencies(model, task.train.masks)
    arguments = {"seed": seed, "symmetry": spec.symmetry}
    seconds = train(model, task, steps=args.steps, learning_rate=args.lr, **arguments)
    if method.startswith("converted"):
        model = convert(model, "C4", task.test.images[:1, :, :24, :20])
        arguments["seed"] = 1000 + seed
        seconds += train(model, task, steps=max(2, args.steps // 3), learning_rate=args.lr / 3, **arguments)
    yield {"method": method, "train seconds": seconds} | size_of(model, task) | score(model, task)
    if method == BASELINE and not args.no_average:
        average = GroupAverage(model, "D4")
        yield {"method": AT_TEST, "train seconds": seconds} | size_of(average, task) | score(average, task)


# --- tables


def score_tables(rows: Sequence[dict[str, Any]], key: str) -> Iterator[str]:
    """Format Dice or mean IoU on upright images by set, method and number of images: means, then lowest and highest.

    A mean over fewer seeds than most is followed by their number, since it cannot be compared with the others.
    """
    counts = sorted({row["images"] for row in rows}, key=lambda images: images or math.inf)
    names = [f"{images or 'all'} images" for images in counts]
    most = max((row["seed"] for row in rows), default=0) + 1
    means, ranges = [], []
    for task in TASKS:
        for method in methods_in(rows):
            cells = [select(rows, task=task, method=method, images=images) for images in counts]
            if any(cells):
                texts = [f"{mean_of(cell, key):.3f}" if cell else "-" for cell in cells]
                few = [f" ({len(cell)} of {most})" if 0 < len(cell) < most else "" for cell in cells]
                means.append([task, method, *map("".join, zip(texts, few, strict=True))])
            if any(len(cell) > 1 for cell in cells):
                seeds = [cell if len(cell) > 1 else [] for cell in cells]
                ranges.append([task, method, *(text for cell in seeds for text in range_cells(cell, key, 3))])
    yield markdown_table(["set", "method", *names], means)
    ends = [f"{name}, {end}" for name in names for end in ("lowest", "highest")]
    yield markdown_table(["set", "method", *ends], ranges)


def gain_table(rows: Sequence[dict[str, Any]], key: str) -> str:
    """Format the mean gain over the augmented baseline, with as many labels as the baseline and with half as many.

    Pairs have the same seed. The column after a gain has the number of pairs in which it is positive.
    """
    lines = []
    for method in methods_in(rows):
        if method == BASELINE:
            continue
        for images, other in ((2, 2), (4, 4), (8, 8), (16, 16), (ALL, ALL), (2, 4), (4, 8), (8, 16)):
            cells = []
            for task in TASKS:
                ours = {row["seed"]: row for row in select(rows, task=task, method=method, images=images)}
                theirs = select(rows, task=task, method=BASELINE, images=other)
                gains = [ours[row["seed"]][key] - row[key] for row in theirs if row["seed"] in ours]
                positive = sum(gain > 0 for gain in gains)
                cells += [f"{sum(gains) / len(gains):+.3f}", f"{positive}/{len(gains)}"] if gains else ["-", "-"]
            if any(cell != "-" for cell in cells):
                name = "all" if images == ALL else str(images)
                lines.append([method, name if other == images else f"{name} against {other}", *cells])
    titles = [title for task in TASKS for title in (task, "ahead")]
    return markdown_table(["method", "images", *titles], lines)


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the cost of each method and the effect of rotating the test images, means over all its rows."""
    lines = []
    for method in methods_in(rows):
        found = select(rows, method=method)
        loss = sum(row["dice turned"] - row["dice"] for row in found) / len(found)
        forms = {"parameters": 0, "multiply-adds": 0, "train seconds": 0, "test seconds": 1}
        costs = [f"{mean_of(found, key):.{digits}f}" for key, digits in forms.items()]
        lines.append([method, len(found), *costs, f"{loss:+.4f}", f"{100 * mean_of(found, 'changed'):.2f} %"])
    titles = ["method", "runs", "parameters", "multiply-adds per pixel", "train s", "test s"]
    return markdown_table([*titles, "Dice, rotated - upright", "changed"], lines)


def methods_in(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the methods that occur in the rows, in a fixed order."""
    present = {row["method"] for row in rows}
    first, *others = METHODS
    return [method for method in (first, AT_TEST, *others) if method in present]


def select(rows: Sequence[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """Return the rows with the given values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks and print the tables of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--images",
        nargs="+",
        type=int,
        help=f"numbers of labelled images, {ALL} for all images (default: the whole grid)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--lr", type=float, default=1e-2, help="learning rate")
    parser.add_argument("--channels", type=int, default=16, help="channels of the baseline at the finest level")
    parser.add_argument(
        "--head", choices=("frequencies", "random"), default="frequencies", help="initial bias of the head"
    )
    parser.add_argument("--hours", type=float, default=math.inf, help="start no run after this many processor hours")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    parser.add_argument("--no-average", action="store_true", help="skip averaging at test, the slowest to score")
    parser.add_argument("--score", choices=("dice", "iou"), default="dice", help="score shown in the tables")
    parser.add_argument("--quick", action="store_true", help="twenty steps on small crops of the bundled sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("give --out FILE or --table FILE")
    torch.set_num_threads(1)  # times are those of one thread
    if args.quick:
        args.tasks, args.images, args.seeds, args.steps = ["nuclei", "histology"], [2], 1, 20
    setting = {"steps": args.steps, "lr": args.lr, "channels": args.channels, "head": args.head, "quick": args.quick}
    if args.table is None:
        fill(setting, args)
    shown = {*args.methods, *([AT_TEST] if BASELINE in args.methods else [])}
    rows = [
        row
        for row in select(read_rows(args.table or args.out), **setting)
        if row["method"] in shown and (args.images is None or row["images"] in args.images)
    ]
    print(*score_tables(rows, args.score), gain_table(rows, args.score), cost_table(rows), sep="\n\n")
    return rows


def fill(setting: dict[str, Any], args: argparse.Namespace) -> None:
    """Run the cells of the grid that the file lacks, and append their rows."""
    cells = [
        cell
        for cell in grid(args.seeds)
        if cell[0] in args.methods and cell[1] in args.tasks and (args.images is None or cell[2] in args.images)
    ]
    known = {(row["method"], row["task"], row["images"], row["seed"]) for row in select(read_rows(args.out), **setting)}
    parts = {name: quick_parts(name) if args.quick else read_parts(name) for name in args.tasks}
    for number, (method, name, images, seed) in enumerate(cells, start=1):
        last = AT_TEST if method == BASELINE and not args.no_average else method
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
            print(f"[{number}/{len(cells)}, {time.process_time() / 3600:.2f} h] {text}", flush=True)


if __name__ == "__main__":
    main()
