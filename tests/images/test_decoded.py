"""Large PNG and JPEG, decoded by libvips: the pixels are those that Pillow decodes, whatever the file holds."""

import gc
import os
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from PIL import ImageFile as PillowFile
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from gconv_ga.images import ImageFile, MaskFile, PairDataset, PairFiles, _pictures, read_image, read_mask
from gconv_ga.images._pictures import LARGE, Decoded, Held

HEIGHT, WIDTH = 70, 91
# Down the image as tiles go, and up again.
WINDOWS = [
    (0, 0, 20, 30), (0, 61, 20, 30), (0, 0, 5, 91), (15, 7, 20, 30), (15, 0, 55, 91), (69, 90, 1, 1), (3, 0, 9, 9),
]  # fmt: skip


@pytest.fixture(autouse=True)
def every_image_is_large(monkeypatch):
    """The images of these tests are decoded as large ones are, in small blocks."""
    monkeypatch.setattr(_pictures, "LARGE", 0)
    monkeypatch.setattr(_pictures, "BLOCK", (4, 32))


@pytest.fixture
def noise():
    """Smooth and noisy, so that a PNG's rows have filters of every kind, and not square."""
    numbers = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([rows + columns, 2 * rows, 3 * columns, rows * columns // 40], axis=-1) % 256
    grain = numbers.integers(0, 256, smooth.shape) * (columns[..., None] > 60)
    return ((smooth + grain) % 256).astype(np.uint8)


def pillow(path, *, palette=False):
    """What Pillow decodes as a whole, the way up that viewers show it."""
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        shown = picture.convert("RGB") if picture.mode == "CMYK" or (picture.mode == "P" and not palette) else picture
        values = np.asarray(shown).astype(np.float32)
        return torch.from_numpy(values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0))


def same_in_all_windows(path, *, palette=False, reader=Decoded):
    image = MaskFile(path) if palette else ImageFile(path)
    assert type(getattr(image.raster, "raster", image.raster)) is reader
    expected = pillow(path, palette=palette)
    assert image.raster.shape == tuple(expected.shape)
    is_turned = tuple(expected.shape[1:]) != (HEIGHT, WIDTH)
    for top, left, height, width in WINDOWS:
        box = (left, top, width, height) if is_turned else (top, left, height, width)
        window = image.raster.window(*box)
        assert torch.equal(window.to(torch.float32), v2.functional.crop(expected, *box))
    pieces = torch.cat(list(image.raster.pieces()), dim=1).to(torch.float32)
    if is_turned:  # pieces are cut from what is stored
        pieces, expected = (values.flatten(1).sort().values for values in (pieces, expected))
    assert torch.equal(pieces, expected)


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
@pytest.mark.parametrize("kind", ["grey", "palette", "palette, transparent"])
def test_a_png_of_few_bits_holds_its_samples(kind, depth, noise, tmp_path):
    chunks = [] if kind == "grey" else [(b"PLTE", PALETTE[: 2**depth].tobytes())]
    if "transparent" in kind:
        chunks.append((b"tRNS", b"\0"))
    samples = noise[..., 0] >> (8 - depth)
    png_of(tmp_path / "x.png", samples, depth, 0 if kind == "grey" else 3, *chunks)
    if kind == "grey":  # Pillow spreads the levels over 0 .. 255
        image = ImageFile(tmp_path / "x.png")
        assert type(image.raster) is Decoded
        assert image.numbers == f"uint{depth}"
        assert np.array_equal(read_image(tmp_path / "x.png")[0], samples)
        assert np.array_equal(read_mask(tmp_path / "x.png"), samples)
    else:
        same_in_all_windows(tmp_path / "x.png", palette=False)
        same_in_all_windows(tmp_path / "x.png", palette=True, reader=Held)  # indices, which libvips does not give


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_with_one_transparent_colour_is_what_pillow_decodes(channels, noise, tmp_path):
    """libvips gives a channel of opacity too."""
    transparent = struct.pack(f">{channels}H", *noise[3, 5, :channels])
    png_of(tmp_path / "x.png", noise[..., :channels], 8, channels - 1, (b"tRNS", transparent))
    same_in_all_windows(tmp_path / "x.png")


def test_a_large_mask_of_grey_levels_is_decoded_as_an_image(noise, tmp_path):
    Image.fromarray(noise[..., 0]).save(tmp_path / "x.png")
    same_in_all_windows(tmp_path / "x.png", palette=True)


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


def test_an_interlaced_png_is_what_pillow_decodes(noise, tmp_path):
    interlaced(tmp_path / "x.png", noise)
    same_in_all_windows(tmp_path / "x.png")
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
    "rotated by EXIF": {"exif": True},
    "colour profile": {"icc_profile": True},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_what_pillow_decodes(kind, channels, noise, tmp_path, monkeypatch):
    monkeypatch.setattr(PillowFile, "MAXBLOCK", 2**20)  # or Pillow cannot write fine noise
    options = dict(JPEGS[kind])
    if "exif" in options:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    if "icc_profile" in options:
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(noise[..., 0] if channels == 1 else noise[..., :3]).save(tmp_path / "x.jpg", **options)
    same_in_all_windows(tmp_path / "x.jpg")


def adobe(content, *, transform):
    """A JPEG with another mark of Adobe's about its inks; without it if ``transform`` is None."""
    start = content.index(b"\xff\xee")
    stop = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    mark = b"" if transform is None else content[start : stop - 1] + bytes([transform])
    return content[:start] + mark + content[stop:]


@pytest.mark.parametrize("transform", [None, 0, 2], ids=["no mark", "CMYK", "YCCK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_inks_are_what_pillow_decodes(progressive, transform, noise, tmp_path):
    Image.fromarray(noise[..., :3]).convert("CMYK").save(tmp_path / "x.jpg", progressive=progressive)
    (tmp_path / "x.jpg").write_bytes(adobe((tmp_path / "x.jpg").read_bytes(), transform=transform))
    same_in_all_windows(tmp_path / "x.jpg")


def open_files():
    gc.collect()
    return sorted(path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed there on Linux only")
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_files_are_closed(ending, noise, tmp_path, monkeypatch):
    """The image once all its rows are decoded, the temporary file, which is in TMPDIR, with the object."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / f"x.{ending}"
    Image.fromarray(noise[..., :3]).save(path)
    image = ImageFile(path)
    image.window(0, 0, 9, 9)
    assert path in open_files()
    image.window(HEIGHT - 1, 0, 1, 9)
    assert path not in open_files()
    assert any(str(file).startswith(str(tmp_path)) for file in open_files())
    assert list(tmp_path.iterdir()) == [path], "the temporary file has no name"
    del image
    assert not any(str(file).startswith(str(tmp_path)) for file in open_files())


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_file_that_was_replaced_is_read_anew(ending, noise, tmp_path):
    for channel in range(3):
        Image.fromarray(noise[..., channel]).save(tmp_path / f"x.{ending}")
        same_in_all_windows(tmp_path / f"x.{ending}")


def test_a_name_is_no_list_of_options(noise, tmp_path):
    """libvips would read "[...]" at the end of a name as options."""
    Image.fromarray(noise[..., :3]).save(tmp_path / "x[shrink=2].jpg")
    same_in_all_windows(tmp_path / "x[shrink=2].jpg")


def test_rows_are_decoded_once_and_no_further_than_needed(noise, tmp_path):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.png")
    raster = ImageFile(tmp_path / "x.png").raster
    for top in (0, 0, 3, 17, 50, 20, 0):
        before, region = raster._rows, raster._region
        raster.window(top, 1, 10, 2)
        assert raster._rows == max(before, -(-(top + 10) // 4) * 4)
        assert raster._region is region or region is None


@pytest.mark.parametrize("begun", [0, 30, HEIGHT])
def test_forked_processes_read_what_their_parent_has_begun(begun, noise, tmp_path):
    """The threads of libvips would be missing there, and its file would be read by two at a time."""
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.jpg")
    image, expected = ImageFile(tmp_path / "x.jpg"), pillow(tmp_path / "x.jpg")
    if begun:
        image.window(0, 0, begun, 5)
    children = []
    for _ in range(3):
        children.append(os.fork())
        if not children[-1]:
            os._exit(0 if torch.equal(image.window(0, 0, HEIGHT, WIDTH), expected) else 1)
    assert torch.equal(image.window(0, 0, HEIGHT, WIDTH), expected)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_workers_read_what_the_main_process_reads(noise, tmp_path):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.jpg")
    Image.fromarray(noise[..., 0]).save(tmp_path / "x.png")
    pairs = PairDataset([PairFiles(tmp_path / "x.jpg", tmp_path / "x.png")] * 4)
    expected = pairs[0]
    for image, mask in DataLoader(pairs, batch_size=None, num_workers=2):
        assert torch.equal(image, expected[0])
        assert torch.equal(mask, expected[1])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
def test_a_full_disk_is_no_fault_of_the_image(noise, tmp_path, monkeypatch):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.png")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda prefix, buffering: open("/dev/full", "r+b", buffering))  # noqa: PTH123, SIM115
    with pytest.raises(OSError, match="No space left"):
        ImageFile(tmp_path / "x.png").window(0, 0, HEIGHT, WIDTH)


def test_without_pyvips_a_large_image_is_refused(noise, tmp_path, monkeypatch):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.png")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(ValueError, match=r"^path must be a readable image file.*pyvips"):
        ImageFile(tmp_path / "x.png").window(0, 0, 1, 1)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_image_that_ends_too_early_is_refused_and_its_first_rows_are_read(ending, tmp_path):
    path = tmp_path / f"x.{ending}"
    # libpng reads some KiB at a time, and loses those that are not all there.
    grain = np.random.default_rng(0).integers(0, 256, (5 * HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(grain).save(path)
    whole = pillow(path)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 4])
    image = ImageFile(path)
    assert type(image.raster) is Decoded
    for _ in range(2):  # what failed begins anew
        assert torch.equal(image.window(0, 0, 3, WIDTH), whole[:, :3])
        with pytest.raises(ValueError, match=rf"^path must be a readable image file, but got path='.*x\.{ending}'"):
            image.window(0, 0, 5 * HEIGHT, WIDTH)


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
    with pytest.raises(ValueError, match="This one has 3 pages; choose one with page"):
        ImageFile(tmp_path / "x.png")
    same_in_all_windows(tmp_path / "x.jpg")  # the first picture of an MPO


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_open_file_goes_to_other_processes(ending, noise, tmp_path):
    Image.fromarray(noise[..., :3]).save(tmp_path / f"x.{ending}")
    image = ImageFile(tmp_path / f"x.{ending}")
    image.window(30, 0, 9, 9)
    copy = pickle.loads(pickle.dumps(image))
    assert torch.equal(copy.window(3, 4, 50, 60), image.window(3, 4, 50, 60))


def test_small_images_are_held(noise, tmp_path, monkeypatch):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.png")
    monkeypatch.setattr(_pictures, "LARGE", LARGE)
    assert type(ImageFile(tmp_path / "x.png").raster) is Held
    monkeypatch.setattr(_pictures, "LARGE", HEIGHT * WIDTH - 1)
    assert type(ImageFile(tmp_path / "x.png").raster) is Decoded


def test_a_size_that_pillow_refuses_to_decode_is_read(noise, tmp_path, monkeypatch):
    Image.fromarray(noise[..., :3]).save(tmp_path / "x.png")
    expected = pillow(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # an error from twice as many
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "x.png")
    assert torch.equal(read_image(tmp_path / "x.png"), expected)
