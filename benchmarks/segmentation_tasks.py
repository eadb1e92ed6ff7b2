"""Four sets of real images, with training and scoring functions shared by the segmentation benchmarks.

The sets are read from ../shared/data, or from the folder given by the environment variable GCONV_GA_DATA; each comes
with its split. All times are processor seconds.
"""

import copy
import csv
import os
import time
from collections.abc import Callable
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
from gconv_ga.nn import GroupConv2d, algorithm
from gconv_ga.predict import predict_labels
from gconv_ga.train import Segmenter, fit

DATA = Path(os.environ.get("GCONV_GA_DATA", Path(__file__).resolve().parent.parent.parent / "shared" / "data"))


@dataclass(frozen=True)
class Kind:
    """Settings that differ between the sets.

    Args:
        classes: Number of classes, including the background.
        percentile: Percentile of an image's own values by which it is scaled; for fluorescence images only.
        crop: Side of the training crops in pixels: 64, or nearly the whole of a small image.
        batch: Number of crops per step, chosen so that a step sees about as many pixels in every set.
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
    """Labelled training images and test images, both normalized with statistics of the labelled ones."""

    name: str
    kind: Kind
    train: Split
    test: Split


def read_parts(name: str) -> dict[str, Split]:
    """Read the training and test images of a set, not normalized, in the order of its split."""
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
    """Return the same from corners of the bundled sample, small enough for a test."""
    sample = load_sample(name)
    corner = (..., slice(64), slice(64))
    return {
        part: Split(split.images[corner], split.masks[corner])
        for part, split in (("train", sample.train), ("test", Split(sample.test.images[:2], sample.test.masks[:2])))
    }


def load_task(parts: dict[str, Split], name: str, images: int | None = None, seed: int = 0, crop: int = 0) -> Task:
    """Make a task with a given number of labelled images; for one seed, larger choices contain the smaller ones.

    Args:
        parts: Result of `read_parts` or `quick_parts`.
        name: Name of the set.
        images: Number of labelled images. If None, all.
        seed: Seed of the choice of images.
        crop: Side of the training crops in pixels. If 0, the default of the set.
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
    """Train a model in place, as ``gconv-ga demo`` does, and return the seconds it took.

    Args:
        model: Network that returns logits.
        task: Task to train on.
        steps: Number of steps.
        seed: Seed of the crops and their augmentation.
        symmetry: Group that augments the crops. If None, no augmentation.
        learning_rate: Highest learning rate of the cycle.
        segmenter: Makes the Lightning module of a model.
    """
    start = time.process_time()
    length = steps * task.kind.batch
    stream = CropStream(task.train, length=length, crop=task.kind.crop, symmetry=symmetry, seed=seed)
    fit(segmenter(model, learning_rate=learning_rate), stream, batch_size=task.kind.batch, seed=seed)
    return time.process_time() - start


def score(model: nn.Module, task: Task) -> dict[str, Any]:
    """Compute Dice and mean IoU of the foreground classes, and the proportion of pixels whose label changes.

    In the keys, "turned" means that the test images are rotated: by 90, 180, 270, 90, ... degrees through the set.
    "changed" compares the labels of the rotated images with the rotated labels.
    """
    images, masks, classes = task.test.images, task.test.masks, task.kind.classes
    start = time.process_time()
    labels = predict_labels(model, images, batch_size=1)
    seconds = time.process_time() - start
    inputs = [rotate(image, index, ScalarField()) for index, image in enumerate(images)]
    rotated = torch.cat([predict_labels(model, image, batch_size=1) for image in inputs])
    expected, truth = (torch.cat([rotate(x, i, LabelMask()) for i, x in enumerate(each)]) for each in (labels, masks))
    return {
        "dice": dice(labels, masks, classes=classes),
        "dice turned": dice(rotated, truth, classes=classes),
        "iou": iou(labels, masks, classes),
        "iou turned": iou(rotated, truth, classes),
        "changed": float((rotated != expected).double().mean()),
        "test seconds": seconds,
    }


def rotate(x: Tensor, index: int, action: LabelMask | ScalarField) -> Tensor:
    """Rotate one image or mask by a multiple of 90 degrees given by its index in the set, and add a batch axis."""
    return action(x.unsqueeze(0), C4, 1 + index % 3)


def iou(labels: Tensor, masks: Tensor, classes: int) -> float:
    """Compute the mean IoU over images and foreground classes; a class absent from an image is excluded."""
    scores = mean_iou(labels, masks, classes, include_background=False, per_class=True, input_format="index")
    return float(scores[scores >= 0].mean())


def size_of(model: nn.Module, task: Task) -> dict[str, Any]:
    """Count parameters, and multiply-adds per pixel of a 64 x 64 image; absent taps are not counted."""
    channels = task.test.images.shape[1]
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, GroupConv2d) and len(layer.taps) < layer.group.order:
            # Where this is faster, a layer multiplies by zeros in place of absent taps.
            layer._mixes_all = False  # noqa: SLF001
    # Of the dense algorithm: what the Fourier algorithm saves is time, and the work that networks are matched by stays.
    with torch.no_grad(), algorithm("dense"), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, channels, 64, 64))
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply-adds": counter.get_total_flops() // 2 // 64**2,
    }
