"""Objects as files for other programs: a label image, GeoJSON for QuPath, ROIs for ImageJ, COCO."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage as ndi
import tifffile
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi
from torch import Tensor

from .._files import growing, write_atomically
from .._validate import wrong_shape
from ._decoder import Objects
from ._table import Column

Ring = list[tuple[int, int]]
Pieces = Sequence[Sequence[Sequence[tuple[float, float]]]]


def outlines(labels: Tensor) -> list[list[list[Ring]]]:
    """Trace the outlines of objects along the sides of their pixels.

    An object is one or more pieces, whose pixels are neighbours by side. A piece is a list of rings: its outer ring,
    clockwise on the screen, then its holes, counter-clockwise. A ring is a list of corners ``(x, y)``, in pixels to the
    right and down from the corner of the image; straight sides have no corners between them. The area that the rings
    enclose is the number of pixels.

    Args:
        labels: Numbers of the objects, 0 where there is none.

    Returns:
        The pieces of the objects 1, 2, ...; of a number that no pixel has, none.

    Shape:
        - labels: ``[H, W]``, integers

    Raises:
        ValueError: ``labels`` is not ``[H, W]``.

    Example:
        >>> import torch
        >>> from gconv_ga.objects import outlines
        >>> outlines(torch.tensor([[0, 1, 1], [0, 0, 1]]))
        [[[[(1, 0), (3, 0), (3, 2), (2, 2), (2, 1), (1, 1)]]]]
    """
    if labels.ndim != 2:
        raise wrong_shape("labels", "[H, W]", labels)
    pixels = labels.cpu().numpy()
    found: list[list[list[Ring]]] = []
    for number, box in enumerate(ndi.find_objects(pixels.astype(np.int64)), start=1):
        pieces: list[list[Ring]] = []
        if box is not None:
            parts, count = ndi.label(pixels[box] == number)
            top, left = (axis.start for axis in box)
            pieces = [_rings(parts == part, top, left) for part in range(1, count + 1)]
        found.append(pieces)
    return found


def _rings(piece: NDArray[np.bool_], top: int, left: int) -> list[Ring]:
    """Return the rings around one piece; the outer one comes first.

    Each side of a pixel whose other side is empty is an arrow with the pixel on its right. At a corner where two pixels
    touch, the ring turns left, to the other pixel: then no ring passes a corner twice, which polygons must not.
    """
    padded = np.pad(piece, 1)
    arrows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (dx, dy), (x, y) in zip(STEPS, STARTS, strict=True):
        beside = np.roll(padded, (dx, -dy), (0, 1))  # the pixel to the left of the arrow
        rows, columns = np.nonzero(padded & ~beside)
        for corner in zip((columns + x - 1 + left).tolist(), (rows + y - 1 + top).tolist(), strict=True):
            arrows.setdefault(corner, []).append((dx, dy))
    rings = []
    while arrows:
        start = min(arrows, key=lambda corner: corner[::-1])  # the first one is on the outer ring
        ring: Ring = []
        corner, step = start, (0, 0)
        while corner in arrows:
            ways = arrows[corner]
            left_turn = (step[1], -step[0])
            way = left_turn if left_turn in ways else ways[0]
            ways.remove(way)
            if not ways:
                del arrows[corner]
            if way != step:
                ring.append(corner)
            corner, step = (corner[0] + way[0], corner[1] + way[1]), way
        rings.append(ring)
    return rings


STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # arrows along the top, right, bottom and left side of a pixel
STARTS = ((0, 0), (1, 0), (1, 1), (0, 1))  # corners of the pixel at which they begin


def write_labels(objects: Objects, path: str | Path, *, pixel_size: float | None = None) -> Path:
    """Write the numbers of the objects as a TIFF: uint16, or uint32 if there are more than 65,535.

    Args:
        objects: The objects.
        path: The file.
        pixel_size: Side of a pixel in micrometres, for the resolution in the file.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from gconv_ga.objects import Objects, write_labels
        >>> objects = Objects(torch.tensor([[0, 1], [2, 2]]), torch.tensor([1, 1]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_labels(objects, f"{folder}/a.tif").name
        'a.tif'
    """
    dtype = np.uint16 if len(objects.classes) <= 65535 else np.uint32
    known: dict[str, Any] = {}
    if pixel_size is not None:
        known = {"resolution": (1e4 / pixel_size, 1e4 / pixel_size), "resolutionunit": "CENTIMETER"}
    with growing(Path(path)) as file:
        tifffile.imwrite(file, objects.labels.cpu().numpy().astype(dtype), compression="zlib", metadata=None, **known)
    return Path(path)


def write_geojson(
    objects: Objects,
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    colors: Sequence[Sequence[int]] | None = None,
    table: Mapping[str, Column] | None = None,
) -> Path:
    """Write the outlines as GeoJSON: detections with a class and measurements, as QuPath imports them.

    Args:
        objects: The objects.
        path: The file.
        names: Names of the classes by index. If None, the indices.
        colors: Red, green and blue of each class. If None, QuPath chooses.
        table: Table made by `object_table`; its numbers become measurements.

    Returns:
        The path.

    Example:
        >>> import json, tempfile
        >>> import torch
        >>> from gconv_ga.objects import Objects, write_geojson
        >>> objects = Objects(torch.tensor([[0, 1]]), torch.tensor([1]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     content = json.loads(write_geojson(objects, f"{folder}/a.geojson").read_text())
        >>> content["features"][0]["geometry"]
        {'type': 'Polygon', 'coordinates': [[[1, 0], [2, 0], [2, 1], [1, 1], [1, 0]]]}
    """
    features = geojson_features(objects, names=names, colors=colors, table=table)
    content = {"type": "FeatureCollection", "features": features}
    return write_atomically(Path(path), json.dumps(content).encode())


def geojson_features(
    objects: Objects,
    *,
    names: Sequence[str] | None = None,
    colors: Sequence[Sequence[int]] | None = None,
    table: Mapping[str, Column] | None = None,
    origin: tuple[int, int] = (0, 0),
    scale: tuple[float, float] = (1, 1),
) -> list[dict[str, Any]]:
    """Return the outlines as features of GeoJSON.

    Args:
        objects: The objects.
        names: As for `write_geojson`.
        colors: As for `write_geojson`.
        table: As for `write_geojson`.
        origin: Row and column of the first pixel in a larger image.
        scale: Height and width of a pixel in the units of the outlines, in which they are rounded to a thousandth.

    Example:
        >>> import torch
        >>> from gconv_ga.objects import Objects, geojson_features
        >>> objects = Objects(torch.tensor([[0, 1]]), torch.tensor([1]))
        >>> geojson_features(objects, origin=(0, 10), scale=(2, 2))[0]["geometry"]
        {'type': 'Polygon', 'coordinates': [[[22, 0], [24, 0], [24, 2], [22, 2], [22, 0]]]}
    """
    top, left = origin
    high, wide = scale

    def place(point: tuple[int, int]) -> list[float]:
        exact = (point[0] + left) * wide, (point[1] + top) * high
        return [int(value) if value == int(value) else round(value, 3) for value in exact]

    columns = {name: column for name, column in (table or {}).items() if name not in ("label", "class")}
    features = []
    for number, (pieces, index) in enumerate(zip(outlines(objects.labels), objects.classes.tolist(), strict=True)):
        closed = [[[place(point) for point in [*ring, ring[0]]] for ring in rings] for rings in pieces]
        several = len(closed) > 1
        kind: dict[str, Any] = {"name": str(index) if names is None else names[index]}
        if colors is not None:
            kind["color"] = list(colors[index])
        properties: dict[str, Any] = {"objectType": "detection", "classification": kind}
        if columns:
            measured = {name: column[number] for name, column in columns.items()}
            properties["measurements"] = {name: value for name, value in measured.items() if value is not None}
        geometry = {"type": "MultiPolygon" if several else "Polygon", "coordinates": closed if several else closed[0]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return features


def write_rois(objects: Objects, path: str | Path, *, names: Sequence[str] | None = None) -> Path:
    """Write the outlines as a zip of ROIs, as the ROI manager of ImageJ opens it.

    An object of one ring is a traced ROI; one with holes or several pieces is a composite. ROIs are named by the number
    and the class of the object.

    Args:
        objects: The objects.
        path: The file.
        names: Names of the classes by index. If None, the indices.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from gconv_ga.objects import Objects, write_rois
        >>> from roifile import roiread
        >>> objects = Objects(torch.tensor([[0, 1]]), torch.tensor([1]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     roiread(write_rois(objects, f"{folder}/a.zip"))[0].coordinates().tolist()
        [[1, 0], [2, 0], [2, 1], [1, 1]]
    """
    classes = [str(index) if names is None else names[index] for index in objects.classes.tolist()]
    return write_outlines(zip(classes, outlines(objects.labels), strict=True), path, count=len(classes))


def write_outlines(found: Iterable[tuple[str, Pieces]], path: str | Path, *, count: int) -> Path:
    """Write outlines as `write_rois` does, one after the other: no more than one is held.

    Args:
        found: Class of each object and its pieces, as `outlines` returns them; corners need not be whole numbers.
        path: The file.
        count: Number of the objects.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> from gconv_ga.objects import write_outlines
        >>> from roifile import roiread
        >>> found = [("cell", [[[(1.5, 0), (3.0, 0), (3.0, 2)]]])]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (roi,) = roiread(write_outlines(found, f"{folder}/a.zip", count=1))
        >>> roi.name, roi.coordinates().tolist()
        ('1-cell', [[1.5, 0.0], [3.0, 0.0], [3.0, 2.0]])
    """
    width = len(str(count))
    with growing(Path(path)) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, pieces) in enumerate(found, start=1):
            title = f"{number:0{width}}-{name}"
            safe = title.replace("/", "_").replace("\\", "_")
            # With a date of its own the same objects would be another file.
            archive.writestr(zipfile.ZipInfo(f"{safe}.roi"), _roi(title, pieces).tobytes())
    return Path(path)


def _roi(title: str, pieces: Pieces) -> ImagejRoi:
    rings = [ring for piece in pieces for ring in piece]
    roi = ImagejRoi.frompoints([point for ring in rings for point in ring], name=title)
    roi.roitype = ROI_TYPE.TRACED
    if len(rings) > 1:
        path: list[float] = []  # of Java's shapes: 0 moves to a point, 1 draws to one, 4 closes
        for ring in rings:
            for place, point in enumerate(ring):
                path += [1 if place else 0, *point]
            path.append(4)
        roi.roitype, roi.integer_coordinates, roi.subpixel_coordinates, roi.n_coordinates = ROI_TYPE.RECT, None, None, 0
        roi.multi_coordinates = np.array(path, dtype=np.float32)
        roi.shape_roi_size = len(path)
    return roi


def write_coco(
    objects: Objects,
    path: str | Path,
    *,
    file_name: str,
    names: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
) -> Path:
    """Write the objects of an image in the format of COCO, with run lengths in place of polygons, which lose nothing.

    Args:
        objects: The objects.
        path: The file.
        file_name: Name of the image file.
        names: Names of the classes by index. If None, the indices.
        scores: Score of each object, such as its mean probability.

    Returns:
        The path.

    Example:
        >>> import json, tempfile
        >>> import torch
        >>> from gconv_ga.objects import Objects, write_coco
        >>> objects = Objects(torch.tensor([[0, 1], [0, 1]]), torch.tensor([1]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     content = json.loads(write_coco(objects, f"{folder}/a.json", file_name="a.png").read_text())
        >>> content["annotations"][0]["segmentation"], content["annotations"][0]["bbox"]
        ({'size': [2, 2], 'counts': [2, 2]}, [1, 0, 1, 2])
    """
    height, width = objects.labels.shape
    classes = objects.classes.tolist()
    highest = max(classes, default=0) if names is None else len(names) - 1
    annotations = []
    for number, pixels in enumerate(_by_object(objects), start=1):
        rows, columns = pixels % height, pixels // height
        left, top = int(columns.min()), int(rows.min())
        annotation: dict[str, Any] = {
            "id": number,
            "image_id": 1,
            "category_id": classes[number - 1],
            "area": len(pixels),
            "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
            "iscrowd": 0,
            "segmentation": {"size": [height, width], "counts": _run_lengths(pixels, height * width)},
        }
        if scores is not None:
            annotation["score"] = scores[number - 1]
        annotations.append(annotation)
    content = {
        "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
        "categories": [
            {"id": index, "name": str(index) if names is None else names[index]} for index in range(1, highest + 1)
        ],
        "annotations": annotations,
    }
    return write_atomically(Path(path), json.dumps(content).encode())


def _by_object(objects: Objects) -> Iterator[NDArray[np.int64]]:
    """Yield the pixels of each object in the order of columns, ``row + H * column``, sorted."""
    down = objects.labels.cpu().numpy().T.ravel()
    pixels = np.flatnonzero(down)
    order = pixels[np.argsort(down[pixels], kind="stable")]
    sizes = np.bincount(down, minlength=len(objects.classes) + 1)[1:]
    yield from np.split(order, np.cumsum(sizes)[:-1]) if len(sizes) else ()


def _run_lengths(pixels: NDArray[np.int64], size: int) -> list[int]:
    """Return the lengths of the runs of pixels outside and inside in turn, beginning with those outside."""
    breaks = np.flatnonzero(np.diff(pixels) > 1)
    begins = np.concatenate((pixels[:1], pixels[breaks + 1]))
    ends = np.concatenate((pixels[breaks], pixels[-1:])) + 1
    marks = np.concatenate(([0], np.stack((begins, ends), axis=1).ravel(), [size]))
    lengths: list[int] = np.diff(marks).tolist()
    return lengths if lengths[-1] else lengths[:-1]
