"""Objects of a slide: found region by region, so that none is cut or counted twice at the border of a unit."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage as ndi
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._files import growing, write_atomically
from .._validate import invalid
from ..images import ImageFile, SlideImage
from ..objects import Objects, decode, geojson_features, object_table, table_rows
from ._objects import ObjectFiles

NEAR = 3  # pixels around a region on which its objects depend
HALO = 64  # pixels around a unit in which its regions are looked for at first
LARGEST = 2048  # longest side of a region in pixels
AROUND = np.ones((3, 3), dtype=np.bool_)

Box = tuple[int, int, int, int]  # first row and column, and those after the last
Window = Callable[[int, int, int, int, str], NDArray[Any]]


class Region(NamedTuple):
    """Connected pixels of one class.

    Args:
        box: Where it lies in the image.
        kind: Class.
        first: Its first pixel, row by row.
    """

    box: Box
    kind: int
    first: tuple[int, int]


class SlideObjects:
    """Objects of a slide from the classes that its units have found.

    The objects of a region, connected pixels of one class, depend on no more than the region and 3 pixels around it;
    `gconv_ga.objects.decode` works region by region. A region belongs to the unit that has its first pixel, which looks
    as far as the region goes. So the objects are those of the whole class map, whatever the units. Regions longer than
    2048 pixels along a side are left out, which bounds the memory; that does not depend on the orientation either.

    Args:
        image: Slide at the resolution of the prediction.
        files: Rules by which regions are cut, names of the classes, and the side of a pixel of the finest level, if it
            is not to be that of the file.
        window: Function that returns the classes or the probability, 0 .. 255, of a window: top, left, height, width,
            and "classes" or "probability".
        raw: The image in the units of its file.

    Raises:
        ValueError: The rules need maps that are not kept for slides, or a file is asked for that slides do not have.
    """

    def __init__(self, image: SlideImage, files: ObjectFiles, window: Window, raw: ImageFile) -> None:
        if files.decoder.needs_maps:
            advice = "the distance and the flow that a network predicts are not kept for whole slides"
            raise invalid("objects", "of the methods 'watershed' and 'components'", files.decoder.method, advice)
        if files.rois or files.coco:
            raise invalid("objects", "without rois and coco for a slide", files, "it has a table and GeoJSON")
        self.image, self.files, self.window, self.raw = image, files, window, raw
        self.pixel_size = image.slide.pixel_size if files.pixel_size is None else files.pixel_size

    def find(self, core: Box, colors: Sequence[Sequence[int]] | None) -> dict[str, Any]:
        """Return the objects of the regions that belong to a unit, in pixels of the finest level.

        Args:
            core: Pixels of the unit.
            colors: Red, green and blue of each class.

        Returns:
            ``columns`` and ``rows`` of their table, ``features`` of GeoJSON, and ``large``, whether a region is too
            large.
        """
        halo = HALO
        while True:
            regions, is_cut = self._regions(core, halo)
            if not is_cut or halo > LARGEST:
                break
            halo = min(4 * halo, LARGEST + NEAR + 1)
        small = [region for region in regions if max(_sides(region.box)) <= LARGEST]
        found = self.nothing() | {"large": is_cut or len(small) < len(regions)}
        near = _grown(core, HALO - NEAR, self.image.shape)
        together = [region for region in small if _inside(region.box, near)]
        groups = [together] if together else []
        for group in [*groups, *([region] for region in small if not _inside(region.box, near))]:
            for name, values in self._objects(group, colors).items():
                found[name] += values
        return found

    def nothing(self) -> dict[str, Any]:
        """Return the result of a unit without objects."""
        columns = table_rows(self._table(_none(), (0, 0), None, None))[0]
        return {"columns": columns, "rows": [], "features": [], "large": False}

    def _regions(self, core: Box, halo: int) -> tuple[list[Region], bool]:
        """Return the regions of a unit that are seen as a whole, and whether one that touches it is not."""
        seen = _grown(core, halo, self.image.shape)
        classes = self.window(*seen[:2], *_sides(seen), "classes")
        safe = _grown(core, halo - NEAR, self.image.shape)  # what reaches beyond may go on beyond what is seen
        regions, is_cut = [], False
        for index in np.unique(classes[classes > 0]).tolist():
            labels, _ = ndi.label(classes == index, AROUND)
            for number, (rows, columns) in enumerate(ndi.find_objects(labels), start=1):
                box = rows.start + seen[0], columns.start + seen[1], rows.stop + seen[0], columns.stop + seen[1]
                if _inside(box, safe):
                    across = int(np.argmax(labels[rows.start, columns] == number)) + box[1]
                    if core[0] <= box[0] < core[2] and core[1] <= across < core[3]:
                        regions.append(Region(box, index, (box[0], across)))
                elif _touches(labels, number, (rows, columns), core, seen):
                    is_cut = True
        return regions, is_cut

    def _objects(self, regions: Sequence[Region], colors: Sequence[Sequence[int]] | None) -> dict[str, list[Any]]:
        """Return the rows and features of the objects of some regions."""
        ends = [pick(region.box[side] for region in regions) for side, pick in enumerate((min, min, max, max))]
        box = _grown((ends[0], ends[1], ends[2], ends[3]), NEAR, self.image.shape)
        classes = torch.from_numpy(self.window(*box[:2], *_sides(box), "classes").astype(np.int64))
        objects = _only(decode(classes, self.files.decoder), classes, regions, box)
        if not len(objects.classes):
            return {}
        probability = torch.from_numpy(self.window(*box[:2], *_sides(box), "probability").astype(np.float32) / 255)
        pixels = self.raw.window(*box[:2], *_sides(box))
        table = self._table(objects, box[:2], pixels, probability)
        features = geojson_features(
            objects, names=self.files.names, colors=colors, table=table, origin=box[:2], scale=self.image.scale
        )
        return {"rows": table_rows(table)[1:], "features": features}

    def _table(
        self, objects: Objects, origin: tuple[int, int], pixels: Tensor | None, probability: Tensor | None
    ) -> dict[str, Any]:
        """Measure objects, in pixels of the finest level and in micrometres."""
        if pixels is None:
            pixels, probability = (
                torch.zeros(self.image.shape[0], *objects.labels.shape),
                torch.zeros(objects.labels.shape),
            )
        table: dict[str, Any] = dict(
            object_table(objects, names=self.files.names, image=pixels, probability=probability)
        )
        high, wide = self.image.scale
        side = math.sqrt(high * wide)
        changes: Mapping[str, Callable[[float], float]] = {
            "x": lambda value: (value + origin[1] + 0.5) * wide - 0.5,
            "y": lambda value: (value + origin[0] + 0.5) * high - 0.5,
            "area": lambda value: value * high * wide if side != 1 else value,
            "major_axis": lambda value: value * side,
            "minor_axis": lambda value: value * side,
        }
        table |= {name: [change(value) for value in table[name]] for name, change in changes.items()}
        if self.pixel_size is not None:
            table["area_um2"] = [value * self.pixel_size**2 for value in table["area"]]
            for name in ("x", "y", "major_axis", "minor_axis"):
                table[f"{name}_um"] = [value * self.pixel_size for value in table[name]]
        return table


def write_objects(results: Sequence[Path], path: Path, nothing: Mapping[str, Any]) -> int:
    """Write the objects of all units as ``NAME_objects.csv`` and ``NAME_objects.geojson``, numbered in their order.

    Args:
        results: Files of the units.
        path: ``NAME``, in the folder of the prediction.
        nothing: The result of a unit without objects, for its columns.

    Returns:
        The number of units with a region that was too large.
    """
    large, number = 0, 0
    with (
        growing(path.with_name(f"{path.name}_objects.csv")) as table,
        growing(path.with_name(f"{path.name}_objects.geojson")) as outlines,
    ):
        table.write(_line(nothing["columns"]))
        outlines.write(b'{"type": "FeatureCollection", "features": [')
        for found in _read(results):
            large += bool(found["large"])
            for row, feature in zip(found["rows"], found["features"], strict=True):
                outlines.write((b",\n" if number else b"\n") + json.dumps(feature).encode())
                number += 1
                table.write(_line([str(number), *row[1:]]))
        outlines.write(b"\n]}\n")
    return large


def _read(results: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in results:
        yield json.loads(path.read_text())


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def keep_objects(path: Path, found: Mapping[str, Any]) -> None:
    """Write the objects of a unit.

    Args:
        path: File of the unit.
        found: Its objects.
    """
    write_atomically(path, json.dumps(found).encode())


def _none() -> Objects:
    return Objects(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


def _only(objects: Objects, classes: Tensor, regions: Sequence[Region], box: Box) -> Objects:
    """Return the objects that lie in some regions, numbered anew."""
    own = np.zeros(classes.shape, dtype=np.bool_)
    for index in {region.kind for region in regions}:
        labels, _ = ndi.label(classes.numpy() == index, AROUND)
        wanted = [labels[region.first[0] - box[0], region.first[1] - box[1]] for region in regions
                  if region.kind == index]  # fmt: skip
        own |= np.isin(labels, wanted)
    labels = np.where(own, objects.labels.numpy(), 0)
    kept = np.unique(labels[labels > 0])
    numbers = np.zeros(len(objects.classes) + 1, dtype=np.int64)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return Objects(torch.from_numpy(numbers[labels]), objects.classes[torch.from_numpy(kept - 1)])


def _sides(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _grown(box: Box, by: int, shape: Sequence[int]) -> Box:
    """Return a box with pixels added on each side, as far as the image goes."""
    _, height, width = shape
    return max(0, box[0] - by), max(0, box[1] - by), min(height, box[2] + by), min(width, box[3] + by)


def _inside(box: Box, other: Box) -> bool:
    return box[0] >= other[0] and box[1] >= other[1] and box[2] <= other[2] and box[3] <= other[3]


def _touches(labels: NDArray[Any], number: int, place: tuple[slice, slice], core: Box, seen: Box) -> bool:
    """Return True if a region has a pixel in a unit."""
    rows = slice(max(place[0].start, core[0] - seen[0]), min(place[0].stop, core[2] - seen[0]))
    columns = slice(max(place[1].start, core[1] - seen[1]), min(place[1].stop, core[3] - seen[1]))
    return rows.start < rows.stop and columns.start < columns.stop and bool((labels[rows, columns] == number).any())
