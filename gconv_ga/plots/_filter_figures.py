"""Figures of steerable filters: the basis functions, and the trade-off between their number and their error."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from .._validate import as_int, invalid
from ..filters import SteerableBasis
from ._charts import chart
from ._colours import PALETTE
from ._panels import Panel, panel_figure


def basis_figure(basis: SteerableBasis, *, element: int = 0, dpi: int = 120) -> Figure:
    """Draw the basis functions of steerable kernels, one row per angular frequency.

    Blue is negative and orange positive; each function is scaled by its own largest value. The title of a function is
    its error: the relative change of its output when function and photograph are rotated together.

    Args:
        basis: The basis.
        element: Index of the group element by which the functions are rotated.
        dpi: Pixels of the file per inch.

    Raises:
        ValueError: ``element`` is not an element of the group.

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
    return panel_figure(list(rows.values()), labels=labels, colour_bars=False, dpi=dpi)


def tradeoff_chart(bases: Sequence[SteerableBasis], *, dpi: int = 120) -> Figure:
    """Draw the number of basis functions up to each error: the curves that `max_error` cuts.

    The errors are those that `max_error` bounds, on a mixture of sharp and blurred images; they are smaller than on
    photographs. A filled dot is a function, or a pair of them, in the basis, an empty dot one that the basis leaves
    out. The curve jumps where functions stop rotating well. The legend shows the expected error of random kernels in
    the basis.

    Args:
        bases: One or more bases of groups with angles other than multiples of 90 degrees.
        dpi: Pixels of the file per inch.

    Raises:
        ValueError: There is no basis, or the group of one is exact on the grid, so that there is no trade-off.

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
            advice = "its rotations permute pixels, so every function has the error 0"
            takes = "bases of groups with angles other than multiples of 90 degrees"
            raise invalid("bases", takes, basis.group, advice)
    figure, axes = chart("number of basis functions", "largest error of a function", size=(6.0, 3.4), dpi=dpi)
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
