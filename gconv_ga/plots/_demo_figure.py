"""The figure of `gconv-ga demo`: the predictions of several networks for an image and for the rotated image."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from .._validate import invalid, wrong_shape
from ..actions import LabelMask, ScalarField
from ..groups import Group, as_group
from ._colours import INK
from ._panels import Pixels, picture

BACKGROUND = "#f1f1ee"
CORRECT = "#5b5f66"
MISSED = "#e69f00"  # orange
FALSE_POSITIVE = "#0072b2"  # blue
WRONG_CLASS = "#cc79a7"  # purple
CHANGED = "#882255"  # wine, of Tol's muted colours: darker than all above, and not grey
UNCHANGED = "#d3d4d3"

DPI = 200
PANEL, GAP = 384, 24  # 384 is three times the sample's 128: a pixel of an image is 3 x 3 pixels of the file
LEFT, TOP, BOTTOM = 72, 72, 64
TITLE, TEXT = 12.5, 11.5  # points, 35 and 32 pixels of the file: legible at half its width


def demo_figure(
    image: Tensor,
    truth: Tensor,
    predictions: Mapping[str, tuple[Tensor, Tensor]],
    *,
    group: Group | str,
    element: int,
) -> Figure:
    """Draw the predictions of several networks for an image and for the moved image, and the labels that changed.

    The rows are the original image, the image moved by ``element``, and the difference between the two predictions.
    The columns are the image, the ground truth, and one per network. The colours are safe for colour-blind readers. At
    angles off the grid, pixels from outside the image are white and are not compared.

    Args:
        image: The image, in any units.
        truth: Its ground truth, class indices with 0 for the background.
        predictions: For each network its name and two label maps: of the image, and of the moved image.
        group: The group or its name.
        element: Index of the element by which the image is moved.

    Shape:
        - image: ``[C, H, W]``
        - truth, and the first map of each pair: ``[H, W]``
        - the second map of each pair: the shape of the moved image

    Raises:
        ValueError: There is no prediction, ``element`` is not an element of the group, or a map has the wrong shape.

    Example:
        >>> import torch
        >>> from gconv_ga.plots import demo_figure
        >>> truth = torch.zeros(16, 24, dtype=torch.int64)
        >>> both = {"one": (truth, truth.T), "two": (truth, truth.T)}
        >>> figure = demo_figure(torch.rand(3, 16, 24), truth, both, group="C4", element=1)
        >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
        ['image', 'ground truth', 'one', 'two']
    """
    if not predictions:
        raise invalid("predictions", "at least one network's two label maps", predictions)
    symmetry, move = as_group(group), LabelMask()
    moved_truth = move(truth, symmetry, element)
    for name, maps in predictions.items():
        for labels, shape in zip(maps, (truth.shape, moved_truth.shape), strict=True):
            if labels.shape != shape:
                raise wrong_shape(f"predictions[{name!r}]", f"[H, W] = {tuple(shape)}", labels)
    inside = move(torch.ones_like(truth), symmetry, element)  # 0 for pixels from outside the image, off the grid
    rows = [
        [picture(image), _foreground(truth)],
        [picture(ScalarField()(image, symmetry, element)), _foreground(moved_truth)],
        [],
    ]
    notes = []
    for original, moved in predictions.values():
        expected, found = move(original, symmetry, element), moved * inside
        rows[0].append(_against_truth(original, truth))
        rows[1].append(_against_truth(found, moved_truth))
        rows[2].append(_changes(found, expected))
        count = int((found != expected).sum())
        notes.append(f"{count:,} label{'' if count == 1 else 's'} changed")
    for pixels in rows[1] + rows[2]:
        pixels[inside.numpy() == 0] = 1.0  # white
    all_maps = (truth, *(labels for pair in predictions.values() for labels in pair))
    legend = {"correct": CORRECT, "missed": MISSED, "false positive": FALSE_POSITIVE}
    if max(int(labels.max()) for labels in all_maps) > 1:
        legend["wrong class"] = WRONG_CLASS
    legend["label changed"] = CHANGED
    names = ("original", _motion(symmetry, element), "difference")
    return _lay_out(["image", "ground truth", *predictions], names, rows, notes, legend)


def _motion(group: Group, element: int) -> str:
    """Return in words how an element moves the image, for the label of a row."""
    angle = 360 * (element % group.n) / group.n
    reflected = ["reflected"] if element >= group.n else []
    return ", ".join(reflected + ([f"rotated by {angle:g}°"] if angle else [])) or "not moved"


def _foreground(labels: Tensor) -> Pixels:
    """Colour everything but the background."""
    return _paint((torch.ones_like(labels, dtype=torch.bool), BACKGROUND), (labels > 0, CORRECT))


def _against_truth(labels: Tensor, truth: Tensor) -> Pixels:
    """Colour a prediction by its errors."""
    found, present = labels > 0, truth > 0
    return _paint(
        (torch.ones_like(found), BACKGROUND),
        (found & present, CORRECT),
        (found & present & (labels != truth), WRONG_CLASS),
        (present & ~found, MISSED),
        (found & ~present, FALSE_POSITIVE),
    )


def _changes(labels: Tensor, expected: Tensor) -> Pixels:
    """Colour the pixels at which two predictions differ, over the foreground of the expected one."""
    everywhere = torch.ones_like(labels, dtype=torch.bool)
    return _paint((everywhere, BACKGROUND), (expected > 0, UNCHANGED), (labels != expected, CHANGED))


def _paint(*layers: tuple[Tensor, str]) -> Pixels:
    """Paint masks ``[H, W]`` in colours, later ones over earlier ones. The first covers everything."""
    canvas = torch.empty(*layers[0][0].shape, 3)
    for mask, colour in layers:
        canvas[mask] = torch.tensor([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    pixels: Pixels = canvas.numpy()
    return pixels


def _lay_out(
    titles: Sequence[str],
    names: Sequence[str],
    rows: Sequence[Sequence[Pixels]],
    notes: Sequence[str],
    legend: Mapping[str, str],
) -> Figure:
    """Return the figure: two full rows of panels, and a third whose first two places hold the legend.

    Args:
        titles: Titles of the columns.
        names: Labels of the three rows.
        rows: The panels: as many as titles in the first two rows, two less in the third.
        notes: Notes below the panels of the third row.
        legend: Colours by their meaning.
    """
    width = LEFT + len(titles) * (PANEL + GAP)
    height = TOP + 3 * PANEL + 2 * GAP + BOTTOM
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def place(row: int, column: int, columns: int = 1) -> Axes:
        left = LEFT + column * (PANEL + GAP)
        bottom = height - TOP - (row + 1) * PANEL - row * GAP
        size = columns * PANEL + (columns - 1) * GAP
        axes: Axes = figure.add_axes((left / width, bottom / height, size / width, PANEL / height))
        axes.set(xticks=[], yticks=[])
        axes.patch.set_visible(False)  # the legend must not cover the label of the third row
        axes.spines[:].set_visible(False)
        return axes

    for row, first in enumerate((0, 0, 2)):
        for column, pixels in enumerate(rows[row], start=first):
            axes = place(row, column)
            axes.imshow(pixels, interpolation="nearest")
            if row == 0:
                # A long title is written smaller, so that it does not run into its neighbours.
                axes.set_title(titles[column], fontsize=TITLE * min(1, 21 / len(titles[column])), pad=8)
            if row == 2:
                axes.set_xlabel(notes[column - first], fontsize=TEXT, labelpad=6, weight="bold", color=INK)
            if column == first:
                axes.set_ylabel(names[row], fontsize=TITLE, labelpad=8)
    patches = [Patch(facecolor=colour, label=label) for label, colour in legend.items()]
    place(2, 0, columns=2).legend(
        handles=patches,
        loc="center",
        frameon=False,
        fontsize=TEXT,
        labelspacing=0.9,
        handlelength=1.2,
        handleheight=1.2,
    )
    return figure
