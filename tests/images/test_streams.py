"""Large PNG and JPEG, decoded row by row: the pixels are those that Pillow decodes, whatever the file holds."""

import io
import pickle
import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from PIL import ImageFile as PillowFile

from gconv_ga.images import ImageFile, MaskFile, _jpeg_stream, _open_raster, _png_stream, _scratch, read_image
from gconv_ga.images._rasters import Held
from gconv_ga.images._streamed import LARGE, Streamed

HEIGHT, WIDTH = 70, 91
# Down the image as tiles go, with steps back inside the rows in use; then up again.
WINDOWS = [
    (0, 0, 20, 30), (0, 61, 20, 30), (0, 0, 5, 91), (15, 7, 20, 30), (15, 0, 55, 91), (69, 90, 1, 1), (3, 0, 9, 9),
]  # fmt: skip


@pytest.fixture(autouse=True)
def every_image_is_large(monkeypatch):
    """And a band has but few rows, and those in use lie on disk."""
    monkeypatch.setattr(_open_raster, "LARGE", 0)
    monkeypatch.setattr(_scratch, "LIMIT", 0)
    for module in (_png_stream, _jpeg_stream):
        monkeypatch.setattr(module, "BAND", 900)


@pytest.fixture
def noise():
    """Smooth and noisy, so that a PNG's rows have filters of every kind, and not square."""
    numbers = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([rows + columns, 2 * rows, 3 * columns, rows * columns // 40], axis=-1) % 256
    grain = numbers.integers(0, 256, smooth.shape) * (columns[..., None] > 60)
    return ((smooth + grain) % 256).astype(np.uint8)


def pillow(path, *, palette=False):
    """What Pillow decodes as a whole."""
    with Image.open(path) as file:
        file.load()
        return Held(file.copy(), palette).window(0, 0, file.height, file.width).to(torch.float32)


def same_in_all_windows(path, *, palette=False):
    image = MaskFile(path) if palette else ImageFile(path)
    assert type(image.raster) is Streamed
    expected = pillow(path, palette=palette)
    assert image.raster.shape == tuple(expected.shape)
    assert torch.equal(torch.cat(list(image.raster.pieces()), dim=1).to(torch.float32), expected)
    for top, left, height, width in WINDOWS:
        window = image.raster.window(top, left, height, width)
        assert torch.equal(window.to(torch.float32), expected[:, top : top + height, left : left + width])


def png_of(path, samples, depth, kind, *chunks):
    """A PNG of any depth, written by hand: Pillow writes not all of them. Filters are those of whoever is asked."""
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, kind, 0, 0, 0)
    bits = np.unpackbits(samples[..., None], axis=-1)[..., 8 - depth :].reshape(HEIGHT, -1)
    rows = np.packbits(bits, axis=1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", head), *chunks, (b"IDAT", body[:50]), (b"IDAT", body[50:]), (b"IEND", b"")):
            PngImagePlugin.putchunk(file, name, data)


PALETTE = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
# By Pillow's name of what it reads.
PICTURES = {
    "L": lambda noise: Image.fromarray(noise[..., 0]),
    "LA": lambda noise: Image.merge("LA", [Image.fromarray(noise[..., channel]) for channel in (0, 1)]),
    "RGB": lambda noise: Image.fromarray(noise[..., :3]),
    "RGBA": lambda noise: Image.fromarray(noise),
    "I;16": lambda noise: Image.fromarray(noise[..., 0].astype(np.uint16) * 256 + noise[..., 3]),
    "1": lambda noise: Image.fromarray(noise[..., 0] > 128),
}


@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("mode", PICTURES)
def test_a_png_is_what_pillow_decodes(mode, level, noise, tmp_path):
    picture = PICTURES[mode](noise)
    assert picture.mode == mode
    picture.save(tmp_path / "x.png", compress_level=level)
    same_in_all_windows(tmp_path / "x.png")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["grey", "palette as indices", "palette as colours", "palette, transparent"])
def test_a_png_of_few_bits_is_what_pillow_decodes(kind, depth, noise, tmp_path):
    chunks = [] if kind == "grey" else [(b"PLTE", PALETTE[: 2**depth].tobytes())]
    if "transparent" in kind:
        chunks.append((b"tRNS", b"\0"))
    png_of(tmp_path / "x.png", noise[..., 0] >> (8 - depth), depth, 0 if kind == "grey" else 3, *chunks)
    same_in_all_windows(tmp_path / "x.png", palette="transparent" in kind or "indices" in kind)


def test_a_png_with_one_transparent_colour_is_what_pillow_decodes(noise, tmp_path):
    png_of(tmp_path / "x.png", noise[..., :3], 8, 2, (b"tRNS", struct.pack(">3H", 1, 2, 3)))
    same_in_all_windows(tmp_path / "x.png")


@pytest.mark.parametrize("kind", range(5))
def test_every_filter_is_undone(kind, noise, tmp_path):
    """Of the bytes of a row as they lie there, so any bytes will do."""
    content = noise[..., :3].tobytes()
    rows = [bytes([kind]) + content[start : start + 3 * WIDTH] for start in range(0, len(content), 3 * WIDTH)]
    body = zlib.compress(b"".join(rows))
    with (tmp_path / "x.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
        for name, data in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b"")):
            PngImagePlugin.putchunk(file, name, data)
    same_in_all_windows(tmp_path / "x.png")


def interlaced(path, noise):
    """Adam7: seven images of every so-manieth pixel, one after the other."""
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 1)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [b"\0" + row.tobytes() for x, y, dx, dy in passes for row in noise[y::dy, x::dx, 0]]
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")):
            PngImagePlugin.putchunk(file, name, data)


def test_an_interlaced_png_is_held(noise, tmp_path):
    interlaced(tmp_path / "x.png", noise)
    image = ImageFile(tmp_path / "x.png")
    assert type(image.raster) is Held
    assert torch.equal(read_image(tmp_path / "x.png")[0], torch.from_numpy(noise[..., 0]).to(torch.float32))


JPEGS = {
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:2:0": {"subsampling": "4:2:0"},
    "rough": {"quality": 20},
    "fine": {"quality": 98},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "no other colours": {"keep_rgb": True},
    "turned by EXIF": {"exif": True},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_what_pillow_decodes(kind, channels, noise, tmp_path, monkeypatch):
    pytest.importorskip("pyvips")
    monkeypatch.setattr(PillowFile, "MAXBLOCK", 2**20)  # or Pillow cannot write fine noise
    options = dict(JPEGS[kind])
    if "exif" in options:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    Image.fromarray(noise[..., 0] if channels == 1 else noise[..., :3]).save(tmp_path / "x.jpg", **options)
    same_in_all_windows(tmp_path / "x.jpg")


def test_inks_are_held(noise, tmp_path):
    Image.fromarray(noise[..., :3]).convert("CMYK").save(tmp_path / "x.jpg")
    assert type(ImageFile(tmp_path / "x.jpg").raster) is Held
    assert ImageFile(tmp_path / "x.jpg").shape == (4, HEIGHT, WIDTH)


def test_without_pyvips_a_jpeg_is_held(noise, tmp_path, monkeypatch):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.jpg")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    _jpeg_stream._as_pillow.cache_clear()
    try:
        assert type(ImageFile(tmp_path / "x.jpg").raster) is Held
    finally:
        _jpeg_stream._as_pillow.cache_clear()
    assert torch.equal(read_image(tmp_path / "x.jpg"), pillow(tmp_path / "x.jpg"))


def test_another_decoder_than_pillows_is_found_out_and_not_used(noise, tmp_path, monkeypatch):
    """It differs by one in one value."""
    pytest.importorskip("pyvips")
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.jpg")
    original = _jpeg_stream._bands

    def other(stream, shape):
        for band in original(stream, shape):
            band[0, 0, 0] ^= 1
            yield band

    _jpeg_stream._as_pillow.cache_clear()
    monkeypatch.setattr(_jpeg_stream, "_bands", other)
    try:
        assert type(ImageFile(tmp_path / "x.jpg").raster) is Held
    finally:
        _jpeg_stream._as_pillow.cache_clear()


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_image_that_ends_too_early_is_refused_and_its_first_rows_are_read(ending, noise, tmp_path):
    path = tmp_path / f"x.{ending}"
    Image.fromarray(noise[..., :3]).save(path)
    whole = pillow(path)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 4])
    image = ImageFile(path)
    assert type(image.raster) is Streamed
    for _ in range(2):  # what failed begins anew
        assert torch.equal(image.window(0, 0, 3, WIDTH), whole[:, :3])
        with pytest.raises(ValueError, match=rf"^path must be a readable image file, but got path='.*x\.{ending}'"):
            image.window(0, 0, HEIGHT, WIDTH)


def test_a_damaged_png_is_refused(noise, tmp_path):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.png")
    content = bytearray((tmp_path / "x.png").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = bytes(20)
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"^path must be a readable image file"):
        read_image(tmp_path / "x.png")


def test_pages_are_refused(noise, tmp_path):
    pages = [Image.fromarray(noise[..., channel]) for channel in range(3)]
    pages[0].save(tmp_path / "x.png", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=pages[1:])
    for name in ("x.png", "x.jpg"):
        with pytest.raises(ValueError, match="This one has 3 pages"):
            ImageFile(tmp_path / name)


def test_sixteen_bits_of_a_colour_are_refused(noise, tmp_path):
    head = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    with (tmp_path / "x.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(26))), (b"IEND", b"")):
            PngImagePlugin.putchunk(file, name, data)
    with pytest.raises(ValueError, match="path must be a file of 8 bits a colour"):
        ImageFile(tmp_path / "x.png")


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_open_file_goes_to_other_processes(ending, noise, tmp_path):
    Image.fromarray(noise[..., :3]).save(tmp_path / f"x.{ending}")
    image = ImageFile(tmp_path / f"x.{ending}")
    image.window(30, 0, 9, 9)
    copy = pickle.loads(pickle.dumps(image))
    assert torch.equal(copy.window(3, 4, 50, 60), image.window(3, 4, 50, 60))


def test_small_images_are_held(noise, tmp_path, monkeypatch):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.png")
    monkeypatch.setattr(_open_raster, "LARGE", LARGE)
    assert type(ImageFile(tmp_path / "x.png").raster) is Held
    monkeypatch.setattr(_open_raster, "LARGE", HEIGHT * WIDTH - 1)
    assert type(ImageFile(tmp_path / "x.png").raster) is Streamed


def test_a_size_that_pillow_refuses_to_decode_is_read(noise, tmp_path, monkeypatch):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.png")
    expected = pillow(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # an error from twice as many
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "x.png")
    assert torch.equal(read_image(tmp_path / "x.png"), expected)


def test_a_small_file_that_inflates_to_much_is_never_held():
    """64 MiB of zeros in 64 KiB: no more than what is asked for comes at a time."""
    content = zlib.compress(bytes(2**26), 9)
    chunk = struct.pack(">I", len(content)) + b"IDAT" + content + bytes(4)
    tracemalloc.start()
    try:
        assert all(part == bytes(2**20) for part in _png_stream._inflated(io.BytesIO(chunk), [2**20] * 64))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**23
