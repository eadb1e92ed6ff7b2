"""Images, kernels and feature maps as panels in rows and columns, with signs between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba_array
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from .._validate import invalid, one_of, wrong_shape
from ._colours import INK, PALETTE, SIGNED

Pixels = NDArray[np.float32]  # [H, W, 3], 0 .. 1

SIDE, GAP, WORD = 1.45, 0.14, 0.34  # inches: longest side of a panel, gap between panels, column of words
BAR, BAR_GAP, BAR_SPACE = 0.08, 0.05, 0.5  # inches: width of a colour bar, gap before it, and all that it takes
LINE, HEAD = 0.21, 0.09  # inches: a line of text above a panel, and the margin around the text
TITLE, SIGN, TICK = 10.5, 19, 8.5  # points: legible at half the width of a page

_LABEL_COLOURS = to_rgba_array(PALETTE)[:, :3].astype("float32")
_SIGNED_COLOURS = LinearSegmentedColormap.from_list("signed", SIGNED)


@dataclass(frozen=True)
class Panel:
    """An image, a kernel or a feature map, and how to show it.

    Args:
        values: The values to show: one channel, or three for RGB.
        title: Title above the panel. May hold formulas between dollar signs, and several lines.
        colours: "grey" (from the darkest to the brightest value), "signed" (blue below zero, white at zero, orange
            above), or "labels" (integers in the colours of `PALETTE`).
        limit: With "signed", the value shown in the darkest colour. If None, the largest absolute value. Panels to be
            compared need the same limit.
        border: Colour of a border around the panel. Equal borders mark panels that belong together.
        marks: Positions to mark, in pixels to the right and down.

    Shape:
        - values: ``[H, W]`` or ``[C, H, W]``, C one or three

    Raises:
        ValueError: The values have other axes, or an option is not one of those listed.

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
        """Return the colours, ``[H, W, 3]``."""
        values = self.values.detach().cpu()
        if values.ndim == 2:
            values = values.unsqueeze(0)
        if self.colours == "grey":
            return picture(values)
        if self.colours == "labels":
            return _LABEL_COLOURS[values[0].remainder(len(PALETTE)).numpy()]
        plane = values[0].to(torch.float64)
        limit = self.limit or max(plane.abs().max().item(), 1e-300)
        shown: Pixels = _SIGNED_COLOURS(((plane / limit + 1) / 2).clamp(0, 1).numpy())[..., :3].astype("float32")
        return shown

    def signed_limit(self) -> float | None:
        """Return the value shown in the darkest colour; None without signs, and for a panel of zeros without limit."""
        if self.colours != "signed":
            return None
        return self.limit or self.values.detach().abs().max().item() or None


def panel_figure(
    rows: Sequence[Sequence[Panel | str | None]],
    *,
    labels: Sequence[str] = (),
    colour_bars: bool = True,
    dpi: int = 120,
) -> Figure:
    r"""Draw panels in rows and columns. A string is a sign or a word between panels; None leaves a place empty.

    Columns that hold only strings are narrow. Panels keep their proportions and are not interpolated. Signed panels
    have a colour bar, on the right of the last of those in a row that share one limit.

    Args:
        rows: The rows, from the top. Shorter ones are filled with empty places.
        labels: Labels to the left of the rows.
        colour_bars: If False, leave out the colour bars of signed panels.
        dpi: Pixels of the file per inch. The longest side of a panel is 1.45 inches.

    Raises:
        ValueError: There is no panel, or the number of labels is not that of the rows.

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
        raise invalid("labels", f"{len(rows)} strings, one per row", labels)
    count = max(len(row) for row in rows)
    columns = [[row[c] for row in rows if c < len(row)] for c in range(count)]
    widths = [max(_size(panel)[0] for panel in column) for column in columns]
    heights = [max(_size(panel)[1] for panel in row) for row in rows]
    heads = [_title_height(row) for row in rows]
    left = LINE * 1.4 * max((label.count("\n") + 1 for label in labels if label), default=0) + GAP / 2
    bars = [_bar_limits(row) if colour_bars else {} for row in rows]
    spaces = [BAR_SPACE if any(c in limits for limits in bars) else 0.0 for c in range(count)]
    width = left + sum(widths) + sum(spaces) + GAP * (count - 1) + GAP / 2
    height = sum(heads) + sum(heights) + len(rows) * GAP
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    bottom = height
    for r, row in enumerate(rows):
        bottom -= heads[r] + heights[r] + GAP / 2
        for c, panel in enumerate(row):
            x = left + sum(widths[:c]) + sum(spaces[:c]) + GAP * c
            if panel is not None:
                axes = figure.add_axes((x / width, bottom / height, widths[c] / width, heights[r] / height))
                _draw(axes, panel)
            if c in bars[r]:
                across = (_size(panel)[0] + widths[c]) / 2  # a panel narrower than its column is in the middle of it
                box = ((x + across + BAR_GAP) / width, bottom / height, BAR / width, _size(panel)[1] / height)
                _draw_bar(figure.add_axes(box), bars[r][c])
        if labels:
            y = (bottom + heights[r] / 2) / height
            figure.text((left - GAP) / width, y, labels[r], rotation=90, ha="right", va="center", fontsize=TITLE)
        bottom -= GAP / 2
    return figure


def _bar_limits(row: Sequence[Panel | str | None]) -> dict[int, float]:
    """Return the limits of the colour bars of a row, by the column that each follows."""
    signed = [(c, limit) for c, panel in enumerate(row) if isinstance(panel, Panel) and (limit := panel.signed_limit())]
    following = [*(limit for _, limit in signed[1:]), math.inf]
    pairs = zip(signed, following, strict=False)  # without signed panels there is one more
    return {c: limit for (c, limit), after in pairs if not math.isclose(limit, after, rel_tol=1e-4)}


def _draw_bar(axes: Axes, limit: float) -> None:
    """Draw a colour bar from ``-limit`` to ``limit``."""
    shades = np.linspace(1, 0, 129)[:, None]
    axes.imshow(_SIGNED_COLOURS(shades), aspect="auto", extent=(0, 1, -1, 1))
    axes.set(xticks=[], yticks=[-1, 0, 1])
    axes.set_yticklabels([f"\N{MINUS SIGN}{limit:.2g}", "0", f"{limit:.2g}"], fontsize=TICK, color=INK)
    axes.yaxis.tick_right()
    axes.tick_params(length=2, pad=2, color="#b5b7ba")
    axes.spines[:].set(color="#b5b7ba", linewidth=0.6)


def _size(panel: Panel | str | None) -> tuple[float, float]:
    """Return the width and height in inches."""
    if not isinstance(panel, Panel):
        return WORD, 0.0
    rows, columns = panel.values.shape[-2:]
    return SIDE * columns / max(rows, columns), SIDE * rows / max(rows, columns)


def _title_height(row: Sequence[Panel | str | None]) -> float:
    """Return the height of the titles above a row, in inches."""
    titles = [panel.title for panel in row if isinstance(panel, Panel) and panel.title]
    return HEAD + LINE * max(title.count("\n") + 1 for title in titles) if titles else 0.0


def _draw(axes: Axes, panel: Panel | str) -> None:
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


def picture(image: Tensor) -> Pixels:
    """Return an image of any units as colours in 0 .. 1. Unless it is RGB, the mean of its channels is shown in grey.

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
