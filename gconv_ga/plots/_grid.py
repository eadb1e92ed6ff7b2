"""Panels in a grid, every measure in pixels of the file."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ._panels import CHANGED, EXTRA, HIT, MISSED, WRONG, Pixels

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
