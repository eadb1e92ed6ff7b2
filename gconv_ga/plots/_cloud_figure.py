"""Point clouds in two and three dimensions, with bonds, arrows and frames."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .._validate import as_int, invalid, wrong_shape
from ..frames import FrameSet
from ._colours import INK, PALE, PALETTE

SIDE, HEAD, LINE = 1.9, 0.1, 0.23  # inches
TITLE = 10.5  # points

# Jmol's grey for carbon and white for hydrogen; blue and red are from our palette, safe for any colour vision.
ATOMS = {"H": ("#ffffff", 0.6), "C": ("#6f7378", 1.0), "N": ("#0072b2", 1.0), "O": ("#d55e00", 1.0)}


@dataclass(frozen=True)
class Cloud:
    """A point cloud, and the bonds, arrows and frames to draw on it.

    Args:
        points: The points.
        title: Title above the cloud.
        frames: Frames of one sample. Each is drawn as its axes at its origin; larger weights are darker. Axes that
            several elements share are drawn once, with the sum of their weights.
        shown_axes: Number of axes of each element to draw, from the first. If None, all of them.
        bonds: Pairs of indices of points to join.
        symbols: Chemical symbols of the points, for colours and sizes. If None, the points are black dots.
        arrows: One arrow per point.

    Shape:
        - points: ``[N, d]``, d = 2 or 3
        - arrows: ``[N, d]``

    Raises:
        ValueError: The points have other axes, a frame or arrows do not fit, or ``shown_axes`` is not from 1 to d.

    Example:
        >>> import torch
        >>> from gconv_ga.plots import Cloud
        >>> from gconv_ga.frames import PCAFrame
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> Cloud(x, "a triangle", frames=PCAFrame("E", 2)(x[None])).points.shape
        torch.Size([3, 2])
    """

    points: Tensor
    title: str = ""
    frames: FrameSet | None = None
    shown_axes: int | None = None
    bonds: Sequence[tuple[int, int]] = ()
    symbols: Sequence[str] | None = None
    arrows: Tensor | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] not in (2, 3):
            raise wrong_shape("points", "[N, d] with d = 2 or 3", self.points)
        if self.arrows is not None and self.arrows.shape != self.points.shape:
            raise wrong_shape("arrows", f"of the shape of points, {tuple(self.points.shape)}", self.arrows)
        if self.frames is not None and self.frames.rotations.shape[::3] != (1, self.points.shape[1]):
            takes = f"[1, K, d={self.points.shape[1]}, d], of one sample"
            raise wrong_shape("frames.rotations", takes, self.frames.rotations)
        if self.shown_axes is not None and as_int("shown_axes", self.shown_axes, minimum=1) > self.points.shape[1]:
            raise invalid("shown_axes", f"at most {self.points.shape[1]}, the dimension", self.shown_axes)
        if self.symbols is not None and len(self.symbols) != len(self.points):
            raise invalid("symbols", f"{len(self.points)} strings, one per point", self.symbols)


def cloud_figure(
    rows: Sequence[Sequence[Cloud | None]],
    *,
    labels: Sequence[str] = (),
    view: tuple[float, float] = (24.0, 32.0),
    reach: float | None = None,
    dpi: int = 120,
) -> Figure:
    """Draw point clouds side by side at one scale. First axes are blue, second ones orange, third ones green.

    Args:
        rows: The clouds. None leaves a place empty.
        labels: Labels to the left of the rows.
        view: Elevation and azimuth of the viewpoint for clouds in space, in degrees.
        reach: Half the side of a panel in the units of the points. If None, the largest cloud fits, with its arrows.
        dpi: Pixels of the file per inch.

    Raises:
        ValueError: There is no cloud, or the number of labels is not that of the rows.

    Example:
        >>> import torch
        >>> from gconv_ga.plots import Cloud, cloud_figure
        >>> len(cloud_figure([[Cloud(torch.rand(4, 3)), Cloud(torch.rand(4, 2))]]).axes)
        2
    """
    clouds = [cloud for row in rows for cloud in row if cloud is not None]
    if not clouds:
        raise invalid("rows", "rows with at least one Cloud", rows)
    if labels and len(labels) != len(rows):
        raise invalid("labels", f"{len(rows)} strings, one per row", labels)
    half = reach or max(1e-9, *(_needed_reach(cloud) for cloud in clouds))
    heads = [LINE * max(_title_lines(cloud) for cloud in row) + HEAD for row in rows]
    left = 0.4 if labels else 0.05
    width = left + SIDE * max(len(row) for row in rows)
    height = sum(heads) + SIDE * len(rows)
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    top = height
    for r, row in enumerate(rows):
        top -= heads[r] + SIDE
        for c, cloud in enumerate(row):
            if cloud is not None:
                x = left + c * SIDE
                axes = figure.add_axes((x / width, top / height, SIDE / width, SIDE / height))
                _draw(axes, cloud, half, _projection(cloud.points.shape[1], view))
        if labels:
            y = (top + SIDE / 2) / height
            figure.text(0.2 / width, y, labels[r], rotation=90, ha="center", va="center", fontsize=TITLE)
    return figure


def _needed_reach(cloud: Cloud) -> float:
    """Return half the side of a panel that holds the points, and the tips of the arrows, from any direction."""
    offsets = cloud.points.detach() - cloud.points.detach().mean(0)
    reach = 1.3 * float(offsets.norm(dim=1).max())
    if cloud.arrows is None:
        return reach
    return max(reach, 1.08 * float((offsets + cloud.arrows.detach()).norm(dim=1).max()))


def _title_lines(cloud: Cloud | None) -> int:
    return 0 if cloud is None or not cloud.title else cloud.title.count("\n") + 1


def _projection(d: int, view: tuple[float, float]) -> Tensor:
    """Return the directions right, up and towards the viewer, ``[3, d]``."""
    if d == 2:
        return torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    elevation, azimuth = (math.radians(angle) for angle in view)
    right = (-math.sin(azimuth), math.cos(azimuth), 0.0)
    eye = (math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation))
    rows = torch.tensor([right, (0.0, 0.0, 0.0), eye], dtype=torch.float64)
    rows[1] = torch.linalg.cross(rows[2], rows[0])
    return rows


def _draw(axes: Axes, cloud: Cloud, half: float, projection: Tensor) -> None:
    middle = cloud.points.mean(0).double()
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    axes.axis("off")
    axes.set_title(cloud.title, fontsize=TITLE, pad=2, color=INK)
    flat = (cloud.points.detach().double() - middle) @ projection.T
    for i, j in cloud.bonds:
        (x0, y0, z0), (x1, y1, z1) = flat[i].tolist(), flat[j].tolist()
        axes.plot([x0, x1], [y0, y1], color=INK, linewidth=2, zorder=2 + 0.1 * (z0 + z1) / 2 / half, alpha=0.55)
    for n, (x, y, depth) in enumerate(flat.tolist()):
        fill, size = ATOMS.get(cloud.symbols[n], (PALE, 1.0)) if cloud.symbols else (INK, 0.55)
        axes.plot(
            x, y, "o", color=fill, markersize=11 * size, markeredgecolor=INK, markeredgewidth=0.8,
            zorder=3 + 0.1 * depth / half,
        )  # fmt: skip
    if cloud.arrows is not None:
        for tail, arrow in zip(flat.tolist(), (cloud.arrows.detach().double() @ projection.T).tolist(), strict=True):
            _arrow(axes, tail, arrow, "#d55e00", 1.0, 1.6)
    if cloud.frames is not None:
        _draw_frames(axes, cloud.frames, cloud.shown_axes, middle, half, projection)


def _draw_frames(
    axes: Axes, frames: FrameSet, shown_axes: int | None, middle: Tensor, half: float, projection: Tensor
) -> None:
    found = frames.elements()
    for k in range(shown_axes or found.rotations.shape[-1]):
        drawn = torch.cat((found.translations, found.rotations[..., k]), -1).detach().double()
        # The same axis of several elements would be drawn on top of itself, and look heavier than it is.
        distinct, place = torch.unique((drawn * 1e6).round() + 0.0, dim=0, return_inverse=True)
        weights = torch.zeros(len(distinct), dtype=torch.float64).index_add(0, place, found.weights.detach().double())
        for each, weight in zip(distinct / 1e6, weights / weights.max(), strict=True):
            origin, axis = each.chunk(2)
            # Axes of several frames may coincide: the first are longest and lie below the others.
            arrow = (0.68 - 0.14 * k) * half * axis @ projection.T
            tail = (origin - middle) @ projection.T
            _arrow(axes, tail.tolist(), arrow.tolist(), PALETTE[k], 0.25 + 0.75 * float(weight), 2.0)


def _arrow(axes: Axes, tail: Sequence[float], arrow: Sequence[float], colour: str, alpha: float, width: float) -> None:
    axes.annotate(
        "",
        xy=(tail[0] + arrow[0], tail[1] + arrow[1]),
        xytext=(tail[0], tail[1]),
        arrowprops={
            "arrowstyle": "-|>,head_width=0.22,head_length=0.4", "color": colour, "linewidth": width, "alpha": alpha,
            "shrinkA": 0, "shrinkB": 0,
        },
        annotation_clip=False,  # by default an arrow whose tip is outside the panel is left out without a word
        zorder=4 + 0.1 * arrow[2],
    )  # fmt: skip
