"""The size of a pixel, as image files state it."""

import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

import tifffile

from ._pairs import FORMATS

LARGEST = 100.0  # micrometres; "72 dots per inch", which say nothing about what is seen, would be 353
LARGEST_BY_INCH = 10.0  # micrometres; up to 2400 dots per inch may be those of a printer or a scanner of paper
RESOLUTION_UNITS = {2: "inch", 3: "cm"}  # of TIFF
MICROMETRES = {
    "µm": 1.0, "\u03bcm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4,
    "inch": 25400.0,
}  # fmt: skip


def read_pixel_size(path: str | Path) -> float | None:
    """Return the side of a pixel in micrometres if a TIFF states it, else None.

    Read are OME-XML, the descriptions of ImageJ and of Aperio (``MPP``), and a resolution in pixels per centimetre or
    inch. Pixels that are not square, and sides above 100 micrometres, by inch above 10, are taken as not stated.

    Args:
        path: The image file, of any format.

    Example:
        >>> from gconv_ga.images import read_pixel_size
        >>> read_pixel_size("photo.png") is None
        True
    """
    if Path(path).suffix.lower() not in FORMATS["TIFF"]:
        return None
    try:
        with tifffile.TiffFile(path) as file:
            sides = _ome(file) or _resolution(file)
            aperio = re.search(r"\bMPP\s*=\s*([\d.]+)", file.pages.first.description) if file.is_svs else None
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        ZeroDivisionError,
        ET.ParseError,
        tifffile.TiffFileError,
    ):
        return None
    if aperio is not None:
        sides = (float(aperio[1]),) * 2
    if sides is None or abs(sides[0] - sides[1]) > 1e-3 * sides[0] or not 0 < sides[0] <= LARGEST:
        return None
    return sides[0]


def common_pixel_size(paths: Iterable[str | Path]) -> float | None:
    """Return the side of a pixel in micrometres that images state, if they agree to 5 %: the middle one; else None.

    Images that state nothing are left out of account.

    Args:
        paths: The image files.

    Example:
        >>> from gconv_ga.images import common_pixel_size
        >>> common_pixel_size(["a.png", "b.png"]) is None
        True
    """
    sizes = sorted(size for size in map(read_pixel_size, paths) if size is not None)
    if not sizes or sizes[-1] > sizes[0] * 1.05:
        return None
    return sizes[len(sizes) // 2]


def _ome(file: tifffile.TiffFile) -> tuple[float, float] | None:
    """Return the sides in micrometres that OME-XML states."""
    if not file.ome_metadata:
        return None
    for element in ET.fromstring(file.ome_metadata).iter():
        if element.tag.endswith("}Pixels") and "PhysicalSizeX" in element.attrib:
            across, down = (
                float(element.attrib[f"PhysicalSize{axis}"])
                * MICROMETRES[element.attrib.get(f"PhysicalSize{axis}Unit", "µm")]
                for axis in "XY"
            )
            return across, down
    return None


def _resolution(file: tifffile.TiffFile) -> tuple[float, float] | None:
    """Return the sides in micrometres that the resolution states, in the unit of ImageJ, centimetres or inches."""
    tags = file.pages.first.tags
    unit = str((file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ")
    if unit not in MICROMETRES:
        unit = RESOLUTION_UNITS.get(tags.valueof("ResolutionUnit"), "")
    if unit not in MICROMETRES:
        return None
    across, down = (
        MICROMETRES[unit] * tags[name].value[1] / tags[name].value[0] for name in ("XResolution", "YResolution")
    )
    return None if unit == "inch" and max(across, down) > LARGEST_BY_INCH else (across, down)
