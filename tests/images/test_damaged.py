"""Damaged files: one error in one line that names the file, or pixels; never another error, a hang or a crash.

``python tests/images/test_damaged.py 10000`` tries so many inputs, in processes of its own with limited memory.
"""

import io
import multiprocessing
import resource
import signal
import struct
import sys
import tempfile
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gconv_ga.images import Reading, _pictures
from gconv_ga.images._reader import ImageFile, MaskFile

HEIGHT, WIDTH = 33, 46
READING = Reading(max_pixels=10**6)
numbers = np.random.default_rng(0)
GREY = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) * 3 + numbers.integers(0, 9, (HEIGHT, WIDTH))).astype(
    np.uint8
)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
WIDE = GREY.astype(np.uint16) * 211
STACK = np.stack([GREY, GREY[::-1], GREY[:, ::-1]])


def pillow(array, kind, **options):
    content = io.BytesIO()
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(content, kind, **options)
    return content.getvalue()


def tiff(array, **options):
    content = io.BytesIO()
    tifffile.imwrite(content, array, **{"photometric": "minisblack" if array.shape[-1] != 3 else "rgb", **options})
    return content.getvalue()


def array(values):
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def with_exif(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    return pillow(RGB, kind, exif=exif)


TILES = {"tile": (16, 16)}
WHOLE = {
    "grey.png": pillow(GREY, "PNG"),
    "wide.png": pillow(WIDE, "PNG"),
    "rgb.png": with_exif("PNG"),
    "palette.png": pillow(Image.fromarray(RGB).quantize(16), "PNG"),
    "large.png": pillow(RGB, "PNG"),
    "grey.jpg": pillow(GREY, "JPEG", quality=98),
    "rgb.jpg": with_exif("JPEG"),
    "progressive.jpg": pillow(RGB, "JPEG", progressive=True),
    "large.jpg": pillow(RGB, "JPEG"),
    "inks.jpg": pillow(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "lossy.webp": pillow(RGB, "WebP"),
    "lossless.webp": pillow(RGB, "WebP", lossless=True),
    "grey.bmp": pillow(GREY, "BMP"),
    "rgb.bmp": pillow(RGB, "BMP"),
    "grey.gif": pillow(GREY, "GIF"),
    "plain.tif": tiff(GREY),
    "wide.tif": tiff(WIDE, photometric="miniswhite"),
    "tiles.tif": tiff(RGB, **TILES),
    "big.tif": tiff(RGB, bigtiff=True, byteorder=">"),
    "zlib.tif": tiff(RGB, compression="zlib", predictor=True, rowsperstrip=5),
    "lzw.tif": tiff(RGB, compression="lzw", **TILES),
    "packbits.tif": tiff(GREY, compression="packbits"),
    "zstd.tif": tiff(WIDE, compression="zstd", **TILES),
    "lzma.tif": tiff(GREY, compression="lzma"),
    "jpeg.tif": tiff(RGB, compression="jpeg", **TILES),
    "jpeg2000.tif": tiff(GREY, compression="jpeg2000", **TILES),
    "png.tif": tiff(RGB, compression="png", **TILES),
    "webp.tif": tiff(RGB, compression="webp", **TILES),
    "fax.tif": pillow(GREY > 90, "TIFF", compression="group4"),
    "bits.tif": tiff(GREY // 16, bitspersample=4),
    "palette.tif": pillow(Image.fromarray(RGB).quantize(16), "TIFF"),
    "inks.tif": pillow(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    "brightness.tif": pillow(Image.fromarray(RGB).convert("YCbCr"), "TIFF"),
    "float.tif": tiff(GREY.astype(np.float32), predictor=3, compression="zlib"),
    "channels.tif": tiff(STACK, ome=True, metadata={"axes": "CYX"}),
    "imagej.tif": tiff(STACK, imagej=True, metadata={"axes": "CYX"}, truncate=True),
    "grey.npy": array(GREY),
    "float.npy": array(RGB.astype(np.float32)),
}  # fmt: skip


@contextmanager
def size_for(name):
    """Have libvips decode what is called large."""
    before = _pictures.LARGE
    _pictures.LARGE = 0 if name.startswith("large") else before
    try:
        yield
    finally:
        _pictures.LARGE = before


def read(path, kind=ImageFile):
    """The pixels of a file, or None if it is refused as it should be."""
    with size_for(path.name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's about damaged tags
        try:
            file = kind(path, None, READING)
            return file.window(0, 0, *file.shape[-2:])
        except (ValueError, OSError) as error:
            said = str(error)
    assert str(path) in said, f"it does not name the file: {said}"
    assert "\n" not in said
    return None


def attempt(path, content):
    """Read content as an image and as a mask; return the image, or None."""
    path.write_bytes(content)
    read(path, MaskFile)
    return read(path)


def cuts(content):
    """The content truncated at every fiftieth."""
    return [content[: part * len(content) // 50] for part in range(50)]


def truncated(folder, name):
    """Number of truncations that are refused, of fifty; the others must have the right pixels."""
    path = folder / name
    whole = attempt(path, WHOLE[name])
    assert whole is not None
    found = [attempt(path, content) for content in cuts(WHOLE[name])]
    for part, pixels in enumerate(found):
        assert pixels is None or torch.equal(pixels, whole), f"{name} cut at {part}/50 has other pixels"
    return sum(pixels is None for pixels in found)


@st.composite
def damaged(draw):
    """A file of which some bytes are changed, taken away, put in or repeated, more often near its beginning."""
    name = draw(st.sampled_from(sorted(WHOLE)))
    content = bytearray(WHOLE[name])
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.one_of(st.integers(0, min(300, len(content))), st.integers(0, len(content))))
        change = draw(st.sampled_from(["set", "number", "take", "put", "repeat"]))
        size = draw(st.integers(1, 16))
        if change == "set":
            content[place : place + size] = draw(st.binary(min_size=size, max_size=size))
        elif change == "number":
            edge = draw(st.sampled_from([b"\0", b"\x01", b"\x7f", b"\x80", b"\xff"]))
            content[place : place + 4] = draw(st.sampled_from([edge * 4, edge + bytes(3), bytes(3) + edge]))
        elif change == "take":
            del content[place : place + size]
        elif change == "put":
            content[place:place] = draw(st.binary(min_size=size, max_size=size))
        else:
            content[place:place] = content[place : place + 8 * size]
    return name, bytes(content)


@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_file_is_refused_or_has_the_right_pixels(name, tmp_path):
    assert truncated(tmp_path, name) >= 25


@hypothesis.settings(max_examples=300)
@given(damaged())
def test_a_damaged_file_is_refused_or_is_an_image(case):
    name, content = case
    with tempfile.TemporaryDirectory() as folder:
        attempt(Path(folder) / name, content)


def test_grey_rows_would_be_found(tmp_path, monkeypatch):
    """With Pillow's leave to fill what is missing, the check of truncated files fails."""
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(AssertionError, match="has other pixels"):
        truncated(tmp_path, "grey.jpg")


@pytest.mark.parametrize("last", [0, -1], ids=["to the first", "to itself"])
def test_pages_that_form_a_ring_are_refused(last, tmp_path):
    """tifffile would follow them for ever."""
    path = tmp_path / "ring.tif"
    tifffile.imwrite(path, np.stack([GREY, GREY]), photometric="minisblack", metadata=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        places, order = [page.offset for page in file.pages], file.byteorder
    entries = struct.unpack_from(f"{order}H", content, places[-1])[0]
    struct.pack_into(f"{order}I", content, places[-1] + 2 + 12 * entries, places[last])
    path.write_bytes(content)
    with pytest.raises(ValueError, match="the directories of its pages form a ring"):
        ImageFile(path, None, READING)


def _try_many(seed, count, folder, queue):
    """Try inputs in a process of its own; the one in progress lies in the folder, for whoever finds a crash."""
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)
    outcomes = Counter()

    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.seed(seed)
    @given(damaged())
    def each(case):
        name, content = case
        signal.alarm(60)  # ends the process: no reader needs as long
        outcomes[attempt(Path(folder) / name, content) is None] += 1
        signal.alarm(0)

    each()
    queue.put(outcomes)


def main(count):
    """Truncate all files at every fiftieth, and try damaged ones."""
    with tempfile.TemporaryDirectory() as folder:
        refused = {name: truncated(Path(folder), name) for name in WHOLE}
    print(f"truncated: {50 * len(refused)} inputs, {sum(refused.values())} refused, the others with the right pixels")
    total, context = Counter(), multiprocessing.get_context("fork")
    for seed in range(-(-count // 1000)):
        folder, queue = tempfile.mkdtemp(), context.Queue()
        process = context.Process(target=_try_many, args=(seed, 1000, folder, queue))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"seed {seed}: exit code {process.exitcode}; the input is in {folder}")
        total += queue.get()
        print(f"damaged: {total.total()} inputs, {total[True]} refused, {total[False]} read", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
