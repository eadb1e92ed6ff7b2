"""Images and label maps as arrays of colours: those of Okabe and Ito, which no colour blindness mixes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from .._validate import invalid, one_of, wrong_shape
from ._style import INK, PALETTE, SIGNED

Pixels = NDArray[np.float32]  # [H, W, 3], 0 .. 1

PAPER = "#f1f1ee"
HIT = "#5b5f66"
MISSED = "#e69f00"  # orange
EXTRA = "#0072b2"  # blue
WRONG = "#cc79a7"  # purple
CHANGED = "#882255"  # wine, of Tol's muted colours: darker than all above, and no grey
FAINT = "#d3d4d3"


def picture(image: Tensor) -> Pixels:
    """An image of any units and channels as colours in 0 .. 1; what is not RGB is shown grey, its channels' mean.

    Shape:
        - image: ``[C, H, W]``
        - output: ``[H, W, 3]``
    """
    pixels = image if image.shape[0] == 3 else image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    values = pixels.flatten().sort().values
    # The brightest and darkest half percent may saturate, or one hot pixel makes the whole image black.
    low, high = values[len(values) // 200], values[-1 - len(values) // 200]
    scaled = (pixels - low) / (high - low).clamp_min(1e-12)
    array: Pixels = scaled.clamp(0, 1).permute(1, 2, 0).to(torch.float32).numpy()
    return array


def region(labels: Tensor) -> Pixels:
    """What is no background."""
    return _paint((torch.ones_like(labels, dtype=torch.bool), PAPER), (labels > 0, HIT))


def against_truth(labels: Tensor, truth: Tensor) -> Pixels:
    """A prediction, coloured by what is right and wrong in it."""
    found, there = labels > 0, truth > 0
    return _paint(
        (torch.ones_like(found), PAPER),
        (found & there, HIT),
        (found & there & (labels != truth), WRONG),
        (there & ~found, MISSED),
        (found & ~there, EXTRA),
    )


def changed(labels: Tensor, expected: Tensor) -> Pixels:
    """Where two predictions differ, over the region that was expected."""
    return _paint(
        (torch.ones_like(labels, dtype=torch.bool), PAPER), (expected > 0, FAINT), (labels != expected, CHANGED)
    )


def _paint(*layers: tuple[Tensor, str]) -> Pixels:
    """Colours by masks ``[H, W]``, later ones over earlier ones; the first covers everything."""
    canvas = torch.empty(*layers[0][0].shape, 3)
    for mask, colour in layers:
        canvas[mask] = _rgb(colour)
    array: Pixels = canvas.numpy()
    return array


def _rgb(colour: str) -> Tensor:
    return torch.tensor([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])


SIDE, GAP, WORD = 1.45, 0.14, 0.34  # inches: the longest side of a panel, between panels, a column of words
LINE, HEAD = 0.21, 0.09  # a line of text above a panel, and the room around it
TITLE, SIGN = 10.5, 19  # points: read at half the width of a page

_BY_LABEL = to_rgba_array(PALETTE)[:, :3].astype("float32")
_COLOURS = LinearSegmentedColormap.from_list("signed", SIGNED)


@dataclass(frozen=True)
class Panel:
    """An image, a kernel or a map, and how to show it.

    Args:
        values: What is shown; one channel, or three for RGB.
        title: Above it; may hold formulas between dollar signs, and several lines.
        colours: "grey" (from the darkest to the brightest value), "signed" (blue below zero, white at zero, orange
            above), or "labels" (integers by the colours of `PALETTE`).
        limit: With "signed" the value of the darkest colour; None for the largest. Panels that are compared need the
            same.
        border: A colour for a frame around it: equal frames say that panels belong together.
        marks: Places to be marked, in pixels to the right and down.

    Shape:
        - values: ``[H, W]`` or ``[C, H, W]``, C one or three

    Raises:
        ValueError: The values have other axes, or an option is none of those listed.

    Example:
        >>> import torch
        >>> from gconv_ga.plots import Panel
        >>> Panel(torch.rand(1, 8, 12), "$f$").values.shape
        torch.Size([1, 8, 12])
    """

    values: Tensor
    title: str = ""
    colours: str = "grey"
    limit: float | None = None
    border: str | None = None
    marks: Sequence[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        one_of("colours", self.colours, ("grey", "signed", "labels"))
        if self.limit is not None and not self.limit > 0:
            raise invalid("limit", "a positive number or None", self.limit)
        if self.values.ndim not in (2, 3) or (self.values.ndim == 3 and self.values.shape[0] not in (1, 3)):
            raise wrong_shape("values", "[H, W] or [C, H, W] with one or three channels", self.values)
        if self.colours != "grey" and self.values.ndim == 3 and self.values.shape[0] == 3:
            raise wrong_shape("values", f"[H, W] or [1, H, W] with colours={self.colours!r}", self.values)
        if self.colours == "labels" and self.values.is_floating_point():
            raise invalid("values", 'integers with colours="labels"', self.values)

    def pixels(self) -> Pixels:
        """The colours, ``[H, W, 3]``."""
        values = self.values.detach().cpu()
        if values.ndim == 2:
            values = values.unsqueeze(0)
        if self.colours == "grey":
            return picture(values)
        if self.colours == "labels":
            return _BY_LABEL[values[0].remainder(len(PALETTE)).numpy()]
        plane = values[0].to(torch.float64)
        limit = self.limit or max(plane.abs().max().item(), 1e-300)
        shown: Pixels = _COLOURS(((plane / limit + 1) / 2).clamp(0, 1).numpy())[..., :3].astype("float32")
        return shown


def panel_figure(rows: Sequence[Sequence[Panel | str | None]], *, labels: Sequence[str] = (), dpi: int = 120) -> Figure:
    r"""Panels in rows and columns; a string is a sign or a word between panels, None leaves the place empty.

    Columns that hold only strings are narrow. Panels keep their proportions and show every pixel as it is.

    Args:
        rows: The rows, from the top; shorter ones are filled with empty places.
        labels: Beside the rows, at the left.
        dpi: Pixels of the file per inch; a panel's longest side is 1.45 inches.

    Raises:
        ValueError: There is no panel, or there are not as many labels as rows.

    Example:
        >>> import torch
        >>> from gconv_ga.plots import Panel, panel_figure
        >>> image = torch.rand(8, 12)
        >>> figure = panel_figure([[Panel(image, "$f$"), r"$\to$", Panel(image.rot90(), "$L_g f$")]])
        >>> len(figure.axes)
        3
    """
    if not any(isinstance(panel, Panel) for row in rows for panel in row):
        raise invalid("rows", "rows with at least one Panel", rows)
    if labels and len(labels) != len(rows):
        raise invalid("labels", f"{len(rows)} strings, one a row", labels)
    count = max(len(row) for row in rows)
    columns = [[row[c] for row in rows if c < len(row)] for c in range(count)]
    widths = [max(_size(panel)[0] for panel in column) for column in columns]
    heights = [max(_size(panel)[1] for panel in row) for row in rows]
    heads = [_head(row) for row in rows]
    left = LINE * 1.4 * max((label.count("\n") + 1 for label in labels if label), default=0) + GAP / 2
    width = left + sum(widths) + GAP * (count - 1) + GAP / 2
    height = sum(heads) + sum(heights) + len(rows) * GAP
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    bottom = height
    for r, row in enumerate(rows):
        bottom -= heads[r] + heights[r] + GAP / 2
        for c, panel in enumerate(row):
            x = left + sum(widths[:c]) + GAP * c
            if panel is not None:
                axes = figure.add_axes((x / width, bottom / height, widths[c] / width, heights[r] / height))
                _fill(axes, panel)
        if labels:
            y = (bottom + heights[r] / 2) / height
            figure.text((left - GAP) / width, y, labels[r], rotation=90, ha="right", va="center", fontsize=TITLE)
        bottom -= GAP / 2
    return figure


def _size(panel: Panel | str | None) -> tuple[float, float]:
    """Width and height in inches."""
    if not isinstance(panel, Panel):
        return WORD, 0.0
    rows, columns = panel.values.shape[-2:]
    return SIDE * columns / max(rows, columns), SIDE * rows / max(rows, columns)


def _head(row: Sequence[Panel | str | None]) -> float:
    titles = [panel.title for panel in row if isinstance(panel, Panel) and panel.title]
    return HEAD + LINE * max(title.count("\n") + 1 for title in titles) if titles else 0.0


def _fill(axes: Axes, panel: Panel | str) -> None:
    if isinstance(panel, str):
        axes.axis("off")
        axes.text(0.5, 0.5, panel, ha="center", va="center", fontsize=SIGN, color=INK, transform=axes.transAxes)
        return
    axes.imshow(panel.pixels(), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(panel.title, fontsize=TITLE, pad=4, color=INK)
    for spine in axes.spines.values():
        spine.set(color=panel.border or "#b5b7ba", linewidth=3.5 if panel.border else 0.6)
    for x, y in panel.marks:
        axes.plot(x, y, "o", markersize=11, markerfacecolor="none", markeredgecolor="white", markeredgewidth=3.5)
        axes.plot(x, y, "o", markersize=11, markerfacecolor="none", markeredgecolor="#d55e00", markeredgewidth=1.8)


DPI = 200
PANEL, GAP = 384, 24  # 384 is three times the sample's 128: a pixel of an image is 3 x 3 of the file
LEFT, TOP, BOTTOM = 72, 72, 64
TITLE, TEXT = 12.5, 11.5  # points, 35 and 32 pixels of the file: still read at half its width


def lay_out(titles: Sequence[str], rows: Sequence[Sequence[Pixels]], notes: Sequence[str], *, several: bool) -> Figure:
    """The figure: two full rows of panels, and a third whose first two places hold the legend.

    Args:
        titles: Of the columns.
        rows: The panels: as many as titles, as many as titles, two less.
        notes: Below the panels of the last row.
        several: Whether there is more than one class beside the background.
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
        axes.spines[:].set_visible(False)
        return axes

    for row, first in enumerate((0, 0, 2)):
        for column, pixels in enumerate(rows[row], start=first):
            axes = place(row, column)
            axes.imshow(pixels, interpolation="nearest")
            if row == 0:
                axes.set_title(titles[column], fontsize=TITLE, pad=8)
            if row == 2:
                axes.set_xlabel(notes[column - first], fontsize=TEXT, labelpad=6)
            if column == 0:
                axes.set_ylabel(("upright", "turned")[row], fontsize=TITLE, labelpad=8)
    colours = {"found": HIT, "missed": MISSED, "not there": EXTRA}
    if several:
        colours["found as another class"] = WRONG
    colours["label changed by the turn"] = CHANGED
    patches = [Patch(facecolor=colour, label=label) for label, colour in colours.items()]
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
