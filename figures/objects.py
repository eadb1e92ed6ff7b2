"""Draw the objects that two networks find in an image and in the rotated image: which have a partner in the other.

The networks are those of benchmarks/objects.py, kept with --weights. Shown is the first test image; all counts are of
that image.
Usage: python figures/objects.py WEIGHTS_OF_C4 WEIGHTS_OF_BASELINE [FILE]
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from gconv_ga.actions import LabelMask, ScalarField
from gconv_ga.objects import changed_objects
from gconv_ga.plots import PALETTE, save_figure
from gconv_ga.predict import predict_objects
from gconv_ga.segmenter import load_checkpoint

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))
from objects import read_parts  # noqa: E402

TASK = "histology"
FILLS = (PALETTE[0], PALETTE[4], PALETTE[2], "#b7d4e8", "#7fc7a9")  # blues and greens: the others are for changes
CHANGED, NONE = "#d55e00", "#f1f1ee"
DPI, PANEL, GAP, LEFT, TOP, BOTTOM = 200, 512, 24, 72, 72, 160  # pixels of the file
TITLE, TEXT = 14, 11.5  # points


def partners(labels: Tensor, others: Tensor) -> dict[int, int]:
    """Return for each object the object in another label map with an intersection over union of at least one half."""
    found = {}
    for number in range(1, int(labels.max()) + 1):
        own = labels == number
        overlap = others[own].bincount()
        overlap[0] = 0
        best = int(overlap.argmax())
        if overlap[best] >= 0.5 * (own | (others == best)).sum():
            found[number] = best
    return found


def painted(labels: Tensor, fills: dict[int, int]) -> Tensor:
    """Paint objects: the colours of ``fills`` by number, those without one in vermilion; with gaps between objects."""
    colours = torch.tensor([[int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)] for text in (*FILLS, CHANGED, NONE)])
    index = torch.full_like(labels, len(FILLS) + 1)
    for number in range(1, int(labels.max()) + 1):
        index[labels == number] = fills[number] % len(FILLS) if number in fills else len(FILLS)
    edge = torch.zeros_like(labels, dtype=torch.bool)
    edge[:-1] |= (labels[:-1] != labels[1:]) & (labels[:-1] > 0) & (labels[1:] > 0)
    edge[:, :-1] |= (labels[:, :-1] != labels[:, 1:]) & (labels[:, :-1] > 0) & (labels[:, 1:] > 0)
    index[edge] = len(FILLS) + 1
    return colours[index]


def lost_objects(labels: Tensor, rotated: Tensor) -> int:
    """Count the objects of an image and of the rotated image that have no partner in the other."""
    share = changed_objects(labels, rotated, "C4", 1).partnerless
    return round(share * (int(labels.max()) + int(rotated.max())))


def found_in(path: str, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the objects that a network finds in an image and in the image rotated by 90 degrees."""
    model, config, _ = load_checkpoint(path)
    normalized = config.normalization(image)
    first, second = (
        predict_objects(model, x, decoder=config.decoder).objects.labels
        for x in (normalized, ScalarField()(normalized, "C4", 1))
    )
    return first, second


def main(ours: str, baseline: str, file: str) -> None:
    """Draw the figure: in the first row the objects of the image, in the second those of the rotated image."""
    test = read_parts(TASK)["test"]
    image, true = test.images[0], test.masks[0]
    columns = {"C4 U-Net": found_in(ours, image), "baseline, augmented": found_in(baseline, image)}
    width = LEFT + 4 * (PANEL + GAP)
    height = TOP + 2 * PANEL + GAP + BOTTOM
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def place(row: int, column: int, pixels: Tensor, title: str = "", below: str = "") -> None:
        left, bottom = LEFT + column * (PANEL + GAP), height - TOP - (row + 1) * PANEL - row * GAP
        axes = figure.add_axes((left / width, bottom / height, PANEL / width, PANEL / height))
        axes.imshow(pixels.numpy(), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=TITLE, pad=8)
        axes.set_xlabel(below, fontsize=TEXT, labelpad=8, linespacing=1.4, weight="bold")
        if column == 0:
            axes.set_ylabel(("original", "rotated by 90°")[row], fontsize=TITLE, labelpad=8)

    shown = (image / image.max()).movedim(0, -1)
    same = {number: number for number in range(1, int(true.max()) + 1)}
    turned = LabelMask()(true, "C4", 1)
    place(0, 0, shown, "image")
    place(1, 0, shown.rot90())
    place(0, 1, painted(true, same), "true objects")
    place(1, 1, painted(turned, same))
    for column, (name, (labels, rotated)) in enumerate(columns.items(), start=2):
        expected = LabelMask()(labels, "C4", 1)
        back, forth = partners(rotated, expected), partners(expected, rotated)
        below = (
            f"{int(labels.max())} objects, rotated {int(rotated.max())}",
            f"{lost_objects(labels, rotated)} without a partner",
        )
        place(0, column, painted(labels, {number: number for number in forth}), name)
        place(1, column, painted(rotated, back), below="\n".join(below))
    patches = [
        Patch(facecolor=FILLS[0], label="same colour: partners (IoU at least 0.5)"),
        Patch(facecolor=CHANGED, label="no partner in the other image"),
    ]
    figure.legend(handles=patches, loc="lower left", bbox_to_anchor=(LEFT / width, 0.01), frameon=False, fontsize=TEXT)
    save_figure(figure, file)


if __name__ == "__main__":
    main(*sys.argv[1:3], *(sys.argv[3:] or [str(HERE / "objects.png")]))
