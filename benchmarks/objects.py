"""Compare the objects of equivariant networks with those of the augmented baseline, compute-matched. See README.md.

    nohup python benchmarks/objects.py --out benchmarks/results/objects.jsonl &
    python benchmarks/objects.py --table benchmarks/results/objects.jsonl

Trained are networks with heads for distances and flows, on 8 and on all images. Scored are average precision, panoptic
quality and the count, and what changes when the image is rotated. An interrupted run is continued: rows that the file
already contains are not computed again. ``--weights DIR`` keeps the networks as checkpoints. ``--quick`` takes four
steps on corners of the bundled sample.
"""

import argparse
import csv
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from label_efficiency import select
from result_rows import append_row, read_rows
from result_tables import markdown_table, mean_of, range_cells
from segmentation_tasks import DATA, KINDS, quick_parts
from torch import nn

from gconv_ga.evaluate import ImageObjects, evaluate_objects, mean_score
from gconv_ga.groups import as_group
from gconv_ga.images import CropStream, Normalization, PairDataset, PairFiles, Split
from gconv_ga.objects import Decoder, decode
from gconv_ga.segmenter import SegmenterConfig, save_checkpoint
from gconv_ga.train import ObjectSegmenter, ObjectStream, choose_decoder, fit, start_at_frequencies

TASKS = ("nuclei", "histology")  # the sets whose objects are known
METHODS = {"plain, augmented": None, "C4": "C4", "D4": "D4", "C8": "C8"}
ALL = 0  # stands for all training images in place of a number of images
SCORES = {
    "AP50": "AP at IoU 0.5", "AP": "mean AP", "PQ": "panoptic quality", "count error": "found - true",
    "partnerless": "partnerless, %", "moved pixels": "pixels moved, %",
}  # fmt: skip
PERCENT = ("partnerless", "moved pixels")


def read_parts(name: str) -> dict[str, Split]:
    """Read the images of a set with the numbers of their objects, not normalized, by part of its split."""
    folder = DATA / name
    with (folder / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    parts = {}
    for part in ("train", "val", "test"):
        names = [row["file"] for row in rows if row["split"] == part]
        pairs = PairDataset([PairFiles(folder / "images" / file, folder / "instances" / file) for file in names])
        images, instances = zip(*pairs, strict=True)
        parts[part] = Split(torch.stack(images), torch.stack(instances))
    return parts


def sample_parts(name: str) -> dict[str, Split]:
    """Return the same from corners of the bundled sample, whose masks are cut into objects."""
    cut = {
        part: Split(split.images, torch.stack([decode(mask).labels for mask in split.masks]))
        for part, split in quick_parts(name).items()
    }
    return cut | {"val": Split(cut["train"].images[-1:], cut["train"].masks[-1:])}


def describe(method: str, normalization: Normalization, width: int) -> SegmenterConfig:
    """Describe a network that does as many multiply-adds as a plain one of ``width`` channels."""
    group = METHODS[method]
    own = width if group is None else max(1, width // as_group(group).order)
    arguments = {"in_channels": len(normalization.mean), "classes": 2, "group": group, "width": own}
    return SegmenterConfig("ObjectUNet", arguments, ("background", "object"), normalization)


def train(model: nn.Module, name: str, split: Split, *, steps: int, seed: int, crop: int, lr: float) -> float:
    """Train all heads in place and return the seconds it took."""
    start, batch = time.process_time(), KINDS[name].batch
    start_at_frequencies(model, (split.masks > 0).long())
    stream = CropStream(split, length=steps * batch, crop=crop, symmetry="D4", seed=seed)
    fit(ObjectSegmenter(model, learning_rate=lr), ObjectStream(stream), batch_size=batch, seed=seed)
    return time.process_time() - start


def score(model: nn.Module, decoder: Decoder | None, test: Split) -> dict[str, Any]:
    """Score the objects of the test images, and their changes."""
    start = time.process_time()
    found: list[ImageObjects] = [
        evaluate_objects(model, image, instances, decoder=decoder)
        for image, instances in zip(test.images, test.masks, strict=True)
    ]
    scores = [image.scores for image in found]
    changes = [change for image in found for change in image.changes]
    return {
        "decoder": "watershed" if decoder is None else decoder.method,
        "AP50": mean_score([each.average_precision[0] for each in scores]) or 0.0,
        "AP": mean_score([each.mean_average_precision for each in scores]) or 0.0,
        "PQ": mean_score([each.panoptic_quality for each in scores]) or 0.0,
        "count error": sum(each.count_error for each in scores) / len(scores),
        "partnerless": sum(change.partnerless for change in changes) / len(changes),
        "moved pixels": sum(change.pixels for change in changes) / len(changes),
        "most moved pixels": max(change.pixels for change in changes),
        "test seconds": time.process_time() - start,
    }


def run(method: str, name: str, parts: dict[str, Split], images: int, seed: int, args: argparse.Namespace) -> dict:
    """Train and score one network."""
    order = torch.randperm(len(parts["train"]), generator=torch.Generator().manual_seed(seed))[: images or None]
    labelled = Split(parts["train"].images[order], parts["train"].masks[order])
    normalize = Normalization.measure(labelled.images, KINDS[name].percentile)
    labelled = Split(normalize(labelled.images), labelled.masks)
    config = describe(method, normalize, args.channels)
    model = config.build(seed=seed)
    crop = 32 if args.quick else KINDS[name].crop
    seconds = train(model, name, labelled, steps=args.steps, seed=seed, crop=crop, lr=args.lr)
    val, test = (Split(normalize(parts[part].images), parts[part].masks) for part in ("val", "test"))
    config = replace(config, decoder=choose_decoder(model.eval(), val))
    if args.weights is not None:
        file = f"{name}_{images or 'all'}_{method.split(',')[0]}_{seed}.safetensors"
        save_checkpoint(args.weights / file, model, config, step=args.steps)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "train seconds": seconds} | score(model, config.decoder, test)


def tables(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Format the means over seeds, then the lowest and highest values of the average precision and of the changes."""
    means, ranges = [], []
    for name in TASKS:
        for images in (8, ALL, *sorted({row["images"] for row in rows} - {8, ALL})):
            for method in METHODS:
                cell = select(rows, task=name, method=method, images=images)
                if not cell:
                    continue
                values = [f"{(100 if key in PERCENT else 1) * mean_of(cell, key):.3f}" for key in SCORES]
                means.append([name, images or "all", method, len(cell), *values])
                cells = [text for key in ("AP50", "moved pixels") for text in range_cells(cell, key, 4)]
                ranges.append([name, images or "all", method, *cells])
    head = ["set", "images", "method"]
    yield markdown_table([*head, "seeds", *SCORES.values()], means)
    ends = [f"{key}, {end}" for key in ("AP at IoU 0.5", "share moved") for end in ("lowest", "highest")]
    yield markdown_table([*head, *ends], ranges)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks and print the tables of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--images", nargs="+", type=int, default=[8, ALL], help=f"labelled images; {ALL} for all")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--lr", type=float, default=1e-2, help="learning rate")
    parser.add_argument("--channels", type=int, default=16, help="channels of the baseline at the finest level")
    parser.add_argument("--hours", type=float, default=math.inf, help="start no run after this many processor hours")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--weights", type=Path, help="folder in which the trained networks are kept")
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    parser.add_argument("--quick", action="store_true", help="four steps on small crops of the bundled sample")
    args = parser.parse_args(arguments)
    if args.table is None and args.out is None:
        parser.error("give --out FILE or --table FILE")
    torch.set_num_threads(1)
    if args.quick:
        args.images, args.seeds, args.steps, args.channels = [2], 1, 4, 8
    setting = {"steps": args.steps, "lr": args.lr, "channels": args.channels, "quick": args.quick}
    if args.table is None:
        fill(setting, args)
    rows = [row for row in select(read_rows(args.table or args.out), **setting) if row["method"] in args.methods]
    print(*tables(rows), sep="\n\n")
    return rows


def fill(setting: dict[str, Any], args: argparse.Namespace) -> None:
    """Run the cells of the grid that the file lacks, and append their rows."""
    cells = [
        (method, name, images, seed)
        for seed in range(args.seeds)
        for images in args.images
        for name in args.tasks
        for method in args.methods
    ]
    known = {(row["method"], row["task"], row["images"], row["seed"]) for row in select(read_rows(args.out), **setting)}
    parts = {name: sample_parts(name) if args.quick else read_parts(name) for name in args.tasks}
    for number, (method, name, images, seed) in enumerate(cells, start=1):
        if (method, name, images, seed) in known:
            continue
        if time.process_time() > 3600 * args.hours:
            break
        row = {"task": name, "images": images, "seed": seed, "method": method} | setting
        row |= run(method, name, parts[name], images, seed, args)
        append_row(args.out, row)
        text = f"{name}, {images or 'all'} images, seed {seed}, {method}: AP50 {row['AP50']:.3f}"
        print(f"[{number}/{len(cells)}] {text}, {100 * row['moved pixels']:.3f} % moved", flush=True)


if __name__ == "__main__":
    main()
