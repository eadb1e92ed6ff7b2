"""A row for each object: its class, place, size, shape, brightness and probability."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._files import write_atomically
from .._validate import invalid, wrong_shape
from ._decoder import Objects

Column = Sequence[int | float | str | None]


def object_table(
    objects: Objects,
    *,
    names: Sequence[str] | None = None,
    image: Tensor | Iterable[Tensor] | None = None,
    probability: Tensor | None = None,
    pixel_size: float | None = None,
) -> dict[str, Column]:
    """Measure each object.

    The columns, in this order: ``label``, ``class``; ``area`` in pixels; ``x``, ``y``, the centroid in pixels, to the
    right and down from the centre of the first pixel; ``major_axis``, ``minor_axis``, the axes of the ellipse with the
    same second moments; ``orientation``, the angle of the major axis in degrees, counter-clockwise from the horizontal,
    0 to 180, None where both axes are equal; ``mean_probability``; ``mean_intensity``, or ``mean_intensity_1``, ... of
    several channels; ``area_um2``, ``x_um``, ``y_um``, ``major_axis_um``, ``minor_axis_um``.

    Sums over pixels are sums of whole numbers for images of whole numbers, so they do not depend on the order of the
    pixels: the rows of a rotated image are those of the image, with the centroid and the orientation rotated.

    Args:
        objects: The objects.
        names: Names of the classes by index. If None, the indices.
        image: Pixels in the units of the file, or bands of rows of them from top to bottom.
        probability: Probability of its own class at each pixel.
        pixel_size: Side of a pixel in micrometres.

    Shape:
        - image: ``[C, H, W]``; bands: ``[C, h, W]`` whose heights sum to H
        - probability: ``[H, W]``

    Raises:
        ValueError: A shape does not fit, or the pixel size is not positive.

    Example:
        >>> import torch
        >>> from gconv_ga.objects import Objects, object_table
        >>> objects = Objects(torch.tensor([[1, 1, 0], [0, 0, 2]]), torch.tensor([1, 1]))
        >>> table = object_table(objects, pixel_size=0.5)
        >>> table["area"], table["x"], table["orientation"], table["area_um2"]
        ([2, 1], [0.5, 2.0], [0.0, None], [0.5, 0.25])
    """
    if pixel_size is not None and not 0 < pixel_size < math.inf:
        raise invalid("pixel_size", "a positive number of micrometres", pixel_size)
    labels, count = objects.labels.cpu().numpy(), len(objects.classes)
    if probability is not None and probability.shape != objects.labels.shape:
        raise wrong_shape("probability", f"[H, W] = {labels.shape}, as the labels are", probability)
    rows, columns = np.nonzero(labels)
    owner = labels[rows, columns] - 1
    area = np.bincount(owner, minlength=count)
    shapes = _shapes(owner, rows, columns, area)
    classes = objects.classes.tolist()
    table: dict[str, Column] = {
        "label": list(range(1, count + 1)),
        "class": [index if names is None else names[index] for index in classes],
        "area": area.tolist(),
        **shapes,
    }
    if probability is not None:
        weights = probability.cpu().numpy()[rows, columns].astype(np.float64)
        table["mean_probability"] = (np.bincount(owner, weights, count) / area).tolist()
    if image is not None:
        sums = _channel_sums(labels, image, count)
        titles = ["mean_intensity"] if len(sums) == 1 else [f"mean_intensity_{place + 1}" for place in range(len(sums))]
        table |= {title: (total / area).tolist() for title, total in zip(titles, sums, strict=True)}
    if pixel_size is not None:
        table["area_um2"] = (area * pixel_size**2).tolist()
        for name in ("x", "y", "major_axis", "minor_axis"):
            table[f"{name}_um"] = [value * pixel_size for value in shapes[name]]
    return table


def _shapes(
    owner: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64], area: NDArray[np.int64]
) -> dict[str, list[Any]]:
    """Return centroids, axes and orientations from sums of whole numbers, as Python's, which never overflow."""

    def sums(values: NDArray[np.int64]) -> list[int]:
        total = np.zeros(len(area), dtype=np.int64)
        np.add.at(total, owner, values)
        return total.tolist()

    first = zip(area.tolist(), sums(columns), sums(rows), strict=True)
    second = zip(sums(columns * columns), sums(rows * rows), sums(columns * rows), strict=True)
    shapes: dict[str, list[Any]] = {name: [] for name in ("x", "y", "major_axis", "minor_axis", "orientation")}
    for (n, x, y), (xx, yy, xy) in zip(first, second, strict=True):
        # n^2 times the covariance; y points down, the angle counts with y up.
        across, along, mixed = n * xx - x * x, n * yy - y * y, x * y - n * xy
        spread = math.hypot(across - along, 2 * mixed)
        degrees = math.degrees(math.atan2(2 * mixed, across - along) / 2) % 180 if spread else None
        values = (
            x / n, y / n, math.sqrt(8 * (across + along + spread)) / n,
            math.sqrt(max(8 * (across + along - spread), 0)) / n, degrees,
        )  # fmt: skip
        for name, value in zip(shapes, values, strict=True):
            shapes[name].append(value)
    return shapes


def _channel_sums(labels: NDArray[np.int64], image: Tensor | Iterable[Tensor], count: int) -> list[NDArray[np.float64]]:
    """Return the sum of each channel over each object."""
    sums: list[NDArray[np.float64]] = []
    top = 0
    for band in [image] if isinstance(image, Tensor) else image:
        here = labels[top : top + band.shape[-2]]
        if band.ndim != 3 or here.shape != band.shape[1:]:
            raise wrong_shape("image", f"[C, H, W], H, W = {labels.shape}, as the labels are, or bands of it", band)
        sums = sums or [np.zeros(count) for _ in band]
        for total, pixels in zip(sums, band.cpu().numpy(), strict=True):
            total += np.bincount(here.ravel(), pixels.ravel().astype(np.float64), count + 1)[1:]
        top += len(here)
    if top != len(labels):
        raise invalid("image", f"{len(labels)} rows, as the labels have", top)
    return sums


def write_table(table: Mapping[str, Column], path: str | Path) -> Path:
    r"""Write a table as CSV. Numbers have seven digits; a cell is empty where there is no value.

    Args:
        table: Table made by `object_table`.
        path: The file.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> from gconv_ga.objects import write_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_table({"label": [1, 2], "orientation": [30.0, None]}, f"{folder}/a.csv").read_text()
        'label,orientation\n1,30\n2,\n'
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(table_rows(table))
    return write_atomically(Path(path), text.getvalue().encode())


def table_rows(table: Mapping[str, Column]) -> list[list[str]]:
    """Return the names of the columns and the rows of a table as `write_table` writes them.

    Args:
        table: Table made by `object_table`.

    Example:
        >>> from gconv_ga.objects import table_rows
        >>> table_rows({"label": [1, 2], "orientation": [30.0, None]})
        [['label', 'orientation'], ['1', '30'], ['2', '']]
    """
    return [list(table), *([_cell(value) for value in row] for row in zip(*table.values(), strict=True))]


def _cell(value: int | float | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value)
