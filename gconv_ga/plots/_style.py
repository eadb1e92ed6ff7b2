"""Colours that no colour blindness mixes: those of Okabe and Ito, in the order in which we use them."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#222222", "#8a8d92")
"""Blue, orange, green, purple, sky, vermilion, black, grey; the last is ours."""

INK = "#222222"
PALE = "#c9cacb"

# From negative over zero to positive; darker means larger.
SIGNED = ("#003b5c", "#0072b2", "#ffffff", "#e69f00", "#7a3d00")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a figure as PNG, in the size it was made for.

    Args:
        figure: The figure.
        path: The file; its folder is made if need be.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> from gconv_ga.plots import save_figure
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_figure(Figure(), f"{folder}/empty.png").name
        'empty.png'
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(file)
    return file


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
        >>> from gconv_ga.plots import chart
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
