"""Count the pixels that change their object when an image is rotated or reflected, on all test images. See README.md.

    nohup python benchmarks/objects_exact.py --out benchmarks/results/objects_exact.jsonl &
    python benchmarks/objects_exact.py --table benchmarks/results/objects_exact.jsonl

On each of four sets a C4, a D4 and a plain U-Net are trained briefly. The bias of the background is then set so that
the share of foreground pixels is the true one: there are objects to compare even where so short a training finds none.
Objects are found in every test image as it is and moved by each element of C4 or D4, the image whole or in tiles.
An interrupted run is continued. ``--quick`` takes corners of the bundled sample.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from label_efficiency import select
from label_methods import METHODS
from result_rows import append_row, read_rows
from result_tables import markdown_table
from segmentation_tasks import TASKS, Task, load_task, quick_parts, read_parts, train
from torch import nn

from gconv_ga.actions import LabelMask, ScalarField
from gconv_ga.groups import as_group
from gconv_ga.objects import changed_objects
from gconv_ga.predict import predict_objects
from gconv_ga.train import start_at_frequencies

GROUPS = {"C4": "C4", "D4": "D4", "plain, augmented": "C4"}  # the elements by which images are moved


def balance(model: nn.Module, task: Task) -> None:
    """Shift the bias of the background so that as many pixels are foreground as in the masks."""
    with torch.no_grad():
        logits = [model(image[None])[0] for image in task.test.images]
        lead = torch.cat([(each[1:].amax(dim=0) - each[0]).flatten() for each in logits])
        share = float((task.test.masks > 0).double().mean())
        rank = max(1, round((1 - share) * len(lead)))
        model.get_submodule("segmentation_head").bias[0] += lead.kthvalue(rank).values


def count(model: nn.Module, task: Task, group: str, tile: int) -> dict[str, Any]:
    """Count objects, and the pixels in another object after a move, in all test images and over all moves."""
    moves, objects, comparisons, moved_pixels, changed_images = as_group(group), 0, 0, 0, 0
    for image in task.test.images:
        labels = predict_objects(model, image, tile=tile).objects.labels
        objects += int(labels.max())
        before = moved_pixels
        for element in range(1, moves.order):
            there = predict_objects(model, ScalarField()(image, moves, element), tile=tile).objects.labels
            of_either = ((LabelMask()(labels, moves, element) > 0) | (there > 0)).sum()
            moved_pixels += round(changed_objects(labels, there, moves, element).pixels * int(of_either))
            comparisons += 1
        changed_images += moved_pixels > before
    if not objects:
        raise SystemExit("no objects are predicted in the test images, to be compared; train longer (--steps)")
    return {
        "images": len(task.test.images), "objects": objects, "comparisons": comparisons,
        "moved pixels": moved_pixels, "changed images": changed_images,
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the counts."""
    titles = ["images", "objects", "comparisons", "moved pixels", "changed images"]
    lines = [
        [name, method, "in tiles" if tiled else "whole", *(row[title] for title in titles)]
        for name in TASKS
        for method in GROUPS
        for tiled in (False, True)
        for row in select(rows, task=name, method=method, tiled=tiled)
    ]
    return markdown_table(["set", "network", "image", *titles], lines)


def cells(args: argparse.Namespace) -> Iterator[tuple[str, str, bool]]:
    """Yield what is to be counted, by set and network."""
    for name in args.tasks:
        for method in args.methods:
            for tiled in (False,) if args.whole else (False, True):
                yield name, method, tiled


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Count what the file lacks and print the table of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--whole", action="store_true", help="leave out the images in tiles")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--channels", type=int, default=8, help="channels of the plain network at the finest level")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the table of this file and run nothing")
    parser.add_argument("--quick", action="store_true", help="four steps on small corners of the bundled sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("give --out FILE or --table FILE")
    torch.set_num_threads(1)
    if args.quick:
        args.tasks, args.steps = ["histology"], 4
    setting = {"steps": args.steps, "channels": args.channels, "quick": args.quick}
    if args.table is None:
        fill(setting, args)
    rows = select(read_rows(args.table or args.out), **setting)
    print(table(rows))
    return rows


def fill(setting: dict[str, Any], args: argparse.Namespace) -> None:
    """Count what the file lacks, and append the rows."""
    known = {(row["task"], row["method"], row["tiled"]) for row in select(read_rows(args.out), **setting)}
    missing = [cell for cell in cells(args) if cell not in known]
    tasks: dict[str, Task] = {}
    models: dict[tuple[str, str], nn.Module] = {}
    for name, method, tiled in missing:
        if name not in tasks:
            parts = quick_parts(name) if args.quick else read_parts(name)
            tasks = {name: load_task(parts, name, crop=32 if args.quick else 0)}
        task = tasks[name]
        if (name, method) not in models:
            torch.manual_seed(0)
            channels, classes = task.test.images.shape[1], task.kind.classes
            model = METHODS[method].build(channels, classes, METHODS[method].width(args.channels))
            start_at_frequencies(model, task.train.masks)
            train(model, task, steps=args.steps, seed=0)
            balance(model.eval(), task)
            models = {(name, method): model}
        side = max(task.test.images.shape[-2:])
        row = {"task": name, "method": method, "tiled": tiled} | setting
        row |= count(models[name, method], task, GROUPS[method], side // 2 if tiled else side)
        append_row(args.out, row)
        print(f"{name}, {method}, {'in tiles' if tiled else 'whole'}: {row['moved pixels']} moved pixels", flush=True)


if __name__ == "__main__":
    main()
