"""Class maps of any size as OME-TIFF: tiled, compressed, with coarser levels, written as they are computed."""

import itertools
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import tifffile
from numpy.typing import NDArray

from .._files import growing, naming_file

TILE = 512  # side of the tiles of the file
SMALLEST = 1024  # longest side of the coarsest level, at most

Window = Callable[[int, int, int, int], NDArray[Any]]


def write_pyramid(
    path: Path,
    shape: tuple[int, int],
    window: Window,
    dtype: type[np.unsignedinteger[Any]],
    *,
    title: str = "classes",
    names: Sequence[str] | None = None,
    pixel_size: float | None = None,
    are_ordered: bool = True,
    preview: Callable[[NDArray[Any]], Any] | None = None,
) -> Path:
    """Write a map of whole numbers as an OME-TIFF of deflated tiles, with levels of half the size each.

    A pixel of a coarser level has the most frequent value of its 2 x 2 pixels; of several as frequent the highest, or
    zero if the values have no order that a rotated map has too, such as numbers of objects. Along an odd side the
    middle pixel stands alone, or belongs to a group of three, so that the levels of a rotated map are the rotated
    levels. No more than some tiles are held, and the compressed file lies in ``TMPDIR`` once more.

    Args:
        path: The file; it exists only when it is complete.
        shape: Height and width.
        window: Function that returns the values of a window: top, left, height, width.
        dtype: Number type of the values.
        title: Name of the image in the file.
        names: Names of the values, from 0.
        pixel_size: Side of a pixel in micrometres.
        are_ordered: Whether the highest of values as frequent is taken, or none.
        preview: Called with the coarsest level before the file is complete.

    Returns:
        The path.

    Raises:
        OSError: The disk is full.
    """
    sizes = [shape]
    while max(sizes[-1]) > SMALLEST:
        sizes.append((len(_groups(sizes[-1][0])), len(_groups(sizes[-1][1]))))
    about = {} if names is None else {str(index): name for index, name in enumerate(names)}
    options: dict[str, Any] = {"tile": (TILE, TILE), "dtype": dtype, "compression": "zlib", "metadata": None}
    options |= {"photometric": "minisblack", "software": False}
    if pixel_size is not None:
        options |= {"resolutionunit": "CENTIMETER"}
    numbers = np.dtype(dtype)
    with growing(path) as file, tifffile.TiffWriter(file, bigtiff=True) as writer:
        finer = _Tiles(shape, numbers)
        for level, size in enumerate(sizes):
            tiles = _Tiles(size, numbers)
            source = window if level == 0 else _Halves(finer, are_ordered=are_ordered).window
            if pixel_size is not None:
                options["resolution"] = (1e4 / pixel_size * size[1] / shape[1], 1e4 / pixel_size * size[0] / shape[0])
            first: dict[str, Any] = {"subfiletype": 1}
            if level == 0:
                text = ome_xml(shape, numbers.name, values=about, pixel_size=pixel_size, name=title)
                first = {"subifds": len(sizes) - 1, "description": text.encode()}
            writer.write(tiles.filled(source), shape=size, **options, **first)
            finer = tiles
        if preview is not None:
            preview(finer.window(0, 0, *sizes[-1]))
    return path


def ome_xml(
    shape: tuple[int, int], numbers: str, *, values: Mapping[str, str], pixel_size: float | None, name: str
) -> str:
    """Return the OME-XML of a map of one channel; what its values mean is a map annotation of the image.

    Args:
        shape: Height and width.
        numbers: Number type.
        values: Meaning of each value.
        pixel_size: Side of a pixel in micrometres.
        name: Name of the image and of its channel.
    """
    size = ""
    if pixel_size is not None:
        size = "".join(f' PhysicalSize{axis}="{pixel_size:.9g}" PhysicalSize{axis}Unit="µm"' for axis in "XY")
    meanings = "".join(f"<M K={quoteattr(key)}>{escape(value)}</M>" for key, value in values.items())
    reference, annotations = "", ""
    if values:
        reference = '<AnnotationRef ID="Annotation:0"/>'
        annotations = (
            f'<StructuredAnnotations><MapAnnotation ID="Annotation:0" Namespace="classes"><Value>{meanings}</Value>'
            "</MapAnnotation></StructuredAnnotations>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation='
        '"http://www.openmicroscopy.org/Schemas/OME/2016-06 '
        'http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd" Creator="gconv_ga">'
        f'<Image ID="Image:0" Name={quoteattr(name)}><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{numbers}" '
        f'SizeX="{shape[1]}" SizeY="{shape[0]}" SizeC="1" SizeZ="1" SizeT="1"{size}>'
        f'<Channel ID="Channel:0:0" Name={quoteattr(name)} SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1"/>'
        f"</Pixels>{reference}</Image>{annotations}</OME>"
    )


def _groups(size: int) -> list[int]:
    """Return the first pixel of each group of two; of odd sizes the middle group has one pixel, or three.

    The groups are the same when the axis is reversed.
    """
    if size % 2 == 0 or size == 1:
        return list(range(0, size, 2))
    pairs = (size + 1) // 4  # on each side of the middle one; of three pixels where that leaves three
    pairs = pairs if size - 4 * pairs > 0 else pairs - 1
    near = list(range(0, 2 * pairs, 2))
    return [*near, 2 * pairs, *range(size - 2 * pairs, size, 2)]


class _Tiles:
    """Compressed tiles of one level, in a temporary file, of which those that are zero everywhere take no room.

    Args:
        shape: Height and width of the level.
        dtype: Number type.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._zero = zlib.compress(bytes(TILE * TILE * dtype.itemsize))
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        self._file: Any = tempfile.TemporaryFile(prefix="gconv_ga-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def filled(self, window: Window) -> Iterator[bytes]:
        """Compress all tiles in their order, keep them, and yield them."""
        height, width = self.shape
        for top, left in itertools.product(range(0, height, TILE), range(0, width, TILE)):
            part = window(top, left, min(TILE, height - top), min(TILE, width - left))
            if not part.any():
                yield self._zero
                continue
            tile = np.zeros((TILE, TILE), self.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            data = zlib.compress(tile.tobytes())
            with naming_file(tempfile.gettempdir()):
                place = self._file.seek(0, 2)
                self._file.write(data)
            self._places[top // TILE, left // TILE] = place, len(data)
            yield data

    def tile(self, row: int, column: int) -> NDArray[Any] | None:
        """Return a tile; None if it is zero everywhere."""
        if (row, column) not in self._places:
            return None
        place, size = self._places[row, column]
        self._file.seek(place)
        return np.frombuffer(zlib.decompress(self._file.read(size)), self.dtype).reshape(TILE, TILE)

    def window(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """Return the values of a window."""
        part = np.zeros((height, width), self.dtype)
        rows = range(top // TILE, -(-(top + height) // TILE))
        columns = range(left // TILE, -(-(left + width) // TILE))
        for row, column in itertools.product(rows, columns):
            tile = self.tile(row, column)
            if tile is not None:
                paste(part, tile, row * TILE - top, column * TILE - left)
        return part


def paste(part: NDArray[Any], piece: NDArray[Any], top: int, left: int) -> None:
    """Copy into an array what another one, whose first pixel lies at ``top, left`` of it, has in common with it."""
    here, there = [], []
    for begin, side, length in zip((top, left), part.shape[-2:], piece.shape[-2:], strict=True):
        first, last = max(0, begin), min(side, begin + length)
        here.append(slice(first, max(first, last)))
        there.append(slice(first - begin, max(first, last) - begin))
    part[..., here[0], here[1]] = piece[..., there[0], there[1]]


class _Halves:
    """Half of a level, by the most frequent value.

    Args:
        tiles: The level.
        are_ordered: As for `most_frequent`.
    """

    def __init__(self, tiles: _Tiles, *, are_ordered: bool) -> None:
        self.tiles = tiles
        self.are_ordered = are_ordered
        self.groups = [np.array([*_groups(side), side]) for side in tiles.shape]

    def window(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """Return the values of a window of the half."""
        tops, lefts = (groups[first : first + length + 1] for groups, first, length in
                       zip(self.groups, (top, left), (height, width), strict=True))  # fmt: skip
        high, wide = int(tops[-1] - tops[0]), int(lefts[-1] - lefts[0])
        part = self.tiles.window(int(tops[0]), int(lefts[0]), high, wide)
        return most_frequent(part, np.diff(tops), np.diff(lefts), are_ordered=self.are_ordered)


def most_frequent(
    values: NDArray[Any], heights: NDArray[Any], widths: NDArray[Any], *, are_ordered: bool = True
) -> NDArray[Any]:
    """Return the most frequent value of each of the blocks that tile an array.

    Args:
        values: The array.
        heights: Number of rows of each row of blocks.
        widths: Number of columns of each column of blocks.
        are_ordered: Whether the highest of several as frequent is taken, or zero.
    """
    if values.size and values.min() == values.max():
        return np.full((len(heights), len(widths)), values.flat[0], values.dtype)
    tops, lefts = np.cumsum(heights) - heights, np.cumsum(widths) - widths
    steps = list(itertools.product(range(int(heights.max())), range(int(widths.max()))))
    parts, counted = [], []
    for down, across in steps:
        rows, columns = np.minimum(tops + down, len(values) - 1), np.minimum(lefts + across, values.shape[1] - 1)
        parts.append(values[np.ix_(rows, columns)])
        counted.append(np.logical_and.outer(down < heights, across < widths))
    best, most, is_tied = np.zeros_like(parts[0]), np.zeros(parts[0].shape, np.int8), np.zeros(parts[0].shape, np.bool_)
    for part, counts in zip(parts, counted, strict=True):
        same = [(part == other) & there for other, there in zip(parts, counted, strict=True)]
        number = np.where(counts, np.sum(same, axis=0, dtype=np.int8), 0)
        is_equal = (number == most) & counts & (part != best)
        is_tied = np.where(number > most, False, is_tied | is_equal)
        better = (number > most) | (is_equal & (part > best))
        best, most = np.where(better, part, best), np.where(better, number, most)
    return best if are_ordered else np.where(is_tied, 0, best).astype(best.dtype)
