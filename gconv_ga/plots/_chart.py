"""A plain pair of axes in the common style."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._palette import INK, PALE

TEXT = 10.5  # points


def chart(
    xlabel: str = "", ylabel: str = "", *, title: str = "", size: tuple[float, float] = (5.0, 2.8), dpi: int = 120
) -> tuple[Figure, Axes]:
    """An empty chart: a figure and its axes, to be drawn on with matplotlib's own methods.

    Args:
        xlabel: Below the horizontal axis.
        ylabel: Beside the vertical axis.
        title: Above.
        size: Width and height in inches.
        dpi: Pixels of the file per inch.

    Example:
        >>> figure, axes = chart("angle", "error")
        >>> lines = axes.plot([0, 90], [0.0, 0.1])
        >>> axes.get_xlabel()
        'angle'
    """
    figure = Figure(figsize=size, dpi=dpi, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel, fontsize=TEXT)
    axes.set_ylabel(ylabel, fontsize=TEXT)
    axes.set_title(title, fontsize=TEXT, color=INK, loc="left")
    axes.tick_params(labelsize=TEXT - 1, color=PALE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.grid(axis="y", color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes
