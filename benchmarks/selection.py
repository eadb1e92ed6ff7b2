"""Compare rules by which one of the validated states of a training is kept. See README.md.

    nohup python benchmarks/selection.py --out benchmarks/results/selection.jsonl &
    python benchmarks/selection.py --table benchmarks/results/selection.jsonl

After every tenth of a training, validation and test images are scored. The rules see the validation scores alone; what
they keep is scored by the test images. The order of the runs begins with what decides, and an interrupted call is
continued: rows that the file already contains are not computed again. ``--quick`` takes ten steps on corners of the
bundled sample.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from result_rows import append_row, missing, read_rows
from result_tables import markdown_table
from segmentation_tasks import TASKS, quick_parts, read_parts
from study_candidates import CANDIDATES
from study_training import Selection, Setting, StudySegmenter, draw
from torch import nn

from gconv_ga.evaluate import dice
from gconv_ga.images import CropStream, Split
from gconv_ga.predict import predict_labels
from gconv_ga.train import fit, start_at_frequencies

VALIDATED = 10  # times in a training
VALIDATION = 8  # images; rules with four of them take the first four
Scores = list[list[float]]  # by time of validation and by image


def best_from(scores: Scores, first: int, images: int) -> int:
    """Return the time of the best mean score, of those from ``first`` on; of equal ones the last."""
    means = [statistics.fmean(each[:images]) for each in scores]
    return max(range(first, len(means)), key=lambda time: (means[time], time))


def beyond_noise(scores: Scores, images: int) -> int:
    """Return the time of the best mean score if it beats the last by more than the standard error, else the last."""
    best, last = best_from(scores, 0, images), len(scores) - 1
    differences = [one - other for one, other in zip(scores[best][:images], scores[last][:images], strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return best if statistics.fmean(differences) > error else last


RULES: dict[str, Callable[[Scores, int], int]] = {
    "last": lambda scores, images: len(scores) - 1,
    "best": lambda scores, images: best_from(scores, 0, images),
    "best of the last half": lambda scores, images: best_from(scores, len(scores) // 2, images),
    "best of the last three": lambda scores, images: best_from(scores, len(scores) - 3, images),
    "best if beyond the standard error": beyond_noise,
}


def by_image(model: nn.Module, split: Split, classes: int) -> list[float]:
    """Return the Dice score of each image."""
    labels = predict_labels(model, split.images, batch_size=1)
    pairs = zip(labels, split.masks, strict=True)
    return [round(dice(each[None], mask[None], classes=classes), 6) for each, mask in pairs]


def run(name: str, method: str, steps: int, seed: int, *, quick: bool) -> dict[str, Any]:
    """Train a network with 8 images and return its scores."""
    parts = quick_parts(name) if quick else read_parts(name)
    drawn = draw(parts, name, 2 if quick else 8, seed, 32 if quick else 0, 1 if quick else VALIDATION)
    task, kind = drawn.task, drawn.task.kind
    torch.manual_seed(seed)
    model = CANDIDATES[method].build(task.test.images.shape[1], kind.classes, 1)
    start_at_frequencies(model, task.train.masks)
    row: dict[str, Any] = {"validation": [], "test": []}

    def record(network: nn.Module) -> float:
        row["validation"].append(by_image(network, drawn.validation, kind.classes))
        row["test"].append(round(statistics.fmean(by_image(network, task.test, kind.classes)), 6))
        return statistics.fmean(row["validation"][-1])

    crops = CropStream(task.train, length=steps * kind.batch, crop=kind.crop, symmetry="D4", seed=seed)
    callbacks = [Selection(record, every=steps // VALIDATED)]
    fit(StudySegmenter(model, Setting()), crops, batch_size=kind.batch, seed=seed, callbacks=callbacks)
    return row


def tables(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Format what rules keep relative to the last state: means over runs, and in how many it is worse and better."""
    for images in (4, VALIDATION):
        body = []
        for name, rule in RULES.items():
            gains = {
                (row["task"], row["method"], row["steps"], row["seed"]): row["test"][rule(row["validation"], images)]
                - row["test"][-1]
                for row in rows
            }
            cells = [f"{statistics.fmean(gains.values()):+.4f}"]
            for task in TASKS:
                own = [gain for key, gain in gains.items() if key[0] == task]
                cells.append(f"{statistics.fmean(own):+.4f}" if own else "-")
            worse, better = (sum(sign * gain > 0.005 for gain in gains.values()) for sign in (-1, 1))
            body.append([name, *cells, min(gains.values(), default=0.0), max(gains.values()), worse, better])
        for line in body:
            line[-4:-2] = [f"{value:+.3f}" for value in line[-4:-2]]
        head = ["rule", "mean", *TASKS, "lowest", "highest", "worse by 0.005", "better by 0.005"]
        yield f"{images} validation images, {len(rows)} runs:\n\n" + markdown_table(head, body)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks and print the tables of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=CANDIDATES, default=["C8", "plain"])
    parser.add_argument("--steps", nargs="+", type=int, default=[300, 1000], help="training steps, at least 10")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    parser.add_argument("--quick", action="store_true", help="ten steps on small crops of the bundled sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("--out or --table is needed")
    if args.table is None:
        torch.set_num_threads(1)
        order = itertools.product([10] if args.quick else args.steps, range(args.seeds), args.tasks, args.methods)
        cells = (
            {"task": task, "method": method, "steps": steps, "seed": seed, "quick": args.quick}
            for steps, seed, task, method in order
        )
        for cell in missing(args.out, cells):
            row = run(cell["task"], cell["method"], cell["steps"], cell["seed"], quick=args.quick)
            append_row(args.out, cell | row)
            print(*cell.values(), flush=True)
    rows = [row for row in read_rows(args.table or args.out) if row["quick"] == args.quick]
    print(*tables(rows), sep="\n\n")
    return rows


if __name__ == "__main__":
    main()
