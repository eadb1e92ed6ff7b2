"""Four sets of real images, how a network is trained on a few of them, and how it is scored: for the benchmarks here.

The sets lie in ../shared/data (or where the variable GCONV_GA_DATA says), each with its split. All seconds are
processor seconds.
"""

import copy
import csv
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional.segmentation import mean_iou

from gconv_ga.actions import LabelMask, ScalarField
from gconv_ga.evaluate import dice
from gconv_ga.groups import C4
from gconv_ga.images import CropStream, Normalization, PairDataset, PairFiles, Split, load_sample
from gconv_ga.nn import GroupConv2d
from gconv_ga.predict import predict_labels
from gconv_ga.train import Segmenter, fit

DATA = Path(os.environ.get("GCONV_GA_DATA", Path(__file__).resolve().parent.parent.parent / "shared" / "data"))


@dataclass(frozen=True)
class Kind:
    """What differs between the sets.

    Args:
        classes: How many, the background among them.
        percentile: Of the image's own values that it is scaled by; fluorescence only.
        crop: Side of the training crops in pixels: 64, or nearly the whole of a small image.
        batch: Crops a step, so that a step sees about as many pixels in every set.
    """

    classes: int
    percentile: float | None = None
    crop: int = 64
    batch: int = 8


KINDS = {
    "nuclei": Kind(2, percentile=99.8),
    "histology": Kind(2),
    "bloodcells": Kind(3, crop=96, batch=4),
    "retina": Kind(2),
}
TASKS = tuple(KINDS)


@dataclass(frozen=True)
class Task:
    """Some labelled images, and the test images, both normalised by what the labelled ones say."""

    name: str
    kind: Kind
    train: Split
    test: Split


def read_parts(name: str) -> dict[str, Split]:
    """The training and the test images of a set, not normalised, in the order of its split."""
    folder = DATA / name
    with (folder / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    parts = {}
    for part in ("train", "test"):
        chosen = [row for row in rows if row["split"] == part]
        names = [(row.get("image") or row["file"], row.get("mask") or row["file"]) for row in chosen]
        pairs = PairDataset([PairFiles(folder / "images" / image, folder / "masks" / mask) for image, mask in names])
        images, masks = zip(*pairs, strict=True)
        parts[part] = Split(torch.stack(images), torch.stack(masks))
    return parts


def quick_parts(name: str) -> dict[str, Split]:
    """The same from the sample that comes with the package; smaller corners of it, so that a test can run it."""
    sample = load_sample(name)
    corner = (..., slice(64), slice(64))
    return {
        part: Split(split.images[corner], split.masks[corner])
        for part, split in (("train", sample.train), ("test", Split(sample.test.images[:2], sample.test.masks[:2])))
    }


def load_task(parts: dict[str, Split], name: str, images: int | None = None, seed: int = 0, crop: int = 0) -> Task:
    """A set with so many labelled images; those of more images contain those of fewer, seed by seed.

    Args:
        parts: What `read_parts` or `quick_parts` gave.
        name: The set.
        images: How many are labelled; None for all.
        seed: Of the choice.
        crop: Side of the training crops; 0 for the set's own.
    """
    kind, train, test = KINDS[name], parts["train"], parts["test"]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:images]
    normalization = Normalization.measure(train.images[order], kind.percentile)
    labelled = Split(normalization(train.images[order]), train.masks[order])
    if crop:
        kind = Kind(kind.classes, kind.percentile, crop, kind.batch)
    return Task(name, kind, labelled, Split(normalization(test.images), test.masks))


def train(
    model: nn.Module,
    task: Task,
    *,
    steps: int,
    seed: int,
    symmetry: str | None = "D4",
    learning_rate: float = 1e-2,
    segmenter: Callable[..., Segmenter] = Segmenter,
) -> float:
    """Trains in place as ``gconv-ga demo`` does; gives the seconds.

    Args:
        model: It gives logits.
        task: What to train on.
        steps: How many.
        seed: Of the crops and their moves.
        symmetry: The group that augments the crops, or None.
        learning_rate: The highest of the cycle.
        segmenter: What makes the Lightning module.
    """
    start = time.process_time()
    length = steps * task.kind.batch
    stream = CropStream(task.train, length=length, crop=task.kind.crop, symmetry=symmetry, seed=seed)
    fit(segmenter(model, learning_rate=learning_rate), stream, batch_size=task.kind.batch, seed=seed)
    return time.process_time() - start


def score(model: nn.Module, task: Task) -> dict[str, Any]:
    """Dice and mean IoU of the classes but the background, and the share of pixels whose label changes, 0 .. 1.

    "Turned" are the test images each under its own quarter turn: one, two, three in turn.
    """
    images, masks, classes = task.test.images, task.test.masks, task.kind.classes
    start = time.process_time()
    labels = predict_labels(model, images, batch_size=1)
    seconds = time.process_time() - start
    turned = torch.cat([predict_labels(model, turn(x, i, ScalarField()), batch_size=1) for i, x in enumerate(images)])
    expected, truth = (torch.cat([turn(x, i, LabelMask()) for i, x in enumerate(y)]) for y in (labels, masks))
    return {
        "dice": dice(labels, masks, classes=classes),
        "dice turned": dice(turned, truth, classes=classes),
        "iou": iou(labels, masks, classes),
        "iou turned": iou(turned, truth, classes),
        "changed": float((turned != expected).double().mean()),
        "test seconds": seconds,
    }


def turn(x: Tensor, index: int, action: LabelMask | ScalarField) -> Tensor:
    """One image or mask, with a batch axis, under the quarter turn that belongs to its place among the images."""
    return action(x.unsqueeze(0), C4, 1 + index % 3)


def iou(labels: Tensor, masks: Tensor, classes: int) -> float:
    """The mean over images and classes but the background; a class that is nowhere in an image counts in no mean."""
    scores = mean_iou(labels, masks, classes, include_background=False, per_class=True, input_format="index")
    return float(scores[scores >= 0].mean())


def size_of(model: nn.Module, task: Task) -> dict[str, Any]:
    """The parameters, and the multiply-adds for each pixel of an image of 64 x 64, without those with absent taps."""
    channels = task.test.images.shape[1]
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, GroupConv2d) and len(layer.taps) < layer.group.order:
            # Where it is faster a layer takes absent taps for zeros, and multiplies by them.
            layer._mixes_all = False  # noqa: SLF001
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, channels, 64, 64))
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply-adds": counter.get_total_flops() // 2 // 64**2,
    }


def mean_and_range(rows: Iterable[dict[str, Any]], key: str, digits: int = 3) -> str:
    """The mean over seeds, and in brackets the lowest and the highest."""
    values: Sequence[float] = [row[key] for row in rows]
    mean, low, high = sum(values) / len(values), min(values), max(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
