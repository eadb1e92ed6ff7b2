"""Windows of image files: the values that were written, whatever the format, and no more of the file than is needed."""

import os
import pickle
import struct
import tempfile
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from gconv_ga.images import ImageFile, MaskFile, Normalization, _rasters, _tiff, read_image
from gconv_ga.images._pictures import Held
from gconv_ga.images._rasters import Uncompressed
from gconv_ga.images._tiff import Segmented

HEIGHT, WIDTH = 70, 91
WINDOWS = [(0, 0, HEIGHT, WIDTH), (0, 0, 1, 1), (69, 90, 1, 1), (13, 31, 40, 33), (32, 16, 32, 16), (5, 0, 3, 91)]


def noise(channels, dtype):
    numbers = np.random.default_rng(0).integers(0, min(np.iinfo(dtype).max, 60000), (HEIGHT, WIDTH, channels))
    return numbers.astype(dtype)


def tiff(**options):
    def write(path, array):
        if options.get("planarconfig") == "separate":
            array = np.moveaxis(array, -1, 0)
        elif array.shape[-1] == 1:
            array = array[..., 0]
        tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})

    return write


def chunky(**options):
    return tiff(planarconfig="contig", **options)


def separate(**options):
    return tiff(planarconfig="separate", **options)


def pillow(**options):
    return lambda path, array: Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path, **options)


def numpy_rows(order):
    return lambda path, array: np.save(path, np.asarray(np.moveaxis(array, -1, 0), order=order))


def numpy_flat(order):
    return lambda path, array: np.save(path, np.asarray(array[..., 0], order=order))


# What writes, the ending, channels, the number type, and which reader takes it.
CASES = {
    "png grey 8": (pillow(), "png", 1, np.uint8, Held),
    "png grey 16": (pillow(), "png", 1, np.uint16, Held),
    "png rgb": (pillow(), "png", 3, np.uint8, Held),
    "png rgba": (pillow(), "png", 4, np.uint8, Held),
    "tiff lzw": (pillow(compression="tiff_lzw"), "tif", 3, np.uint8, Segmented),
    "tiff contiguous": (chunky(), "tif", 5, np.uint16, Uncompressed),
    "tiff grey": (tiff(), "tif", 1, np.uint8, Uncompressed),
    "tiff big-endian": (chunky(byteorder=">"), "tif", 3, np.uint16, Uncompressed),
    "tiff planes": (separate(), "tif", 4, np.uint8, Uncompressed),
    "tiff tiles": (chunky(tile=(32, 16)), "tif", 5, np.uint16, Segmented),
    "tiff tiles, big-endian": (chunky(tile=(32, 16), byteorder=">"), "tif", 3, np.uint16, Segmented),
    "tiff tiles, planes": (separate(tile=(32, 32)), "tif", 3, np.uint8, Segmented),
    "tiff strips, deflate": (chunky(compression="zlib", rowsperstrip=7), "tiff", 3, np.uint16, Segmented),
    "tiff tiles, deflate": (tiff(tile=(32, 32), compression="zlib"), "tif", 1, np.uint8, Segmented),
    "tiff planes, deflate": (separate(compression="zlib", rowsperstrip=9), "tif", 6, np.uint8, Segmented),
    "tiff predictor": (chunky(compression="zlib", predictor=True), "tif", 3, np.uint16, Segmented),
    "npy": (numpy_rows("C"), "npy", 3, np.uint16, Uncompressed),
    "npy, columns first": (numpy_rows("F"), "npy", 5, np.uint8, Uncompressed),
    "npy flat": (numpy_flat("C"), "npy", 1, np.int32, Uncompressed),
    "npy flat, columns first": (numpy_flat("F"), "npy", 1, np.uint8, Uncompressed),
}


@pytest.mark.parametrize("case", CASES)
def test_a_window_holds_the_values_that_were_written(case, tmp_path):
    write, ending, channels, dtype, reader = CASES[case]
    array = noise(channels, dtype)
    write(tmp_path / f"x.{ending}", array)
    image = ImageFile(tmp_path / f"x.{ending}")
    assert image.shape == (channels, HEIGHT, WIDTH)
    if reader is not None:
        assert type(image.raster) is reader
    expected = torch.from_numpy(np.moveaxis(array, -1, 0).astype(np.float32))
    for top, left, height, width in WINDOWS:
        window = image.window(top, left, height, width)
        assert window.dtype == torch.float32
        assert torch.equal(window, expected[:, top : top + height, left : left + width])
    assert torch.equal(read_image(tmp_path / f"x.{ending}"), expected)
    assert torch.equal(torch.cat(list(image.bands(16)), dim=1), expected)


@pytest.mark.parametrize("piece", [1, 1000, 2**20])
@pytest.mark.parametrize("case", CASES)
def test_pieces_hold_each_pixel_once(case, piece, tmp_path, monkeypatch):
    write, ending, channels, dtype, _ = CASES[case]
    number = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
    array = (number + np.arange(channels)).astype(dtype)  # of 8 bits it comes again, as often as it should
    write(tmp_path / f"x.{ending}", array)
    monkeypatch.setattr(_rasters, "PIECE", piece)
    monkeypatch.setattr(_tiff, "PIECE", piece)
    pieces = list(ImageFile(tmp_path / f"x.{ending}").raw_pieces())
    assert len(pieces) > 1 or piece == 2**20 or case in ("tiff predictor", "tiff lzw")  # which are in one strip
    if piece == 2**20:
        assert max(part.numel() * part.element_size() for part in pieces) <= piece
    for channel in range(channels):
        found = np.sort(np.concatenate([part[channel].numpy().ravel() for part in pieces]))
        assert np.array_equal(found, np.sort(array[..., channel].ravel()))


@pytest.mark.parametrize("reader", [Uncompressed, Segmented])
def test_readers_by_window_go_to_other_processes(reader, tmp_path):
    chunky(**({} if reader is Uncompressed else {"tile": (32, 16)}))(tmp_path / "x.tif", noise(3, np.uint8))
    image = ImageFile(tmp_path / "x.tif")
    assert type(image.raster) is reader
    copy = pickle.loads(pickle.dumps(image))
    assert torch.equal(copy.window(3, 4, 50, 60), image.window(3, 4, 50, 60))


def test_only_the_tiles_that_a_window_touches_are_read(tmp_path):
    """The last tile is damaged: a window elsewhere does not know, one that needs it is refused."""
    path = tmp_path / "x.tif"
    chunky(tile=(32, 32), compression="zlib")(path, noise(3, np.uint8))
    with tifffile.TiffFile(path) as file:
        last = file.pages.first.dataoffsets[-1]
    content = bytearray(path.read_bytes())
    content[last : last + 20] = bytes(20)
    path.write_bytes(content)
    image = ImageFile(path)
    assert image.window(0, 0, 64, 64).shape == (3, 64, 64)
    with pytest.raises(ValueError, match=r"^path must be a readable image file, but got path='.*x\.tif'"):
        image.window(60, 80, 10, 11)
    with pytest.raises(ValueError, match=r"^path must be a readable image file, but got path='.*x\.tif'"):
        list(image.raw_pieces())


def truncated(path, array):
    chunky()(path, array)
    path.write_bytes(path.read_bytes()[:-100])


def truncated_tiles(path, array):
    chunky(tile=(32, 32))(path, array)
    path.write_bytes(path.read_bytes()[:-100])


def truncated_array(path, array):
    np.save(path, np.moveaxis(array, -1, 0))
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(("write", "ending"), [(truncated, "tif"), (truncated_tiles, "tif"), (truncated_array, "npy")])
def test_a_file_that_ends_too_early_is_refused(write, ending, tmp_path):
    write(tmp_path / f"x.{ending}", noise(3, np.uint8))
    with pytest.raises(ValueError, match=r"^path must be a readable image file"):
        read_image(tmp_path / f"x.{ending}")


class Malicious:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return type(self.mark).touch, (self.mark,)


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[Malicious(tmp_path / "pwned")]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"^path must be a readable image file"):
        read_image(tmp_path / "x.npy")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4, 5), (0, 4)])
def test_an_array_of_other_axes_is_refused(shape, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"^path must be an array of numbers \[H, W\] or \[C, H, W\]"):
        read_image(tmp_path / "x.npy")


def test_complex_numbers_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 4), dtype=complex))
    with pytest.raises(ValueError, match="This one is complex128"):
        read_image(tmp_path / "x.npy")


@pytest.mark.parametrize("pages", [2, 5])
def test_pages_are_counted(pages, tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((pages, 8, 9), dtype=np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match=rf"^path must be an image file of one page, .* This one has {pages} pages"):
        ImageFile(tmp_path / "x.tif")


def test_a_volume_in_one_page_is_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "x.tif", np.zeros((4, 32, 32), dtype=np.uint8), photometric="minisblack", volumetric=True,
        tile=(2, 32, 32),
    )  # fmt: skip
    with pytest.raises(ValueError, match="The axes of its pages are ZYX"):
        ImageFile(tmp_path / "x.tif")


def test_sixteen_bits_of_a_colour_in_a_png_are_not_halved(tmp_path):
    """Pillow reads such a file as 8 bits; it is written by hand, for Pillow writes none."""
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + struct.pack(">6H", *range(6)) for _ in range(2)))
    with (tmp_path / "x.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
            PngImagePlugin.putchunk(file, kind, data)
    assert ImageFile(tmp_path / "x.png").numbers == "uint16"
    assert read_image(tmp_path / "x.png").tolist() == [[[c, c + 3]] * 2 for c in range(3)]


def test_a_tiff_with_a_palette_is_in_its_colours_and_a_mask_is_not(tmp_path):
    file = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8)).convert("P")
    file.putdata([0, 1, 2, 1])
    file.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    file.save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif")[:, 1, 0].tolist() == [70, 80, 90]
    assert MaskFile(tmp_path / "x.tif").window(0, 0, 2, 2).tolist() == [[0, 1], [2, 1]]


@pytest.mark.parametrize("case", ["png grey 8", "tiff tiles", "npy flat"])
def test_a_window_is_scaled_by_the_percentile_of_the_whole_image(case, tmp_path):
    write, ending, channels, dtype, _ = CASES[case]
    array = noise(channels, dtype)
    write(tmp_path / f"x.{ending}", array)
    normalization = Normalization([0.3] * channels, [0.2] * channels, percentile=99.0)
    whole = normalization(torch.from_numpy(np.moveaxis(array, -1, 0).astype(np.float32)))
    window = ImageFile(tmp_path / f"x.{ending}", normalization).window(11, 17, 3, 4)
    assert torch.equal(window, whole[:, 11:14, 17:21])
    part = array[11:14, 17:21].astype(np.float32)
    alone = normalization(torch.from_numpy(np.moveaxis(part, -1, 0).copy()))
    assert not torch.equal(window, alone), "the window's own percentile is another one"


def test_images_of_other_channels_than_the_normalisation_are_refused(tmp_path):
    chunky()(tmp_path / "x.tif", noise(3, np.uint8))
    with pytest.raises(ValueError, match=rf"^path must be an image of 1 .* It has 3 channels of {HEIGHT} x {WIDTH} "):
        ImageFile(tmp_path / "x.tif", Normalization([0.0], [1.0]))


@st.composite
def arrays(draw):
    """The lengths of some axes, and a part of each."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    spans = [sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length)))) for length in lengths]
    return lengths, [tuple(span) for span in spans]


def few(descriptor, size, offset):
    """Read no more than three bytes a call, as the system may."""
    return _rasters._seek_and_read(descriptor, min(size, 3), offset)


@pytest.mark.parametrize("read", [os.pread, _rasters._seek_and_read, few])
@given(arrays(), st.sampled_from(["<u1", "<i2", ">f4", "<f8"]))
def test_a_box_is_the_same_part_of_an_array(read, array, dtype):
    lengths, box = array
    values = np.arange(np.prod(lengths)).reshape(lengths).astype(dtype)
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rasters, "_pread", read)
        file.write(b"head" + values.tobytes())
        file.flush()
        found = _rasters.read_box(file.fileno(), values.dtype, lengths, box, offset=4)
    assert found.dtype == values.dtype
    assert np.array_equal(found, values[tuple(slice(*span) for span in box)])


def test_a_box_that_a_file_ends_before_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(bytes(10))
    with (
        (tmp_path / "x").open("rb") as file,
        pytest.raises(OSError, match="the file ends 2 bytes too early"),
    ):
        _rasters.read_box(file.fileno(), np.dtype("<i2"), [2, 3], [(1, 2), (0, 3)])
