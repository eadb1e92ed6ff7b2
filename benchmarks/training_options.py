"""Measure what options of training are worth: augmentation, balance of rare classes, weight of boundaries.

    nohup python benchmarks/training_options.py --out benchmarks/results/training_options.jsonl &
    python benchmarks/training_options.py --table benchmarks/results/training_options.jsonl

Each option is compared with the same training without it, on four sets, with 8 labelled images, and a C4 U-Net that
does as many multiply-adds as a plain one of 16 channels. An interrupted run is continued: rows that the file already
contains are not computed again. ``--quick`` takes twenty steps on corners of the bundled sample. See README.md.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from label_efficiency import select
from label_methods import METHODS
from result_rows import append_row, read_rows
from result_tables import markdown_table, mean_of
from segmentation_tasks import TASKS, Task, load_task, quick_parts, read_parts

from gconv_ga.evaluate import dice
from gconv_ga.images import Changes, CropStream, RandomChanges, rare_places
from gconv_ga.predict import predict_labels
from gconv_ga.train import CrossEntropyDice, Segmenter, class_weights, fit, start_at_frequencies


@dataclass(frozen=True)
class Option:
    """Settings of a training, named as in `RunConfig`."""

    augment: str = "none"
    balance: str = "none"
    boundary: float = 0.0


OPTIONS = {
    "none": Option(),
    "augment light": Option(augment="light"),
    "balance crops": Option(balance="crops"),
    "boundary 2": Option(boundary=2.0),
    "balance weights": Option(balance="weights"),
    "augment strong": Option(augment="strong"),
    "augment scale": Option(augment="scale"),
    "augment elastic": Option(augment="elastic"),
    "augment color,contrast": Option(augment="color,contrast"),
    "augment blur,noise": Option(augment="blur,noise"),
}
OTHER_MICROSCOPE = Changes(color=25.0, contrast=0.4, blur=2.0, noise=0.25)  # as of "strong", without those of shape
SCORES = {"dice": "Dice", "rare": "Dice, rarest class", "changed": "Dice, changed images"}


def train(task: Task, option: Option, *, width: int, steps: int, seed: int) -> tuple[torch.nn.Module, float]:
    """Train a network and return it, with the seconds it took."""
    start = time.process_time()
    classes, masks = task.kind.classes, task.train.masks
    torch.manual_seed(seed)
    model = METHODS["C4"].build(task.train.images.shape[1], classes, METHODS["C4"].width(width))
    start_at_frequencies(model, masks)
    stream = CropStream(
        task.train, length=steps * task.kind.batch, crop=task.kind.crop, symmetry="D4", seed=seed, ignore_index=-1,
        augment=option.augment, places=rare_places(task.train) if option.balance == "crops" else None,
    )  # fmt: skip
    weights = class_weights(masks, classes) if option.balance == "weights" else None
    loss = CrossEntropyDice(-1, class_weights=weights, boundary=option.boundary)
    fit(Segmenter(model, loss=loss), stream, batch_size=task.kind.batch, seed=seed)
    return model.eval(), time.process_time() - start


def score(model: torch.nn.Module, task: Task) -> dict[str, float]:
    """Compute Dice on the test images, of the rarest class alone, and on test images with random changes.

    The changes are the same for every network: colour, contrast, blur and noise of the option "strong".
    """
    classes, masks = task.kind.classes, task.test.masks
    with torch.random.fork_rng():
        torch.manual_seed(0)
        change = RandomChanges(OTHER_MICROSCOPE)
        others = torch.stack([change(*pair)[0] for pair in zip(task.test.images, masks, strict=True)])
    labels, labels_there = (predict_labels(model, images, batch_size=1) for images in (task.test.images, others))
    rarest = int(task.train.masks.flatten().bincount(minlength=classes).argmin())
    return {
        "dice": dice(labels, masks, classes=classes),
        "rare": dice((labels == rarest).long(), (masks == rarest).long(), classes=2),
        "changed": dice(labels_there, masks, classes=classes),
    }


def tables(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Format each score: the mean over seeds without options, and for each option the mean difference to it."""
    sets = [name for name in TASKS if select(rows, task=name)]
    for key, title in SCORES.items():
        lines = []
        for option in OPTIONS:
            cells: list[float] = []
            for name in sets:
                cell = select(rows, task=name, option=option)
                seeds = {row["seed"] for row in cell}
                base = [row for row in select(rows, task=name, option="none") if row["seed"] in seeds]
                if cell and base:
                    cells.append(mean_of(cell, key) - (0.0 if option == "none" else mean_of(base, key)))
            seeds = len({row["seed"] for row in select(rows, option=option)})
            if len(cells) == len(sets):
                form = ".3f" if option == "none" else "+.3f"
                lines.append([option, seeds, *(f"{value:{form}}" for value in [*cells, sum(cells) / len(cells)])])
        yield f"{title}:\n\n" + markdown_table(["option", "seeds", *sets, "mean"], lines)
    lines = []
    for option in OPTIONS:
        ratios = [
            row["train seconds"] / base["train seconds"]
            for row in select(rows, option=option)
            for base in select(rows, option="none", task=row["task"], seed=row["seed"])
        ]
        if ratios:
            lines.append([option, f"{sum(ratios) / len(ratios):.2f}"])
    yield "Time of training, relative to that without options:\n\n" + markdown_table(["option", "time"], lines)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks and print the tables of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--images", type=int, default=8, help="labelled images")
    parser.add_argument("--channels", type=int, default=16, help="channels of the baseline at the finest level")
    parser.add_argument("--most", type=int, help="number of runs after which to stop")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    parser.add_argument("--quick", action="store_true", help="twenty steps on small crops of the bundled sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("give --out FILE or --table FILE")
    torch.set_num_threads(1)
    if args.quick:
        args.tasks, args.images, args.seeds, args.steps, args.channels = ["histology"], 2, 1, 20, 8
    setting = {"steps": args.steps, "images": args.images, "channels": args.channels, "quick": args.quick}
    if args.table is None:
        fill(setting, args)
    rows = [row for row in select(read_rows(args.table or args.out), **setting) if row["option"] in args.options]
    print(*tables(rows), sep="\n\n")
    return rows


def fill(setting: dict[str, Any], args: argparse.Namespace) -> None:
    """Run the cells of the grid that the file lacks, and append their rows."""
    cells = [(seed, option, name) for seed in range(args.seeds) for option in args.options for name in args.tasks]
    known = {(row["seed"], row["option"], row["task"]) for row in select(read_rows(args.out), **setting)}
    missing = [cell for cell in cells if cell not in known][: args.most]
    parts = {name: quick_parts(name) if args.quick else read_parts(name) for name in {name for *_, name in missing}}
    for seed, option, name in missing:
        task = load_task(parts[name], name, args.images, seed=seed, crop=32 if args.quick else 0)
        model, seconds = train(task, OPTIONS[option], width=args.channels, steps=args.steps, seed=seed)
        row = {"task": name, "option": option, "seed": seed} | setting | {"train seconds": seconds}
        append_row(args.out, row | score(model, task))
        print(f"{name}, {option}, seed {seed}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
