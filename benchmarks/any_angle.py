"""Compare C8 segmenters, trained on upright images, at other angles: ours, escnn's and a baseline. See README.md.

Run this in the environment of the extra "escnn" with the packages of the extra "train" (but numpy below 2, for escnn):

    nohup python benchmarks/any_angle.py --out benchmarks/results/any_angle.jsonl &
    python benchmarks/any_angle.py --table benchmarks/results/any_angle.jsonl

An interrupted run is continued: rows that the file already contains are not computed again.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from any_angle_networks import MAIN_METHODS, METHODS
from result_rows import append_row, read_rows
from result_tables import markdown_table, mean_of, range_cells
from segmentation_tasks import Task, load_task, quick_parts, read_parts, train
from torch import Tensor, nn

from gconv_ga.evaluate import dice

TASKS = ("nuclei", "histology")
RANDOM_ANGLES = 3  # per image
# Keys of the Dice scores in a row of results, and their titles in the tables.
SCORES = {
    "dice": "upright",
    "dice 45": "45 degrees",
    "dice random": "random angles",
    "dice resampled": "rotated and back",
}

# --- scores under rotation


def rotate(x: Tensor, degrees: float, order: int) -> Tensor:
    """Rotate ``[C, H, W]`` counter-clockwise about its centre by spline interpolation; reflected outside the image.

    Args:
        x: Image or one-hot mask.
        degrees: Angle in degrees.
        order: Order of the splines.
    """
    rotated = scipy.ndimage.rotate(x.double().numpy(), degrees, axes=(2, 1), reshape=False, order=order, mode="reflect")
    return torch.from_numpy(np.ascontiguousarray(rotated))


class View:
    """Centre of a square image that stays in view at every angle.

    The network receives a square; scores are computed in the disc inside it.

    Args:
        side: Side of the image in pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = int(side / 2**0.5) // 8 * 8
        self.margin = (side - self.side) // 2
        offsets = torch.arange(self.side) - (self.side - 1) / 2
        # Six pixels from the border of the square, away from the effects of padding.
        self.disc = offsets.square() + offsets.square().unsqueeze(1) < (self.side / 2 - 6) ** 2

    def __call__(self, x: Tensor) -> Tensor:
        inside = slice(self.margin, self.margin + self.side)
        return x[..., inside, inside]


def score(model: nn.Module, task: Task, angles: Tensor) -> dict[str, float]:
    """Compute Dice in the disc: upright, at 45 degrees, at random angles, and rotated by 45 degrees and back.

    The last case measures the effect of interpolation alone. "changed" is the proportion of pixels in the disc whose
    label at 45 degrees differs from the upright label (the upright probabilities are rotated by cubic splines);
    "changed, 90 degrees" is the same for exact quarter turns.

    Args:
        model: Network that returns logits.
        task: Set with the test images.
        angles: Random angles of each test image, in degrees, ``[images, angles]``.
    """
    model.eval()
    images, masks, classes = task.test.images, task.test.masks, task.kind.classes
    view = View(images.shape[-1])

    def probabilities(image: Tensor) -> Tensor:
        with torch.no_grad():
            return model(view(image).float().unsqueeze(0))[0].softmax(0)

    def rotated_labels(mask: Tensor, degrees: float) -> Tensor:
        one_hot = F.one_hot(mask, classes).movedim(-1, 0)
        return view(rotate(one_hot, degrees, 1)).argmax(0)

    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {key: [] for key in SCORES}
    changed_at_45, changed_at_90 = [], []
    for image, mask, random_angles in zip(images, masks, angles, strict=True):
        upright = probabilities(image)
        at_45 = probabilities(rotate(image, 45, 3))
        resampled = probabilities(rotate(rotate(image, 45, 3), -45, 3))
        pairs["dice"].append((upright.argmax(0), view(mask)))
        pairs["dice 45"].append((at_45.argmax(0), rotated_labels(mask, 45)))
        pairs["dice resampled"].append((resampled.argmax(0), view(mask)))
        for degrees in random_angles.tolist():
            predicted = probabilities(rotate(image, degrees, 3)).argmax(0)
            pairs["dice random"].append((predicted, rotated_labels(mask, degrees)))
        expected = rotate(upright, 45, 3).argmax(0)
        changed_at_45.append((at_45.argmax(0) != expected)[view.disc].double().mean())
        at_90 = probabilities(torch.rot90(image, 1, (-2, -1))).argmax(0)
        changed_at_90.append((at_90 != torch.rot90(upright.argmax(0)))[view.disc].double().mean())
    row = {
        key: dice(*(torch.stack(each) * view.disc for each in zip(*found, strict=True)), classes=classes)
        for key, found in pairs.items()
    }
    row["changed"] = float(torch.stack(changed_at_45).mean())
    row["changed, 90 degrees"] = float(torch.stack(changed_at_90).mean())
    return row


def run(method: str, task: Task, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train on upright crops and test at angles that are the same for all methods."""
    torch.manual_seed(seed)
    model = METHODS[method](task.test.images.shape[1], task.kind.classes)
    seconds = train(model, task, steps=args.steps, seed=seed, symmetry=None, learning_rate=args.lr)
    generator = torch.Generator().manual_seed(0)
    angles = 360 * torch.rand(len(task.test.images), RANDOM_ANGLES, generator=generator)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"method": method, "parameters": parameters, "train seconds": seconds} | score(model, task, angles)


# --- tables


def by_task_and_method(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group the rows by set and method, in a fixed order; leave out methods no longer run."""
    cells = {(task, method): [] for task in TASKS for method in METHODS}
    for row in rows:
        if (cell := (row["task"], row["method"])) in cells:
            cells[cell].append(row)
    return {cell: found for cell, found in cells.items() if found}


def mean_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the means over seeds, one line per set and method."""
    lines = []
    for (task, method), found in by_task_and_method(rows).items():
        scores = [f"{mean_of(found, key):.4f}" for key in SCORES]
        changed = [f"{100 * mean_of(found, key):.2f} %" for key in ("changed", "changed, 90 degrees")]
        lines.append([task, method, len(found), found[0]["parameters"], *scores, *changed])
    titles = ["set", "network", "seeds", "parameters", *SCORES.values(), "changed at 45 degrees", "changed at 90"]
    return markdown_table(titles, lines)


def range_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the lowest and highest Dice over seeds, for methods with more than one."""
    titles = ["set", "network", *(f"{title}, {end}" for title in SCORES.values() for end in ("lowest", "highest"))]
    lines = [
        [task, method, *(cell for key in SCORES for cell in range_cells(found, key, 4))]
        for (task, method), found in by_task_and_method(rows).items()
        if len(found) > 1
    ]
    return markdown_table(titles, lines)


def escnn_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the differences to escnn with the same kernel size, over pairs of the same set and seed."""
    by_run = {(row["method"], row["task"], row["seed"]): row for row in rows}
    scores = ("dice", "dice 45", "dice random")
    titles = ["network", "pairs"]
    for key in scores:
        titles += [SCORES[key], "standard error"]
    titles += ["changed at 45, ratio", "fewer changed in"]
    lines = []
    for method in METHODS:
        name, _, _ = method.partition(",")
        size = next((size for size in ("k=3", "k=5") if size in method), None)
        pairs = [
            (row, by_run[f"escnn, {size}", task, seed])
            for (other, task, seed), row in by_run.items()
            if other == method and (f"escnn, {size}", task, seed) in by_run
        ]
        if name not in ("ours", "scaled") or len(pairs) < 2:
            continue
        cells = []
        for key in scores:
            gains = np.array([mine[key] - theirs[key] for mine, theirs in pairs])
            cells += [f"{gains.mean():+.4f}", f"{gains.std(ddof=1) / math.sqrt(len(gains)):.4f}"]
        changed = [(mine["changed"], theirs["changed"]) for mine, theirs in pairs]
        ratio = math.exp(np.mean([math.log(mine / theirs) for mine, theirs in changed]))
        fewer = sum(mine < theirs for mine, theirs in changed)
        lines.append([method, len(pairs), *cells, f"{ratio:.2f}", f"{fewer} of {len(pairs)}"])
    return markdown_table(titles, lines)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks and print the tables of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--lr", type=float, default=1e-2, help="learning rate")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    parser.add_argument("--quick", action="store_true", help="twenty steps on small crops of the bundled sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("give --out FILE or --table FILE")
    torch.set_num_threads(1)
    if args.quick:
        args.seeds, args.steps = 1, 20
    setting = {"steps": args.steps, "lr": args.lr, "quick": args.quick}
    path = args.table or args.out

    def rows_of_setting() -> list[dict[str, Any]]:
        return [row for row in read_rows(path) if all(row[key] == value for key, value in setting.items())]

    if args.table is None:
        known = {(row["task"], row["method"], row["seed"]) for row in rows_of_setting()}
        parts = {name: quick_parts(name) if args.quick else read_parts(name) for name in args.tasks}
        first = [method for method in args.methods if method in MAIN_METHODS]
        rest = [method for method in args.methods if method not in MAIN_METHODS]
        cells = [
            (task, method, seed)
            for methods in (first, rest)
            for seed in range(args.seeds)
            for method in methods
            for task in args.tasks
        ]
        for number, (name, method, seed) in enumerate(cells, start=1):
            if (name, method, seed) in known:
                continue
            task = load_task(parts[name], name, seed=seed, crop=32 if args.quick else 0)
            row = {"task": name, "seed": seed} | setting | run(method, task, seed, args)
            append_row(args.out, row)
            hours = time.process_time() / 3600
            print(
                f"[{number}/{len(cells)}, {hours:.2f} h] {name}, {method}, seed {seed}: "
                f"Dice {row['dice']:.4f}, at 45 degrees {row['dice 45']:.4f}",
                flush=True,
            )
    rows = rows_of_setting()
    print(mean_table(rows), range_table(rows), escnn_table(rows), sep="\n\n")
    return rows


if __name__ == "__main__":
    main()
