"""Levels of slides in formats that tifffile does not read: those of OpenSlide, and OME-Zarr."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._validate import missing_extra
from ._pixel_size import LARGEST
from ._rasters import Raster, as_tensor, bands, refused
from ._reading import Reading

WHITE = 255
# Micrometres of the units that OME-Zarr names.
UNITS = {"angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


@lru_cache(maxsize=4)
def _openslide(path: Path, process: int) -> Any:
    """Return the open slide of this process; a forked one must not share it."""
    try:
        import openslide
    except ModuleNotFoundError as error:
        raise missing_extra(__name__.rpartition(".")[0], "slides", error) from error
    return openslide.OpenSlide(path)


@dataclass(frozen=True)
class OpenSlideLevel:
    """A level of a slide that OpenSlide reads: red, green and blue, 8 bits each. What was not scanned is white.

    Args:
        path: The file.
        level: Number of the level, from the finest.
        shape: ``C, H, W``.
    """

    path: Path
    level: int
    shape: tuple[int, int, int]
    numbers: str = "uint8"

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy."""
        slide = _openslide(self.path, os.getpid())
        scale = slide.level_downsamples[self.level]  # OpenSlide wants the place in pixels of the finest level
        part = np.asarray(slide.read_region((round(left * scale), round(top * scale)), self.level, (width, height)))
        opacity = part[..., 3:].astype(np.uint16)
        seen = part[..., :3] * opacity + WHITE * (255 - opacity)
        return as_tensor(((seen + 127) // 255).astype(np.uint8).transpose(2, 0, 1))

    def pieces(self) -> Iterator[Tensor]:
        """Yield bands of rows."""
        return bands(self, 1)


def open_with_openslide(path: Path) -> tuple[list[Raster], float | None]:
    """Return the levels of a slide, the finest first, and the side of a pixel of the first one in micrometres.

    Args:
        path: The file.

    Raises:
        ModuleNotFoundError: OpenSlide is not installed.
        ValueError: OpenSlide does not know the format; its other errors are of its own type.
    """
    slide = _openslide(path, os.getpid())
    levels: list[Raster] = [
        OpenSlideLevel(path, level, (3, height, width)) for level, (width, height) in enumerate(slide.level_dimensions)
    ]
    return levels, _square([slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"])


def _square(sides: Sequence[Any]) -> float | None:
    """Return the side of a pixel, if it is stated and the same both ways to a hundredth."""
    if any(side is None for side in sides):
        return None
    across, down = (float(side) for side in sides)
    middle = (across + down) / 2
    return middle if abs(across - down) <= 1e-2 * middle and 0 < middle <= LARGEST else None


@lru_cache(maxsize=4)
def _zarr(path: Path, process: int) -> Any:
    """Return the open group of this process; a forked one lacks the threads of zarr."""
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise missing_extra(__name__.rpartition(".")[0], "slides", error) from error
    return zarr.open_group(str(path), mode="r")


@dataclass(frozen=True)
class ZarrLevel:
    """A level of an OME-Zarr.

    Args:
        path: Folder of the whole.
        name: Name of the array in it.
        axes: Names of its axes, one letter each.
        page: Number of the plane along the axes other than channels, rows and columns.
        lengths: Their lengths.
        numbers: Number type.
    """

    path: Path
    name: str
    axes: str
    page: int
    lengths: tuple[int, ...]
    numbers: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        sizes = dict(zip(self.axes, self.lengths, strict=True))
        return sizes.get("c", 1), sizes["y"], sizes["x"]

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy."""
        box = {"y": slice(top, top + height), "x": slice(left, left + width), "c": slice(None)}
        outer = [length for axis, length in zip(self.axes, self.lengths, strict=True) if axis not in box]
        places = iter(np.unravel_index(self.page, outer) if outer else ())
        index = tuple(box[axis] if axis in box else int(next(places)) for axis in self.axes)
        part: NDArray[Any] = _zarr(self.path, os.getpid())[self.name][index]
        left_axes = [axis for axis in self.axes if axis in box]
        moved = part.transpose([left_axes.index(axis) for axis in "cyx" if axis in left_axes])
        return as_tensor(moved if "c" in left_axes else moved[None])

    def pieces(self) -> Iterator[Tensor]:
        """Yield bands of rows."""
        return bands(self, np.dtype(self.numbers).itemsize)


def _metadata(group: Any) -> Any:
    """Return what OME has in the attributes of a group, at the place of version 0.5 or of 0.4."""
    about = dict(group.attrs)
    return about.get("ome") or about


def _by_number(name: str) -> tuple[int, str]:
    """Return a key that sorts 10 behind 9."""
    return (int(name) if name.isdecimal() else 0, name)


def open_zarr(path: Path, reading: Reading) -> tuple[list[Raster], float | None]:
    """Return the levels of an OME-Zarr (0.4 or 0.5), the finest first, and the side of a pixel in micrometres.

    Args:
        path: Its folder, or that of an image inside it.
        reading: Page of the plane, if there are several beside the channels.

    Raises:
        ModuleNotFoundError: zarr is not installed.
        ValueError: It holds no image, or several; or the image has several planes and none is chosen.
    """
    group = _zarr(path, os.getpid())
    if "multiscales" not in _metadata(group):  # a collection, as bioformats2raw writes it
        names = sorted((name for name, part in group.groups() if "multiscales" in _metadata(part)), key=_by_number)
        if len(names) != 1:
            found = "it has no multiscales, and no folder in it has"
            if names:
                found = f"it holds the images {', '.join(names)}; name the folder of one, such as {path / names[0]}"
            raise refused(path, "an OME-Zarr of one image", found)
        return open_zarr(path / names[0], reading)
    image = _metadata(group)["multiscales"]
    axes = "".join(axis["name"] for axis in image[0]["axes"])
    levels: list[Raster] = []
    for each in image[0]["datasets"]:
        array = group[each["path"]]
        numbers = np.dtype(array.dtype).name
        levels.append(ZarrLevel(path, each["path"], axes, reading.page or 0, tuple(array.shape), numbers))
        lengths = zip(axes, array.shape, strict=True)
    planes = int(np.prod([length for axis, length in lengths if axis not in "cyx"]))
    if not set("yx") <= set(axes) or (planes > 1 and reading.page is None) or (reading.page or 0) >= planes:
        raise refused(path, "a flat image", f"its axes are {axes}, with {planes} planes; choose one with page (--page)")
    # Those of a level come first, and then those of all levels.
    changes = [*image[0]["datasets"][0]["coordinateTransformations"], *image[0].get("coordinateTransformations", ())]
    scales = [part["scale"] for part in changes if part["type"] == "scale"]
    scale = [math.prod(factors) for factors in zip(*scales, strict=True)] or [0.0] * len(axes)
    units = [UNITS.get(image[0]["axes"][axes.index(axis)].get("unit")) for axis in "xy"]
    sides = [unit and scale[axes.index(axis)] * unit for axis, unit in zip("xy", units, strict=True)]
    return levels, _square(sides)
