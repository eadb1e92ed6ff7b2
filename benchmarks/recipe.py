"""Compare settings of a training around a base that differs from the defaults of ``gconv-ga train`` in its steps alone.

    nohup python benchmarks/recipe.py --out benchmarks/results/recipe.jsonl &
    python benchmarks/recipe.py --table benchmarks/results/recipe.jsonl

Each option changes one setting. An interrupted call is continued: rows that the file already contains are not computed
again. ``--quick`` takes ten steps on corners of the bundled sample. See README.md.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from result_rows import append_row, missing, read_rows
from result_tables import markdown_table
from segmentation_tasks import TASKS, quick_parts, read_parts
from study_training import VALIDATION, Selection, draw
from torch import nn

from gconv_ga.evaluate import dice
from gconv_ga.images import CropStream, Split
from gconv_ga.models import EquivariantUNet
from gconv_ga.predict import predict_labels
from gconv_ga.train import Segmenter, fit, start_at_frequencies

IMAGES = 8  # for training; four more are for validation
VALIDATED = 10  # times in a training
Row = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """Settings of a training, named as options of ``gconv-ga train``; a crop is at most an image's smallest side."""

    depth: int = 4
    crop: int = 128
    batch: int = 8
    steps: int = 300
    rate: float = 1e-2
    decay: float = 1e-2


BASE = "base"
OPTIONS = {
    BASE: Recipe(),
    "depth 3": Recipe(depth=3),
    "depth 5": Recipe(depth=5),
    "crop 64": Recipe(crop=64),
    "crop 64, batch 32": Recipe(crop=64, batch=32),
    "steps 100": Recipe(steps=100),
    "steps 1000": Recipe(steps=1000),
    "rate 0.003": Recipe(rate=3e-3),
    "rate 0.03": Recipe(rate=3e-2),
    "decay 0.1": Recipe(decay=1e-1),
}
QUICK = Recipe(depth=2, crop=32, batch=2, steps=10)


def run(name: str, recipe: Recipe, seed: int, *, quick: bool) -> Row:
    """Train a C8 network of 32 channels, and return its scores on the test images.

    They are of the last weights, and of those that ``gconv-ga train`` keeps as its best: the ones with the best
    validation score of the second half.
    """
    parts = quick_parts(name) if quick else read_parts(name)
    drawn = draw(parts, name, 2 if quick else IMAGES, seed, validation=1 if quick else VALIDATION)
    task, classes = drawn.task, drawn.task.kind.classes
    torch.manual_seed(seed)
    channels, *sides = task.train.images.shape[1:]
    model = EquivariantUNet(channels, classes, group="C8", width=4, depth=recipe.depth)
    start_at_frequencies(model, task.train.masks)

    def score(network: nn.Module, split: Split) -> float:
        return dice(predict_labels(network, split.images, batch_size=1), split.masks, classes=classes)

    def validated(network: nn.Module) -> float:
        early = len(selection.scores) + 1 <= VALIDATED // 2
        return 0.0 if early else score(network, drawn.validation)

    selection = Selection(validated, every=recipe.steps // VALIDATED)
    length, crop = recipe.steps * recipe.batch, min(recipe.crop, *sides)
    stream = CropStream(task.train, length=length, crop=crop, symmetry="D4", seed=seed)
    segmenter = Segmenter(model, learning_rate=recipe.rate, weight_decay=recipe.decay)
    start = time.process_time()
    fit(segmenter, stream, batch_size=recipe.batch, seed=seed, callbacks=[selection])
    seconds = time.process_time() - start - selection.seconds
    last = score(model, task.test)
    model.load_state_dict(selection.weights)
    return {"seconds": round(seconds, 1), "last": round(last, 6), "kept": round(score(model, task.test), 6)}


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """Format the Dice of the base, and what each option gains over the base of the same set and seed."""
    by_cell = {(row["option"], row["task"], row["seed"]): row for row in rows}
    for score, title in (("kept", "Kept weights"), ("last", "Last weights")):
        lines = []
        for option in OPTIONS:
            pairs = {
                (task, seed): (row, by_cell[BASE, task, seed])
                for (name, task, seed), row in by_cell.items()
                if name == option and (BASE, task, seed) in by_cell
            }
            if not pairs:
                continue
            gains = {cell: row[score] - (option != BASE) * base[score] for cell, (row, base) in pairs.items()}
            form = ".3f" if option == BASE else "+.3f"
            own = {task: [gain for cell, gain in gains.items() if cell[0] == task] for task in TASKS}
            cells = [f"{statistics.fmean(values):{form}}" if values else "-" for values in own.values()]
            ahead = "-" if option == BASE else f"{sum(gain > 0 for gain in gains.values())}/{len(gains)}"
            ratio = statistics.fmean(row["seconds"] / base["seconds"] for row, base in pairs.values())
            ends = [f"{value:{form}}" for value in (min(gains.values()), max(gains.values()))]
            lines.append([option, *cells, *ends, ahead, f"{ratio:.2f}"])
        yield f"{title}:\n\n" + markdown_table(["option", *TASKS, "lowest", "highest", "ahead", "time"], lines)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run what the file lacks and print the tables of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["histology", "bloodcells"])
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    parser.add_argument("--quick", action="store_true", help="ten steps on small crops of the bundled sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("--out or --table is needed")
    if args.table is None:
        torch.set_num_threads(1)  # times are those of one thread
        recipes = dict.fromkeys(OPTIONS, QUICK) if args.quick else OPTIONS
        cells = (
            {"task": task, "option": option, "seed": seed, "quick": args.quick} | asdict(recipes[option])
            for seed, option, task in itertools.product(range(args.seeds), args.options, args.tasks)
        )
        for cell in missing(args.out, cells):
            row = run(cell["task"], recipes[cell["option"]], cell["seed"], quick=args.quick)
            append_row(args.out, cell | row)
            print(cell["task"], cell["option"], cell["seed"], row, flush=True)
    rows = [row for row in read_rows(args.table or args.out) if row["quick"] == args.quick]
    print(*tables(rows), sep="\n\n")
    return rows


if __name__ == "__main__":
    main()
