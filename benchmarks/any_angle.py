"""C_8 segmenters trained on upright images, at other angles: ours with several filters, escnn's, plain. See README.md.

In the environment of the extra "escnn", with the packages of the extra "train" (but numpy below 2, as escnn needs):

    nohup python benchmarks/any_angle.py --out benchmarks/results/any_angle.jsonl &
    python benchmarks/any_angle.py --table benchmarks/results/any_angle.jsonl

It goes on where it was stopped: rows that the file holds are not run again.
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
from any_angle_networks import MAIN, METHODS
from result_rows import append_row, read_rows
from segmentation_tasks import Task, load_task, mean_and_range, quick_parts, read_parts, train
from torch import Tensor, nn

from gconv_ga.evaluate import dice

TASKS = ("nuclei", "histology")
RANDOM_ANGLES = 3  # for each image

# --- the test


def turned(x: Tensor, degrees: float, order: int) -> Tensor:
    """Maps ``[C, H, W]`` turned counter-clockwise about their middle by splines of that order; mirrored outside."""
    array = x.double().numpy()
    result = scipy.ndimage.rotate(array, degrees, axes=(2, 1), reshape=False, order=order, mode="reflect")
    return torch.from_numpy(np.ascontiguousarray(result))


class View:
    """The middle of a square image: what is in view at every angle, as a square for the network and a disc to compare.

    Args:
        side: Of the image.
    """

    def __init__(self, side: int) -> None:
        self.side = int(side / 2**0.5) // 8 * 8
        self.margin = (side - self.side) // 2
        along = torch.arange(self.side) - (self.side - 1) / 2
        # Clear of the padding at the rim of the square.
        self.disc = along.square() + along.square().unsqueeze(1) < (self.side / 2 - 6) ** 2

    def __call__(self, x: Tensor) -> Tensor:
        inside = slice(self.margin, self.margin + self.side)
        return x[..., inside, inside]


def score(model: nn.Module, task: Task, angles: Tensor) -> dict[str, float]:
    """Dice in the disc: upright, at 45 degrees, at random angles, and turned by 45 and back (only interpolation).

    "changed" is the share of the disc's pixels where the label at 45 degrees is not the upright label, whose
    probabilities are turned by cubic splines; "changed, 90 degrees" the same for exact turns.
    """
    model.eval()
    images, masks, classes = task.test.images, task.test.masks, task.kind.classes
    view = View(images.shape[-1])

    def probabilities(image: Tensor) -> Tensor:
        with torch.no_grad():
            return model(view(image).float().unsqueeze(0))[0].softmax(0)

    def labels_of(mask: Tensor, degrees: float) -> Tensor:
        one_hot = F.one_hot(mask, classes).movedim(-1, 0)
        return view(turned(one_hot, degrees, 1)).argmax(0)

    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    changed, quarter = [], []
    for image, mask, random in zip(images, masks, angles, strict=True):
        upright = probabilities(image)
        cases = {"dice": (upright.argmax(0), view(mask))}
        at_45 = probabilities(turned(image, 45, 3))
        cases["dice 45"] = at_45.argmax(0), labels_of(mask, 45)
        there_and_back = turned(turned(image, 45, 3), -45, 3)
        cases["dice resampled"] = probabilities(there_and_back).argmax(0), view(mask)
        for name, case in cases.items():
            found.setdefault(name, []).append(case)
        for degrees in random.tolist():
            case = probabilities(turned(image, degrees, 3)).argmax(0), labels_of(mask, degrees)
            found.setdefault("dice random", []).append(case)
        expected = turned(upright, 45, 3).argmax(0)
        changed.append((at_45.argmax(0) != expected)[view.disc].double().mean())
        at_90 = probabilities(torch.rot90(image, 1, (-2, -1))).argmax(0)
        quarter.append((at_90 != torch.rot90(upright.argmax(0)))[view.disc].double().mean())
    row = {
        name: dice(*(torch.stack(each) * view.disc for each in zip(*cases, strict=True)), classes=classes)
        for name, cases in found.items()
    }
    row["changed"] = float(torch.stack(changed).mean())
    row["changed, 90 degrees"] = float(torch.stack(quarter).mean())
    return row


def run(method: str, task: Task, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains on upright crops, tests at angles that are the same for all methods."""
    torch.manual_seed(seed)
    model = METHODS[method](task.test.images.shape[1], task.kind.classes)
    seconds = train(model, task, steps=args.steps, seed=seed, symmetry=None, learning_rate=args.lr)
    generator = torch.Generator().manual_seed(0)
    angles = 360 * torch.rand(len(task.test.images), RANDOM_ANGLES, generator=generator)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"method": method, "parameters": parameters, "train seconds": seconds} | score(model, task, angles)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a set and method: means over seeds, lowest and highest."""
    titles = ("upright", "45 degrees", "random angles", "turned and back")
    keys = ("dice", "dice 45", "dice random", "dice resampled")
    lines = [
        f"| set | network | seeds | parameters | {' | '.join(titles)} | changed at 45 | at 90 |",
        "|---" * 10 + "|",
    ]
    for task in TASKS:
        for method in METHODS:
            found = [row for row in rows if (row["task"], row["method"]) == (task, method)]
            if found:
                cells = " | ".join(mean_and_range(found, key, 4) for key in keys)
                changes = (sum(row[key] for row in found) / len(found) for key in ("changed", "changed, 90 degrees"))
                shares = " | ".join(f"{100 * share:.2f} %" for share in changes)
                lines.append(f"| {task} | {method} | {len(found)} | {found[0]['parameters']} | {cells} | {shares} |")
    return "\n".join(lines)


def against_escnn(rows: Sequence[dict[str, Any]]) -> str:
    """Ours less escnn's of the same kernel size, seed by seed: mean and standard error over sets and seeds."""
    lines = [
        "| network | pairs | upright | 45 degrees | random angles | changed at 45, ratio | fewer changed |",
        "|---" * 7 + "|",
    ]
    at = {(row["method"], row["task"], row["seed"]): row for row in rows}
    for method in METHODS:
        name, _, _ = method.partition(",")
        size = next((size for size in ("k=3", "k=5") if size in method), None)
        pairs = [
            (row, at[f"escnn, {size}", task, seed])
            for (other, task, seed), row in at.items()
            if other == method and (f"escnn, {size}", task, seed) in at
        ]
        if name not in ("ours", "scaled") or len(pairs) < 2:
            continue
        cells = []
        for key in ("dice", "dice 45", "dice random"):
            gains = np.array([mine[key] - theirs[key] for mine, theirs in pairs])
            cells.append(f"{gains.mean():+.4f} +- {gains.std(ddof=1) / math.sqrt(len(gains)):.4f}")
        shares = [(mine["changed"], theirs["changed"]) for mine, theirs in pairs]
        ratio = math.exp(np.mean([math.log(mine / theirs) for mine, theirs in shares]))
        fewer = sum(mine < theirs for mine, theirs in shares)
        lines.append(f"| {method} | {len(pairs)} | {' | '.join(cells)} | {ratio:.2f} | {fewer} of {len(pairs)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks, and print the table of what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--out", type=Path, help="JSON lines, added to")
    parser.add_argument("--table", type=Path, help="only print the table of this file")
    parser.add_argument("--quick", action="store_true", help="twenty steps on corners of the package's sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("say --out FILE or --table FILE")
    torch.set_num_threads(1)
    if args.quick:
        args.seeds, args.steps = 1, 20
    setting = {"steps": args.steps, "lr": args.lr, "quick": args.quick}
    path = args.table or args.out

    def rows() -> list[dict[str, Any]]:
        return [row for row in read_rows(path) if all(row[key] == value for key, value in setting.items())]

    if args.table is None:
        known = {(row["task"], row["method"], row["seed"]) for row in rows()}
        parts = {name: quick_parts(name) if args.quick else read_parts(name) for name in args.tasks}
        first = [method for method in args.methods if method in MAIN]
        rest = [method for method in args.methods if method not in MAIN]
        cells = [
            (task, method, seed)
            for methods in (first, rest)
            for seed in range(args.seeds)
            for method in methods
            for task in args.tasks
        ]
        for place, (name, method, seed) in enumerate(cells, start=1):
            if (name, method, seed) in known:
                continue
            task = load_task(parts[name], name, seed=seed, crop=32 if args.quick else 0)
            row = {"task": name, "seed": seed} | setting | run(method, task, seed, args)
            append_row(args.out, row)
            hours = time.process_time() / 3600
            print(
                f"[{place}/{len(cells)}, {hours:.2f} h] {name}, {method}, seed {seed}: "
                f"Dice {row['dice']:.4f}, at 45 degrees {row['dice 45']:.4f}",
                flush=True,
            )
    print("\n\n".join((table(rows()), against_escnn(rows()))))
    return rows()


if __name__ == "__main__":
    main()
