"""PNG, JPEG, WebP, BMP and GIF: decoded by Pillow as a whole, or if they are large by libvips row by row."""

import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from ._rasters import Mapped, Raster, as_tensor, bands, from_inks, oriented, read_box, refused
from ._reading import Reading

# Pixels above which libvips decodes a PNG or JPEG. Up to that Pillow holds 16 MiB at most, without a temporary file.
LARGE = 2**22
BLOCK = (16, 128)  # rows and columns that lie together in the temporary file of a decoded image
ORIENTATION = 0x0112  # in EXIF
# Not by `Image.open`, which also tries formats that start other programs.
OPENERS: dict[str, Any] = {
    "PNG": PngImageFile,
    "JPEG": jpeg_factory,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
}
# How images of some of Pillow's modes are shown.
SHOWN = {"P": "RGB", "PA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA"} | dict.fromkeys(
    ("CMYK", "YCbCr", "HSV"), "RGB"
)
NUMBERS = {"1": "uint1", "I": "int32", "F": "float32"}  # by mode; of others below


@dataclass(frozen=True)
class Held:
    """An image that has been decoded as a whole.

    Args:
        values: Values ``[H, W]`` or ``[H, W, C]``.
        numbers: Number type.
    """

    values: NDArray[Any]
    numbers: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        height, width, *channels = self.values.shape
        return channels[0] if channels else 1, height, width

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy."""
        part = self.values[top : top + height, left : left + width]
        return as_tensor(part[None] if part.ndim == 2 else part.transpose(2, 0, 1))

    def pieces(self) -> Iterator[Tensor]:
        """Yield bands of rows."""
        return bands(self, self.values.itemsize)


class Decoded:
    """A large PNG or JPEG, which libvips decodes row by row into a temporary file.

    Rows are decoded as far as windows need them, once, and stay on disk: windows may then be read in any order. The
    temporary file holds plain values in small blocks, has no name, lies where the system keeps such files (``TMPDIR``),
    and is gone with the object. It is not mapped, for mapped pages count as memory in use. While libvips decodes, it
    holds about 512 rows; of a progressive JPEG also two bytes a value, of an interlaced PNG the whole image.

    `pyvips.Image.new_from_file` with ``access="random"`` would do the same with less code, but with threads. A forked
    process, such as a worker of a DataLoader, has none of them and would wait forever; here the calling thread decodes.
    A pickled object begins anew, and so does one that a forked process finds half decoded.

    Args:
        path: The file.
        shape: ``C, H, W``.
        dtype: The number type of the values.
        bits: Number of bits of a value. libvips spreads those of 1, 2 and 4 bits over 0 .. 255; here they are not.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], bits: int) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.bits = bits
        self.numbers = f"uint{bits}"
        self._file: Any = None  # the temporary file, from the first window on
        self._region: Any = None  # libvips, until all rows are decoded
        self._rows = 0  # decoded so far
        self._process = 0  # the one that decodes

    def __reduce__(self) -> tuple[Any, ...]:
        return Decoded, (self.path, self.shape, self.dtype, self.bits)

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy.

        Raises:
            OSError: The file ends before the window does, or the disk is full.
        """
        self._decode(top + height)
        (first, last), (begin, end) = (
            (start // side, -(-(start + length) // side))
            for start, length, side in zip((top, left), (height, width), BLOCK, strict=True)
        )
        lengths, (rows, columns), channels = self._lengths(), BLOCK, self.shape[0]
        box = ((first, last), (begin, end), (0, rows), (0, columns), (0, channels))
        blocks = read_box(self._file.fileno(), self.dtype, lengths, box).transpose(4, 0, 2, 1, 3)
        joined = blocks.reshape(channels, (last - first) * rows, (end - begin) * columns)
        y, x = top - first * rows, left - begin * columns
        return as_tensor(joined[:, y : y + height, x : x + width])

    def pieces(self) -> Iterator[Tensor]:
        """Yield bands of rows."""
        return bands(self, self.dtype.itemsize)

    def _decode(self, rows: int) -> None:
        """Decode until so many rows are on disk."""
        if self._file is None or (self._region is not None and self._process != os.getpid()):
            self._begin()
        _, height, width = self.shape
        _, blocks, side, columns, channels = self._lengths()
        band = np.zeros((side, blocks * columns, channels), self.dtype)
        # Below the size from which malloc maps memory: larger buffers between those of libvips leave holes in the heap.
        step = max(1, 2**16 // band[0].nbytes)
        try:
            while self._rows < rows:
                for row in range(0, min(side, height - self._rows), step):
                    count = min(step, side - row, height - self._rows - row)
                    fetched = self._region.fetch(0, self._rows + row, width, count)
                    values = np.frombuffer(fetched, self.dtype).reshape(count, width, -1)[..., :channels]
                    band[row : row + count, :width] = values // step_of(self.bits) if self.bits < 8 else values
                parts = band.reshape(side, blocks, columns, channels).swapaxes(0, 1)
                content = np.ascontiguousarray(parts).reshape(-1).view(np.uint8).data
                while content:  # one call may write less than there is
                    content = content[self._file.write(content) :]
                self._rows = min(self._rows + side, height)
        except BaseException:  # neither libvips nor the temporary file can go on from here
            self._region = self._file = None
            raise
        if self._rows == height:
            self._region = None  # closes the image file

    def _lengths(self) -> tuple[int, int, int, int, int]:
        """Lengths of the axes of the temporary file: blocks down, blocks across, rows and columns of one, channels."""
        (channels, height, width), (rows, columns) = self.shape, BLOCK
        return -(-height // rows), -(-width // columns), rows, columns, channels

    def _begin(self) -> None:
        """Open the file and check that libvips and Pillow agree on what is in it."""
        import pyvips

        with self.path.open("rb") as file:
            # Not by its name: libvips reads options out of names, and keeps what it has read under a name.
            source = pyvips.Source.new_from_descriptor(file.fileno())
            load = pyvips.Image.pngload_source if file.read(1) == b"\x89" else pyvips.Image.jpegload_source
            file.seek(0)
            image: Any = load(source, access="sequential", fail_on="truncated")  # or missing rows would be grey
        dtype = {"uchar": np.uint8, "ushort": np.uint16}.get(image.format)
        if (image.height, image.width) != self.shape[1:] or dtype != self.dtype or image.bands < self.shape[0]:
            raise ValueError(f"it has {image.bands} channels of {image.format}, {image.height} x {image.width}")
        self._process, self._rows, self._region = os.getpid(), 0, pyvips.Region.new(image)
        self._file = tempfile.TemporaryFile(prefix="gconv_ga-", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)


def step_of(bits: int) -> int:
    """Return the difference of neighbouring levels, where grey levels of few bits are spread over 0 .. 255."""
    return 255 // (2**bits - 1)


def open_picture(path: Path, kind: str, reading: Reading, *, palette: bool, mask: bool) -> Raster:
    """Open a file of one of `OPENERS`.

    Args:
        path: The file.
        kind: Format of its content.
        reading: Page and largest size.
        palette: Whether a file with a palette gives indices into it, or colours.
        mask: Whether it is a mask, whose only page belongs to all pages of its image.

    Raises:
        ValueError: It is too large, or has several pages; errors of Pillow are of many types.
    """
    with path.open("rb") as content, _any_size():
        if kind == "WebP":
            reading.check_size(path, 4, *webp_size(content))  # before Pillow allocates the canvas
        file: Image.Image = OPENERS[kind](content)
        reading.check_size(path, len(file.getbands()), file.height, file.width)
        if frame := _frame(path, file, reading, mask=mask):
            file.seek(frame)
        wide = _is_wide(file)
        is_large = kind in ("PNG", "JPEG") and file.width * file.height > LARGE
        if (is_large or (wide and kind == "PNG")) and not frame and not (file.mode == "P" and palette):
            return _open_large(path, file, _late_orientation(content) if kind == "PNG" else None, wide=wide)
        if wide:
            advice = "Pillow would drop half of each; save it as PNG, or as TIFF without compression"
            raise refused(path, "a file of 8 bits a colour, or of 16 bits that is grey, PNG or TIFF", advice)
        bits = _bits(file)  # known only before it is decoded
        file.load()
        return oriented(_held(path, file, bits, palette=palette), file.getexif().get(ORIENTATION))


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit of the size of images, for which `Reading` has its own."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def is_lossy(path: Path, kind: str) -> bool:
    """Return True if a file holds only nearly what was written, as JPEG does; of TIFF it is not known here.

    Args:
        path: The file.
        kind: Format of its content.
    """
    if kind != "WebP":
        return kind == "JPEG"
    with path.open("rb") as content:
        return any(name == b"VP8 " for name, _, _ in _riff_chunks(content))


def _riff_chunks(content: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and length of each chunk of a WebP; those of its frames too."""
    place = 12
    while True:
        content.seek(place)
        head = content.read(8)
        if len(head) < 8:
            return
        name, size = head[:4], int.from_bytes(head[4:], "little")
        yield name, place + 8, size
        place += 8 + (16 if name == b"ANMF" else size + size % 2)  # chunks of a frame follow its 16 bytes


def webp_size(content: BinaryIO) -> tuple[int, int]:
    """Height and width of a WebP."""
    content.seek(12)
    head = content.read(18)
    content.seek(0)
    if head[:4] == b"VP8X" and len(head) == 18:
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (12, 15))
    elif head[:4] == b"VP8L" and len(head) == 18:
        bits = int.from_bytes(head[9:13], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif head[:4] == b"VP8 " and len(head) == 18:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (14, 16))
    else:
        raise ValueError("it is no WebP")
    return height, width


def _frame(path: Path, file: Image.Image, reading: Reading, *, mask: bool) -> int:
    """Number of the frame to read.

    Raises:
        ValueError: There are several and none is chosen, or there is no such frame.
    """
    frames = getattr(file, "n_frames", 1)
    if reading.page is None:
        if frames > 1 and file.format != "MPO":  # a JPEG with a preview or a map inside: the first one is the image
            raise refused(path, "an image file of one page", f"this one has {frames} pages; {CHOOSE_PAGE}")
        return 0
    if mask and frames == 1:
        return 0
    if reading.page >= frames:
        raise refused(path, f"a file that has page {reading.page}", f"it has {frames}, counted from 0")
    return reading.page


CHOOSE_PAGE = "choose one with page (--page), counted from 0"


def _is_wide(file: Image.Image) -> bool:
    """True if Pillow gives the first 8 bits only of colours of 16 bits."""
    return len(file.getbands()) > 1 and any(";16" in str(tile[3]) for tile in getattr(file, "tile", ()))


def _open_large(path: Path, file: Any, orientation: object, *, wide: bool) -> Raster:
    """An image for libvips."""
    channels = 3 if file.mode == "P" else len(file.getbands())
    wide = wide or file.mode.startswith("I")
    bits = 16 if wide else _bits(file)
    dtype = np.dtype(np.uint16 if wide else np.uint8)
    raster: Raster = Decoded(path, (channels, file.height, file.width), dtype, bits)
    if file.mode == "CMYK":
        raster = Mapped(raster, 3, partial(from_inks, top=255), raster.numbers)
    # Not file.getexif(), with which a PNG is decoded.
    return oriented(raster, Image.Image.getexif(file).get(ORIENTATION) if orientation is None else orientation)


def _bits(file: Any) -> int:
    """Number of bits of a grey level of a file whose values are bytes once decoded."""
    if file.mode == "1":
        return 1
    mode = str(file.tile[0][3]) if file.mode == "L" and getattr(file, "tile", ()) else ""
    return int(mode[2:]) if mode in ("L;2", "L;4") else 8


def _held(path: Path, file: Any, bits: int, *, palette: bool) -> Held:
    """An image that Pillow has decoded."""
    mode = file.mode
    if mode == "LAB":
        raise refused(path, "an image in grey, RGB, CMYK or YCbCr", "its colours are L*a*b*; convert it to RGB")
    if mode in ("P", "PA") and palette:
        return Held(np.array(file if mode == "P" else file.getchannel(0)), "uint8")
    shown = SHOWN.get(mode, mode)
    if file.format == "GIF" and not palette:  # it always has a palette, and Pillow calls some of them grey levels
        shown = "RGB"
    values = np.array(file if shown == mode else file.convert(shown))
    if mode in NUMBERS or mode.startswith("I;16"):
        return Held(values, NUMBERS.get(mode, "uint16"))
    return Held(values // step_of(bits) if bits < 8 else values, f"uint{bits}")


def _late_orientation(content: BinaryIO) -> int | None:
    """Orientation in the EXIF of a PNG that is behind the pixels, where Pillow looks only when it decodes them."""
    place = 8
    while True:
        content.seek(place)
        head = content.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return None
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            exif = Image.Exif()
            exif.load(content.read(size))
            found = exif.get(ORIENTATION)
            return found if isinstance(found, int) else None
        place += 12 + size
