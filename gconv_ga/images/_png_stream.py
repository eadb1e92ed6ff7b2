"""PNG row by row: zlib inflates, and Pillow undoes the filters and reads the pixels, a band of rows at a time."""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from ._rasters import Held
from ._streamed import BAND, Streamed

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIECE = 2**16  # bytes of the file that are inflated at a time
# Bits a pixel, by Pillow's name of how they lie in the file. The rest has 16 bits a colour.
BITS = {"1": 1, "L;2": 2, "L;4": 4, "L": 8, "I;16B": 16, "LA": 16, "RGB": 24, "RGBA": 32}
BITS |= {"P;1": 1, "P;2": 2, "P;4": 4, "P": 8}
# The colour type that has so many bytes a pixel with 8 bits a channel: filters go by the bytes and by nothing else.
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def png_stream(path: Path, file: PngImageFile, *, palette: bool) -> Streamed | None:
    """A PNG to be read row by row; None if it is interlaced: its first rows need the end of the file.

    Args:
        path: The file.
        file: The same, open and not decoded.
        palette: As for `Held`.
    """
    if file.info.get("interlace") or len(file.tile) != 1 or _rawmode(file) not in BITS:
        return None
    channels, _, _ = Held(Image.new(file.mode, (1, 1)), palette).shape
    return Streamed((channels, file.height, file.width), partial(_bands, path, palette))


def _rawmode(file: PngImageFile) -> str:
    """How a pixel lies in the file; Pillow gives it alone or as the first of several things."""
    args = file.tile[0].args
    return args if isinstance(args, str) else str((args or ("",))[0])


def _bands(path: Path, palette: bool) -> Iterator[Tensor]:
    """The image from top to bottom in bands ``[C, h, W]``, as `Held` gives them."""
    with PngImageFile(path) as file:
        mode, rawmode, (width, height) = file.mode, _rawmode(file), file.size
        colours = None if file.palette is None else bytes(file.palette.palette)
        begin = file.tile[0].offset - 8  # before the length and the name of the first IDAT chunk
    stride, step = -(-width * BITS[rawmode] // 8), max(1, BITS[rawmode] // 8)
    rows = max(1, BAND // (stride + 1))
    heights = [min(rows, height - top) for top in range(0, height, rows)]
    with path.open("rb") as stream:
        stream.seek(begin)
        above = bytes(stride)
        for filtered in _inflated(stream, [(stride + 1) * count for count in heights]):
            raw = _unfiltered(above, filtered, stride // step, step)
            above = raw[-stride:]
            count = len(raw) // stride
            picture = Image.frombytes(mode, (width, count), raw, "raw", rawmode)
            if colours is not None:
                picture.putpalette(colours)
            yield Held(picture, palette).window(0, 0, count, width)


def _inflated(stream: BinaryIO, sizes: Iterable[int]) -> Iterator[bytes]:
    """The filtered rows, so many bytes after so many; never more than that is inflated at a time."""
    pieces, inflate, data = _pieces(stream), zlib.decompressobj(), b""
    ready = bytearray()
    for size in sizes:
        while len(ready) < size:
            data = data or next(pieces, b"")
            ready += inflate.decompress(data, size - len(ready)) if data else inflate.flush()
            if not data and len(ready) < size:
                raise OSError("image file is truncated")
            data = inflate.unconsumed_tail
        yield bytes(ready[:size])
        del ready[:size]


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """What the IDAT chunks hold, which follow one another."""
    while (head := stream.read(8))[4:] == b"IDAT":
        (left,) = struct.unpack(">I", head[:4])
        while left and (piece := stream.read(min(left, PIECE))):
            left -= len(piece)
            yield piece
        stream.seek(4, io.SEEK_CUR)  # Pillow does not look at this checksum either


def _unfiltered(above: bytes, filtered: bytes, width: int, step: int) -> bytes:
    """The bytes of the rows, out of a small PNG of 8 bits whose first row is the one above them, not filtered."""
    content = b"\0" + above + filtered
    rows = len(content) // (len(above) + 1)
    header = struct.pack(">IIBBBBB", width, rows, 8, COLOUR_TYPES[step], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(content, 0)), (b"IEND", b""))
    png = SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    with Image.open(io.BytesIO(png), formats=["PNG"]) as file:
        return file.tobytes()[len(above) :]
