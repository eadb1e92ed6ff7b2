"""How a training went."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from ._chart import chart
from ._palette import PALETTE


def learning_curves(losses: Sequence[tuple[int, float]], scores: Sequence[tuple[int, float]]) -> Figure:
    """The loss of each step, its running mean, and the Dice scores on the validation images.

    Args:
        losses: Steps and their losses.
        scores: Steps and the scores taken after them; may be empty.

    Example:
        >>> figure = learning_curves([(1, 0.9), (2, 0.7)], [(2, 0.4)])
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss', 'Dice of the validation images']
    """
    figure, axes = chart("step", "loss")
    steps, values = [step for step, _ in losses], [loss for _, loss in losses]
    axes.plot(steps, values, color=PALETTE[7], linewidth=0.6, alpha=0.6)
    span = max(1, len(values) // 20)
    means = [sum(part) / len(part) for part in (values[max(0, end - span) : end] for end in range(1, len(values) + 1))]
    axes.plot(steps, means, color=PALETTE[0], linewidth=1.6, label=f"loss, mean of {span} steps")
    axes.set_ylim(bottom=0)
    if scores:
        right = axes.twinx()
        right.plot([step for step, _ in scores], [score for _, score in scores], "o-", color=PALETTE[5], markersize=3)
        right.set_ylabel("Dice of the validation images", color=PALETTE[5])
        right.set_ylim(0, 1)
        right.spines[["top", "left"]].set_visible(False)
    axes.yaxis.label.set_color(PALETTE[0])
    return figure
