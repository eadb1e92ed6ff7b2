"""How a training went."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from .._validate import as_int, invalid
from ..filters import SteerableBasis
from ._panels import Panel, panel_figure
from ._style import PALETTE, chart


def learning_curves(losses: Sequence[tuple[int, float]], scores: Sequence[tuple[int, float]]) -> Figure:
    """The loss of each step, its running mean, and the Dice scores on the validation images.

    Args:
        losses: Steps and their losses.
        scores: Steps and the scores taken after them; may be empty.

    Example:
        >>> from gconv_ga.plots import learning_curves
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


def basis_figure(basis: SteerableBasis, *, element: int = 0, dpi: int = 120) -> Figure:
    """The functions that steerable kernels are made of, one row for each angular frequency.

    Blue is negative, orange positive, each function by its own largest value. Above each is its error: how much its
    output differs when function and photograph are turned together, relative to the output.

    Args:
        basis: The functions.
        element: Shows the functions as this element of the group has turned them.
        dpi: Pixels of the file per inch.

    Raises:
        ValueError: ``element`` is no element of the group.

    Example:
        >>> from gconv_ga.plots import basis_figure
        >>> from gconv_ga.filters import steerable_basis
        >>> figure = basis_figure(steerable_basis("C8", 3), element=1)
        >>> [axes.get_title() for axes in figure.axes]
        ['error 0.008', 'error 0.016', 'error 0.081', 'error 0.081', 'error 0.462', 'error 0.462']
    """
    order = basis.group.order
    if as_int("element", element, minimum=0) >= order:
        raise invalid("element", f"an element of {basis.group.name}, 0 to {order - 1}", element)
    kernels, rows = basis.kernels[:, element], dict[int, list[Panel | str | None]]()
    for kernel, frequency, error in zip(kernels, basis.frequency, basis.error, strict=True):
        rows.setdefault(frequency, []).append(Panel(kernel, f"error {error:.3f}", colours="signed"))
    labels = [f"frequency {frequency}" for frequency in rows]
    return panel_figure(list(rows.values()), labels=labels, dpi=dpi)


def tradeoff_chart(bases: Sequence[SteerableBasis], *, dpi: int = 120) -> Figure:
    """What more functions would cost: how many there are up to each error, the curves that `max_error` cuts.

    The errors are those that `max_error` bounds, on a mixture of sharp and blurred images: smaller than on photographs.
    A filled dot is a function, or a pair, that the basis has, an empty one what it leaves out; where a curve leaps is
    the edge of what turns. The legend has the expected error of random kernels of those taken.

    Args:
        bases: One or more, of groups with angles that are not quarter turns.
        dpi: Pixels of the file per inch.

    Raises:
        ValueError: There is no basis, or one whose group is exact: nothing is traded there.

    Example:
        >>> from gconv_ga.plots import tradeoff_chart
        >>> from gconv_ga.filters import steerable_basis
        >>> figure = tradeoff_chart([steerable_basis("C8", 3)])
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['C8, 3 x 3: 6 functions, expected error 0.054']
    """
    if not bases:
        raise invalid("bases", "at least one basis", bases)
    for basis in bases:
        if basis.group.is_exact():
            advice = "its rotations are index moves, so that every function has the error 0"
            raise invalid("bases", "bases of groups with other angles than quarter turns", basis.group, advice)
    figure, axes = chart("functions", "largest error of a function", size=(6.0, 3.4), dpi=dpi)
    for number, basis in enumerate(bases):
        colour, size = PALETTE[number % len(PALETTE)], basis.kernel_size
        name = f"{basis.group.name}, {size} x {size}: {len(basis)} functions, expected error {basis.expected_error:.3f}"
        taken = [point for point in basis.curve if point[0] <= len(basis)]
        left_out = [point for point in basis.curve if point[0] > len(basis)]
        axes.plot(*zip(*basis.curve, strict=True), color=colour, linewidth=1.0)
        axes.plot(*zip(*taken, strict=True), "o", color=colour, markersize=5, label=name)
        if left_out:
            axes.plot(*zip(*left_out, strict=True), "o", color=colour, markersize=5, markerfacecolor="white")
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure
