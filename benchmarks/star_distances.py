"""Compare star distances with the heads of `ObjectUNet` for the objects of a C8 network. See README.md.

    nohup python benchmarks/star_distances.py --out benchmarks/results/star_distances.jsonl &
    python benchmarks/star_distances.py --table benchmarks/results/star_distances.jsonl

Trained is what objects.py trains with C8, with a head for 32 distances to the edge in place of the one for flows.
Compared are pairs of one set, number of images and seed, with the rows of objects.jsonl. The true distances are decoded
too, as a network without errors would predict them. An interrupted run is continued: rows that the file already
contains are not computed again. ``--quick`` takes four steps on corners of the bundled sample.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_efficiency import select
from objects import ALL, PERCENT, SCORES, TASKS, read_parts, sample_parts
from result_rows import append_row, read_rows
from result_tables import markdown_table, mean_of
from segmentation_tasks import KINDS
from skimage.draw import polygon
from torch import Tensor, nn
from torch.utils.data import Dataset

import gconv_ga.nn as gnn
from gconv_ga.evaluate import mean_score
from gconv_ga.images import CropStream, Normalization, Split
from gconv_ga.models import ObjectUNet
from gconv_ga.objects import changed_objects, object_scores
from gconv_ga.predict import Tiled
from gconv_ga.train import CrossEntropyDice, ObjectSegmenter, fit, start_at_frequencies

STARS, HEADS, TRUE = "C8, stars", "C8, heads of ObjectUNet", "true distances"
METHODS = {STARS: False, "C8, stars, filled": True}  # whether objects are filled up to the predicted classes
ALL_METHODS = (HEADS, *METHODS, TRUE)
SHOWN = (*SCORES, "train seconds")
RAYS = 32
PROBABILITIES = [step / 10 for step in range(1, 9)]  # least probability of an object
GROWN = 1.3  # pixels of the foreground are looked for in stars as much larger
Pixel = tuple[int, int]
OVERLAPS = (0.3, 0.5)  # largest share of the smaller of two objects that both cover
BESIDE = Path(__file__).parent / "results" / "objects.jsonl"


def directions() -> np.ndarray:
    """Return steps of length 1 along the rays, down and across, counter-clockwise from the right."""
    angles = 2 * np.pi / RAYS * np.arange(RAYS // 4)
    quarters = [np.stack((-np.sin(angles), np.cos(angles)))]
    for _ in range(3):
        down, across = quarters[-1]
        quarters.append(np.stack((-across, down)))  # rotated without rounding
    return np.concatenate(quarters, axis=1)


def star_targets(instances: Tensor) -> Tensor:
    """Return the class, the probability, and the distances to the edge of the object along the rays.

    The probability is the distance to the edge, the shortest of the 32, divided by the largest in the object. A ray
    that leaves the image has a negative distance: the edge is at least as far away. Outside of objects all are 0.

    Shape:
        - instances: ``[H, W]``, numbers of objects, 0 where there is none
        - output: ``[2 + 32, H, W]``, float32
    """
    labels = np.pad(instances.numpy(), 1, constant_values=-1)
    step, flat = directions(), labels.ravel()
    pixels = np.flatnonzero(flat > 0)
    distances = np.zeros((len(pixels), RAYS))
    walking, length = np.arange(distances.size), 0
    while len(walking):
        length += 1
        down, across = np.rint(length * step).astype(np.int64)
        begin, ray = pixels[walking // RAYS], walking % RAYS
        end = flat[begin + (down * labels.shape[1] + across)[ray]]
        stop = end != flat[begin]
        # The edge is half a pixel before the middle of the first pixel outside, as in the authors' code.
        reached = length - 1 + 0.5 / np.abs(step).max(axis=0)[ray[stop]]
        distances.flat[walking[stop]] = np.where(end[stop] < 0, -reached, reached)
        walking = walking[~stop]
    nearest = np.where(distances > 0, distances, np.inf).min(axis=1, initial=np.inf)
    nearest = np.where(np.isfinite(nearest), nearest, np.abs(distances).min(axis=1, initial=np.inf))
    largest = np.zeros(int(labels.max()) + 1)
    np.maximum.at(largest, flat[pixels], nearest)
    maps = np.zeros((2 + RAYS, labels.size), dtype=np.float32)
    maps[0, pixels], maps[1, pixels], maps[2:, pixels] = 1, nearest / largest[flat[pixels]], distances.T
    return torch.from_numpy(maps.reshape(-1, *labels.shape)[:, 1:-1, 1:-1].copy())


class StarStream(Dataset[tuple[Tensor, Tensor]]):
    """The items of another data set of images and instances, with their star targets."""

    def __init__(self, pairs: CropStream) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, instances = self.pairs[index]
        return image, star_targets(instances)


class StarUNet(ObjectUNet):
    """`ObjectUNet` on C8 with a head for star distances in place of the one for flows.

    Four fields of the regular representation of C8 are 32 rays: channel j of group element g is ray 4 g + j, which a
    rotation by 45 degrees takes to ray 4 (g + 1) + j.
    """

    def __init__(self, in_channels: int, width: int, typical: float) -> None:
        super().__init__(in_channels, 2, group="C8", width=width)
        self.flow_head = nn.Identity()
        self.ray_head = gnn.GroupConv2d(self.segmentation_head.in_channels, RAYS // 8, 1, group="C8")
        nn.init.zeros_(self.ray_head.weight)
        self.typical = typical  # where distances start, and their unit

    def maps(self, x: Tensor) -> Tensor:
        """Return two logits, the probability, and the distances in pixels, ``[B, 3 + 32, H, W]``."""
        features = self.neck(self.body(x))
        pooled = self.pool(features)
        rays = self.ray_head(features).transpose(1, 2).flatten(1, 2)
        return torch.cat((self.segmentation_head(pooled), self.distance_head(pooled), self.typical * (1 + rays)), dim=1)


class StarLoss(nn.Module):
    """The loss of `ObjectUNet`, the term of the flow replaced by the mean relative error of the distances.

    A relative error is that of a distance, over the mean distance of the pixel. It is weighted by the true probability,
    as in the paper. Rays that leave the crop are excluded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.classes = CrossEntropyDice()

    def forward(self, maps: Tensor, targets: Tensor) -> Tensor:
        inside, probability, rays = targets[:, 0], targets[:, 1], targets[:, 2:]
        size = rays.abs().mean(dim=1, keepdim=True).clamp_min(0.5)
        weight = probability[:, None] * (rays > 0)
        error = (weight * (maps[:, 3:] - rays).abs() / size).sum() / weight.sum().clamp_min(1)
        squared = (inside * (maps[:, 2] - probability) ** 2).sum() / inside.sum().clamp_min(1)
        return self.classes(maps[:, :2], inside.long()) + squared + error


def star(maps: np.ndarray, pixel: Pixel, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pixels in the star of a pixel, with distances multiplied by a factor."""
    (row, column), (down, across) = pixel, directions()
    rays = factor * maps[2:, row, column].clip(min=0)
    return polygon(row + rays * down, column + rays * across, maps.shape[1:])


def find_stars(maps: np.ndarray, overlap: float) -> list[Pixel]:
    """Return the pixels whose stars are objects, the most probable first.

    In the order of their probability, those are left out that lie in a star found before, or whose star shares more
    than ``overlap`` of the smaller one's pixels with one found before.
    """
    labels, sizes, found = np.zeros(maps.shape[1:], dtype=np.int64), [1], []
    pixels = np.flatnonzero((maps[0] > 0) & (maps[1] >= PROBABILITIES[0]))
    for place in pixels[np.argsort(-maps[1].ravel()[pixels], kind="stable")]:
        pixel = divmod(int(place), labels.shape[1])
        if labels[pixel]:
            continue
        inside = star(maps, pixel)
        size, before = len(inside[0]), labels[inside]
        shared = np.bincount(before, minlength=len(sizes))
        if size and (shared <= overlap * np.minimum(sizes, size))[1:].all():
            labels[inside] = np.where(before == 0, len(sizes), before)
            sizes.append(size)
            found.append(pixel)
    return found


def draw(maps: np.ndarray, stars: Sequence[Pixel], least: float, filled: bool) -> Tensor:
    """Return the labels of the stars with a probability of at least ``least``; where two overlap, the first is on top.

    If ``filled``, the borders are those of the predicted classes: objects lose their pixels of the background, and gain
    pixels of the foreground that lie in a slightly larger star.
    """
    labels, inner = np.zeros(maps.shape[1:], dtype=np.int64), maps[0] > 0
    for factor in (1.0, GROWN) if filled else (1.0,):
        for number, pixel in enumerate(stars, start=1):
            if maps[1][pixel] >= least:
                inside = star(maps, pixel, factor)
                free = (labels[inside] == 0) & (inner[inside] | (factor == 1))
                labels[inside] = np.where(free, number, labels[inside])
    return torch.from_numpy(labels * inner if filled else labels)


def predicted(model: StarUNet, image: Tensor) -> np.ndarray:
    """Return class, probability and distances in an image, ``[2 + 32, H, W]``."""
    with torch.no_grad():
        maps = Tiled(model.maps, 256)(image[None])[0].to(torch.float64)
    return torch.cat(((maps[1:2] > maps[:1]).double(), maps[2:])).numpy()


def choose_rules(maps: Sequence[np.ndarray], true: Tensor, filled: bool) -> dict[str, Any]:
    """Return the overlap and the least probability of the highest mean AP on validation images."""
    best, chosen = -1.0, {}
    for overlap in OVERLAPS:
        stars = [find_stars(each, overlap) for each in maps]
        for least in PROBABILITIES:
            scores = [
                object_scores(draw(each, found, least, filled), instances).mean_average_precision
                for each, found, instances in zip(maps, stars, true, strict=True)
            ]
            mean = mean_score(scores) or 0.0
            if mean > best:
                best, chosen = mean, {"overlap": overlap, "probability": least, "filled": filled}
    return chosen


def find(maps: np.ndarray, rules: dict[str, Any]) -> Tensor:
    """Return the labels of the objects found by the rules chosen."""
    return draw(maps, find_stars(maps, rules["overlap"]), rules["probability"], rules["filled"])


def score(maps: Sequence[np.ndarray], rules: dict[str, float], true: Tensor) -> dict[str, Any]:
    """Score the objects of the test images."""
    scores = [object_scores(find(each, rules), instances) for each, instances in zip(maps, true, strict=True)]
    return rules | {
        "AP50": mean_score([each.average_precision[0] for each in scores]) or 0.0,
        "AP": mean_score([each.mean_average_precision for each in scores]) or 0.0,
        "PQ": mean_score([each.panoptic_quality for each in scores]) or 0.0,
        "count error": sum(each.count_error for each in scores) / len(scores),
    }


def changes(moved_maps: Sequence[Sequence[np.ndarray]], rules: dict[str, Any]) -> dict[str, float]:
    """Return what changes when test images are rotated, given the maps at 0, 90, 180 and 270 degrees of each."""
    found = []
    for maps in moved_maps:
        labels, *moved = (find(each, rules) for each in maps)
        found += [changed_objects(labels, other, "C4", turn) for turn, other in enumerate(moved, start=1)]
    return {
        "partnerless": sum(change.partnerless for change in found) / len(found),
        "moved pixels": sum(change.pixels for change in found) / len(found),
    }


def train(model: StarUNet, name: str, split: Split, *, seed: int, args: argparse.Namespace) -> float:
    """Train all heads in place, as objects.py does, and return the seconds it took."""
    start, kind = time.process_time(), KINDS[name]
    start_at_frequencies(model, (split.masks > 0).long())
    crop = 32 if args.quick else kind.crop
    stream = CropStream(split, length=args.steps * kind.batch, crop=crop, symmetry="D4", seed=seed)
    module = ObjectSegmenter(model, learning_rate=args.lr, loss=StarLoss())
    fit(module, StarStream(stream), batch_size=kind.batch, seed=seed)
    return time.process_time() - start


def run(name: str, parts: dict[str, Split], images: int, seed: int, args: argparse.Namespace) -> dict[str, dict]:
    """Train one network and score both ways to draw its stars."""
    order = torch.randperm(len(parts["train"]), generator=torch.Generator().manual_seed(seed))[: images or None]
    labelled = Split(parts["train"].images[order], parts["train"].masks[order])
    normalize = Normalization.measure(labelled.images, KINDS[name].percentile)
    labelled = Split(normalize(labelled.images), labelled.masks)
    distances = torch.stack([star_targets(instances)[2:] for instances in labelled.masks])
    torch.manual_seed(seed)
    model = StarUNet(len(normalize.mean), max(1, args.channels // 8), float(distances[distances > 0].mean()))
    row = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    row["train seconds"] = train(model, name, labelled, seed=seed, args=args)
    model.eval()
    start = time.process_time()
    val = [predicted(model, image) for image in normalize(parts["val"].images)]
    test = [
        [predicted(model, image.rot90(turn, (-2, -1))) for turn in range(4)]
        for image in normalize(parts["test"].images)
    ]
    row["prediction seconds"] = time.process_time() - start
    rows = {}
    for method, filled in METHODS.items():
        rules = choose_rules(val, parts["val"].masks, filled)
        start = time.process_time()
        scores = score([maps[0] for maps in test], rules, parts["test"].masks) | changes(test, rules)
        rows[method] = row | {"decoding seconds": time.process_time() - start} | scores
    return rows


def run_true(parts: dict[str, Split]) -> dict[str, Any]:
    """Score the objects that the true distances yield."""
    val, test = ([star_targets(each).abs().numpy() for each in parts[part].masks] for part in ("val", "test"))
    return score(test, choose_rules(val, parts["val"].masks, filled=False), parts["test"].masks)


def tables(rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Format the means over seeds, and then the differences between the pairs."""
    means, pairs = [], []
    heads = [row | {"method": HEADS} for row in select(others, method="C8")]
    for name in TASKS:
        for images in sorted({row["images"] for row in rows}, key=lambda number: (number == ALL, number)):
            cells = {method: select([*heads, *rows], task=name, images=images, method=method) for method in ALL_METHODS}
            seeds = {row["seed"] for row in cells[STARS]}
            cells[HEADS] = [row for row in cells[HEADS] if row["seed"] in seeds]
            for method, cell in cells.items():
                if cell:
                    known = {key: 100 ** (key in PERCENT) * mean_of(cell, key) for key in SHOWN if key in cell[0]}
                    values = [f"{known[key]:.3f}" if key in known else "-" for key in SHOWN]
                    means.append([name, images or "all", method, len(cell), *values])
            for head, own in itertools.product(cells[HEADS], (row for method in METHODS for row in cells[method])):
                if head["seed"] == own["seed"]:
                    differences = [f"{own[key] - head[key]:+.3f}" for key in ("AP50", "AP")]
                    pairs.append([name, images or "all", own["seed"], own["method"], head["decoder"], *differences])
    yield markdown_table(["set", "images", "method", "seeds", *SCORES.values(), "training, s"], means)
    yield markdown_table(["set", "images", "seed", "method", "decoder of the heads", "AP at IoU 0.5", "mean AP"], pairs)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks and print the tables of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--images", nargs="+", type=int, default=[8, ALL], help=f"labelled images; {ALL} for all")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--lr", type=float, default=1e-2, help="learning rate")
    parser.add_argument("--channels", type=int, default=16, help="channels of a plain network of as many multiply-adds")
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    parser.add_argument("--beside", type=Path, default=BESIDE, help="rows of objects.py to compare with")
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
    rows = select(read_rows(args.table or args.out), **setting)
    print(*tables(rows, select(read_rows(args.beside), **setting)), sep="\n\n")
    return rows


def fill(setting: dict[str, Any], args: argparse.Namespace) -> None:
    """Run what the file lacks, and append the rows."""
    cells = [(name, images, seed) for seed in range(args.seeds) for images in args.images for name in args.tasks]
    known = {(row["method"], row["task"], row["images"], row["seed"]) for row in select(read_rows(args.out), **setting)}
    parts = {name: sample_parts(name) if args.quick else read_parts(name) for name in args.tasks}

    def append(name: str, images: int, seed: int, rows: dict[str, dict]) -> None:
        for method, row in rows.items():
            if (method, name, images, seed) not in known:
                append_row(args.out, {"task": name, "images": images, "seed": seed, "method": method} | setting | row)
                text = f"AP50 {row['AP50']:.3f}, mean AP {row['AP']:.3f}"
                print(f"{name}, {images or 'all'} images, seed {seed}, {method}: {text}", flush=True)

    for name in args.tasks:
        if (TRUE, name, ALL, 0) not in known:
            append(name, ALL, 0, {TRUE: run_true(parts[name])})
    for name, images, seed in cells:
        if any((method, name, images, seed) not in known for method in METHODS):
            append(name, images, seed, run(name, parts[name], images, seed, args))


if __name__ == "__main__":
    main()
