"""Charts of numbers: the common style, and the learning curves of a training."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._colours import INK, PALE, PALETTE

TEXT = 10.5  # points


def chart(
    xlabel: str = "", ylabel: str = "", *, title: str = "", size: tuple[float, float] = (5.0, 2.8), dpi: int = 120
) -> tuple[Figure, Axes]:
    """Return an empty chart, a figure and its axes, to draw on with matplotlib's own methods.

    Args:
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: Title above the axes.
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


def learning_curves(
    losses: Sequence[tuple[int, float]], scores: Sequence[tuple[int, float]], score: str = "Dice"
) -> Figure:
    """Draw the loss of each step, its running mean, and the scores on the validation images.

    Args:
        losses: Steps and their losses.
        scores: Steps and the scores after them, from 0 to 1. May be empty.
        score: Name of the score.

    Example:
        >>> from gconv_ga.plots import learning_curves
        >>> figure = learning_curves([(1, 0.9), (2, 0.7)], [(2, 0.4)])
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['training loss', 'validation Dice']
    """
    figure, axes = chart("step", "training loss")
    steps, values = [step for step, _ in losses], [loss for _, loss in losses]
    axes.plot(steps, values, color=PALETTE[7], linewidth=0.6, alpha=0.6)
    span = max(1, len(values) // 20)
    means = [sum(part) / len(part) for part in (values[max(0, end - span) : end] for end in range(1, len(values) + 1))]
    axes.plot(steps, means, color=PALETTE[0], linewidth=1.6, label=f"loss, mean of {span} steps")
    axes.set_ylim(bottom=0)
    if scores:
        right = axes.twinx()
        right.plot([step for step, _ in scores], [score for _, score in scores], "o-", color=PALETTE[5], markersize=3)
        right.set_ylabel(f"validation {score}", color=PALETTE[5])
        right.set_ylim(0, 1)
        right.spines[["top", "left"]].set_visible(False)
    axes.yaxis.label.set_color(PALETTE[0])
    return figure
