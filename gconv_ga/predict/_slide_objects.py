"""Objects of a slide: found unit by unit, so that none is cut or counted twice at the border of a unit."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
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
from ..objects import FLOW_HALO, Objects, decode, geojson_features, object_table, table_rows, write_outlines
from ._objects import MAPS, ObjectFiles
from ._pyramid import write_pyramid

NEAR = 3  # pixels around a region on which its objects depend
HALO = 64  # pixels around a unit in which its regions are looked for at first
LARGEST = 2048  # longest side of a region in pixels
AROUND = np.ones((3, 3), dtype=np.bool_)
LARGEST_ROI = 60534  # side of a slide whose corners ROIs of ImageJ can name: their numbers are -5000 .. 60535
OPEN = 16  # units whose objects are held in memory

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


class KeptMaps(NamedTuple):
    """What is kept of the predicted maps: whole numbers, to which `gconv_ga.objects.decode` rounds them too.

    Args:
        channels: Which of the distance and the two components of the flow are kept.
        steps: Number of steps in a unit.
        low: Lowest value that counts.
        high: Highest value that counts.
        dtype: Number type.
    """

    channels: slice
    steps: int
    low: int
    high: int
    dtype: type[np.integer[Any]]

    def pack(self, maps: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Return what is kept of maps ``[3, h, w]``."""
        kept = maps[self.channels].astype(np.float64).clip(self.low, self.high)
        return np.asarray(np.rint(self.steps * kept).astype(self.dtype))

    def unpack(self, kept: NDArray[Any]) -> NDArray[np.float64]:
        """Return maps ``[3, h, w]``, zero where nothing is kept."""
        maps = np.zeros((MAPS, *kept.shape[1:]))
        maps[self.channels] = kept / self.steps
        return maps


KEPT = {"distance": KeptMaps(slice(0, 1), 64, 0, 2, np.uint8), "flow": KeptMaps(slice(1, 3), 2**16, -2, 2, np.int32)}


class UnitObjects(NamedTuple):
    """The objects that belong to a unit.

    Args:
        rows: Cells of their table.
        features: Their outlines as features of GeoJSON, in pixels of the finest level.
        runs: Their pixels in the image: row, first column, the one after the last, and number of the object in the
            unit, from 1. ``[runs, 4]``.
        is_large: Whether a region of the unit is too large.
    """

    rows: list[list[str]]
    features: list[dict[str, Any]]
    runs: NDArray[np.int64]
    is_large: bool


class SlideObjects:
    """Objects of a slide from what its units have predicted: those of the whole slide, whatever the units.

    The objects of a region, connected pixels of one class, depend on no more than the region and 3 pixels around it;
    `gconv_ga.objects.decode` works region by region. A region belongs to the unit that has its first pixel, which looks
    as far as the region goes. Regions longer than 2048 pixels along a side are left out, which bounds the memory; that
    does not depend on the orientation either. With a flow an object belongs to the unit that has its sink, and depends
    on the `gconv_ga.objects.FLOW_HALO` pixels around the unit; no region is too large.

    Args:
        image: Slide at the resolution of the prediction.
        files: Rules by which regions are cut, names of the classes, and the side of a pixel of the finest level, if it
            is not to be that of the file.
        window: Function that returns values of a window: top, left, height, width, and "classes", "probability", 0 ..
            255, or "maps", as `KeptMaps` keeps them.
        raw: The image in the units of its file.

    Attributes:
        maps: What is kept of the predicted maps; None if the rules need none.

    Raises:
        ValueError: A file is asked for that the slide cannot have.
    """

    def __init__(self, image: SlideImage, files: ObjectFiles, window: Window, raw: ImageFile) -> None:
        if files.coco:
            advice = "its run lengths span the image; use the label image or GeoJSON, which slides have in any case"
            raise invalid("objects", "without coco for a slide", files.coco, advice)
        sides = image.slide.levels[0][1:]
        if files.rois and max(sides) > LARGEST_ROI:
            advice = (
                f"ROIs of ImageJ have no places beyond; {image.slide.path.name} has {sides[0]} x {sides[1]} pixels: "
            )
            advice += "use GeoJSON in QuPath, which sends regions to ImageJ"
            raise invalid("objects", f"without rois for a slide of more than {LARGEST_ROI} pixels", files.rois, advice)
        self.image, self.files, self.window, self.raw = image, files, window, raw
        self.pixel_size = image.slide.pixel_size if files.pixel_size is None else files.pixel_size
        self.maps = KEPT.get(files.decoder.method)

    def find(self, core: Box, colors: Sequence[Sequence[int]] | None) -> UnitObjects:
        """Return the objects that belong to a unit.

        Args:
            core: Pixels of the unit.
            colors: Red, green and blue of each class.
        """
        parts, is_large = self._by_sinks(core) if self.files.decoder.method == "flow" else self._by_regions(core)
        found = UnitObjects([], [], np.zeros((0, 4), np.int64), is_large)
        for objects, origin in parts:
            if len(objects.classes):
                found = self._with(found, objects, origin, colors)
        return found

    def _by_sinks(self, core: Box) -> tuple[list[tuple[Objects, tuple[int, int]]], bool]:
        """Return the objects whose sinks lie in a unit, with the place of their first pixel in the image."""
        box = _grown(core, FLOW_HALO, self.image.shape)
        classes, maps = self._predicted(box)
        place = (core[0] - box[0], core[1] - box[1], core[2] - box[0], core[3] - box[1])
        objects = decode(classes, self.files.decoder, maps, core=place)
        rows, columns = (np.flatnonzero((objects.labels > 0).any(dim=axis).numpy()) for axis in (1, 0))
        if not len(rows):
            return [], False
        labels = objects.labels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return [(Objects(labels, objects.classes), (box[0] + int(rows[0]), box[1] + int(columns[0])))], False

    def _by_regions(self, core: Box) -> tuple[list[tuple[Objects, tuple[int, int]]], bool]:
        """Return the objects of the regions of a unit with the place of their first pixel, and if one is too large."""
        halo = HALO
        while True:
            regions, is_cut = self._regions(core, halo)
            if not is_cut or halo > LARGEST:
                break
            halo = min(4 * halo, LARGEST + NEAR + 1)
        small = [region for region in regions if max(_sides(region.box)) <= LARGEST]
        near = _grown(core, HALO - NEAR, self.image.shape)
        together = [region for region in small if _inside(region.box, near)]
        groups = [together] if together else []
        groups += [[region] for region in small if not _inside(region.box, near)]
        return [self._objects(group) for group in groups], is_cut or len(small) < len(regions)

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

    def _objects(self, regions: Sequence[Region]) -> tuple[Objects, tuple[int, int]]:
        """Return the objects of some regions, and where their labels begin in the image."""
        ends = [pick(region.box[side] for region in regions) for side, pick in enumerate((min, min, max, max))]
        box = _grown((ends[0], ends[1], ends[2], ends[3]), NEAR, self.image.shape)
        classes, maps = self._predicted(box)
        return _only(decode(classes, self.files.decoder, maps), classes, regions, box), box[:2]

    def _predicted(self, box: Box) -> tuple[Tensor, Tensor | None]:
        """Return the classes of a part of the image, and the maps that the rules need."""
        classes = torch.from_numpy(self.window(*box[:2], *_sides(box), "classes").astype(np.int64))
        if self.maps is None:
            return classes, None
        return classes, torch.from_numpy(self.maps.unpack(self.window(*box[:2], *_sides(box), "maps")))

    def _with(
        self, found: UnitObjects, objects: Objects, origin: tuple[int, int], colors: Sequence[Sequence[int]] | None
    ) -> UnitObjects:
        """Add objects, which are numbered after those that have been found."""
        height, width = objects.labels.shape
        place = (*origin, height, width)
        probability = torch.from_numpy(self.window(*place, "probability").astype(np.float32) / 255)
        table = self._table(objects, origin, self.raw.window(*place), probability)
        features = geojson_features(
            objects, names=self.files.names, colors=colors, table=table, origin=origin, scale=self.image.scale
        )
        runs = runs_of(objects.labels.numpy()) + np.array([origin[0], origin[1], origin[1], len(found.rows)])
        return found._replace(
            rows=found.rows + table_rows(table)[1:], features=found.features + features,
            runs=np.concatenate((found.runs, runs)),
        )  # fmt: skip

    def _columns(self) -> list[str]:
        """Return the names of the columns of the table."""
        none = Objects(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        return list(self._table(none, (0, 0), torch.zeros(self.image.shape[0], 1, 1), torch.zeros(1, 1)))

    def _table(self, objects: Objects, origin: tuple[int, int], pixels: Tensor, probability: Tensor) -> dict[str, Any]:
        """Measure objects, in pixels of the finest level and in micrometres."""
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

    def write(self, results: Sequence[Path], path: Path) -> int:
        """Write the objects of all units, numbered in their order, as the files that are asked for.

        These are ``NAME_objects.csv``, ``NAME_objects.geojson``, ``NAME_objects.ome.tif``, the number of the object of
        each pixel, and with ``rois`` also ``NAME_rois.zip``.

        Args:
            results: Files of the units.
            path: ``NAME``, in the folder of the prediction.

        Returns:
            The number of units with a region that was too large.
        """
        large, counts = 0, list[int]()
        with (
            growing(path.with_name(f"{path.name}_objects.csv")) as table,
            growing(path.with_name(f"{path.name}_objects.geojson")) as outlines,
        ):
            table.write(_line(self._columns()))
            outlines.write(b'{"type": "FeatureCollection", "features": [')
            number = 0
            for found in _read(results):
                large += bool(found["large"])
                for row, feature in zip(found["rows"], found["features"], strict=True):
                    outlines.write((b",\n" if number else b"\n") + json.dumps(feature).encode())
                    number += 1
                    table.write(_line([str(number), *row[1:]]))
                counts.append(len(found["rows"]))
            outlines.write(b"\n]}\n")
        if self.files.rois:
            write_outlines(_outlines(results), path.with_name(f"{path.name}_rois.zip"), count=number)
        write_pyramid(
            path.with_name(f"{path.name}_objects.ome.tif"), self.image.shape[1:], LabelMap(results, counts).window,
            np.uint32, title="objects", pixel_size=self.image.pixel_size, are_ordered=False,
        )  # fmt: skip
        return large


def _read(results: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in results:
        yield json.loads(path.read_text())


def _outlines(results: Sequence[Path]) -> Iterator[tuple[str, list[list[list[tuple[float, float]]]]]]:
    """Yield class and outline of each object, in pixels of the finest level."""
    for found in _read(results):
        for feature in found["features"]:
            geometry = feature["geometry"]
            pieces = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
            rings = [[[(x, y) for x, y in ring[:-1]] for ring in piece] for piece in pieces]
            yield feature["properties"]["classification"]["name"], rings


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def keep_objects(path: Path, found: UnitObjects) -> None:
    """Write the objects of a unit: their pixels first, in a file of the same name with another ending.

    Args:
        path: File of the unit.
        found: Its objects.
    """
    with growing(path.with_suffix(".npz")) as file:
        np.savez_compressed(file, runs=found.runs)
    content = {"rows": found.rows, "features": found.features, "large": found.is_large}
    write_atomically(path, json.dumps(content).encode())


def runs_of(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the runs of equal numbers along the rows of a label image, in the order of its pixels.

    Shape:
        - labels: ``[H, W]``
        - output: ``[runs, 4]``: row, first column, the one after the last, and number of the object
    """
    wide = np.pad(labels, ((0, 0), (1, 1)))
    rows, ends = np.nonzero(wide[:, 1:] != wide[:, :-1])
    # Each change ends a run and begins another, of which those of background are dropped; the last of a row ends one.
    begins = labels.shape[1] > ends
    numbers = np.where(begins, labels[rows, np.minimum(ends, labels.shape[1] - 1)], 0)
    kept = np.flatnonzero(numbers)
    return np.stack((rows[kept], ends[kept], ends[kept + 1], numbers[kept]), axis=1).astype(np.int64)


class LabelMap:
    """The numbers of the objects of a slide, read by window; only some units are held in memory.

    Args:
        results: Files of the units.
        counts: Number of objects of each unit.
    """

    def __init__(self, results: Sequence[Path], counts: Sequence[int]) -> None:
        self._first = np.cumsum([0, *counts])
        self._runs = lru_cache(maxsize=OPEN)(lambda unit: _load_runs(results[unit]))
        boxes = [_box(self._runs(unit)) for unit in range(len(results))]
        self._boxes = np.array(boxes, dtype=np.int64).reshape(-1, 4)

    def window(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint32]:
        """Return the numbers of a window, 0 where there is no object.

        Args:
            top: First row.
            left: First column.
            height: Number of rows.
            width: Number of columns.
        """
        first, last = self._boxes[:, :2], self._boxes[:, 2:]
        near = ((first < (top + height, left + width)) & (last > (top, left))).all(axis=1)
        if not near.any():
            return np.zeros((height, width), np.uint32)
        change = np.zeros((height, width + 1), np.int64)  # from the pixel to the left; no two objects share a pixel
        for unit in np.flatnonzero(near).tolist():
            runs = self._runs(unit)
            rows, begins, ends = runs[:, 0] - top, *(runs[:, 1:3] - left).clip(0, width).T
            here = (rows >= 0) & (rows < height) & (begins < ends)
            number = runs[here, 3] + self._first[unit]
            np.add.at(change, (rows[here], begins[here]), number)
            np.subtract.at(change, (rows[here], ends[here]), number)
        return change.cumsum(axis=1)[:, :width].astype(np.uint32)


def _load_runs(path: Path) -> NDArray[np.int64]:
    with np.load(path.with_suffix(".npz")) as arrays:
        runs: NDArray[np.int64] = arrays["runs"]
    return runs


def _box(runs: NDArray[np.int64]) -> Box:
    """Return where runs lie in the image."""
    if not len(runs):
        return 0, 0, 0, 0
    return int(runs[:, 0].min()), int(runs[:, 1].min()), int(runs[:, 0].max()) + 1, int(runs[:, 2].max())


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
