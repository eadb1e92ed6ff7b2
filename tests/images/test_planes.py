"""One file, one image: series and pyramids are recognised, several planes are refused, and chosen."""

import json
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from gconv_ga.images import ImageFile, MaskFile, PairDataset, PairFiles, Reading, read_image
from gconv_ga.images._tiff import Segmented

LAYOUTS = {"plain": {}, "tiles": {"tile": (16, 16), "compression": "zlib"}}


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def read(path, **choices):
    image = ImageFile(path, None, Reading(**choices))
    whole = image.window(0, 0, *image.shape[1:])
    assert torch.equal(image.window(3, 5, 20, 17), whole[:, 3:23, 5:22])
    pieces = torch.cat([piece.flatten(1) for piece in image.raw_pieces()], dim=1)
    assert torch.equal(pieces.sort().values, whole.to(pieces.dtype).flatten(1).sort().values)
    return whole.to(torch.uint8).numpy()


STACKS = {
    "imagej": lambda path, array: tifffile.imwrite(path, array, imagej=True, metadata={"axes": "ZYX"}),
    "imagej, one page": lambda path, array: tifffile.imwrite(
        path, array, imagej=True, metadata={"axes": "TYX"}, truncate=True
    ),
    "shaped": lambda path, array: tifffile.imwrite(path, array, photometric="minisblack"),
    "shaped, one page": lambda path, array: tifffile.imwrite(path, array, photometric="minisblack", truncate=True),
    "shaped, tiles": lambda path, array: tifffile.imwrite(path, array, photometric="minisblack", **LAYOUTS["tiles"]),
    "pages alone": lambda path, array: tifffile.imwrite(path, array, photometric="minisblack", metadata=None),
    "ome": lambda path, array: tifffile.imwrite(path, array, ome=True, metadata={"axes": "ZYX"}),
    "pillow": lambda path, array: Image.fromarray(array[0]).save(
        path, save_all=True, append_images=[Image.fromarray(plane) for plane in array[1:]]
    ),
}


@pytest.mark.parametrize("kind", STACKS)
def test_a_stack_is_refused_and_a_plane_of_it_is_read(kind, tmp_path):
    array = noise(5, 40, 64)
    STACKS[kind](tmp_path / "x.tif", array)
    with pytest.raises(
        ValueError, match=r"^path must be an image file of one page.* has 5 pages.*; choose one with page"
    ):
        ImageFile(tmp_path / "x.tif")
    for page in (0, 3, 4):
        assert np.array_equal(read(tmp_path / "x.tif", page=page), array[page][None])
    assert np.array_equal(read(tmp_path / "x.tif", channels=[4, 0]), array[[4, 0]]), "planes as channels"
    with pytest.raises(ValueError, match=r"^path must be a file that has page 5,.*It has 5, counted from 0"):
        read(tmp_path / "x.tif", page=5)


@pytest.mark.parametrize(
    ("kind", "layout"), [("imagej", "plain"), ("imagej, one page", "plain"), ("ome", "plain"), ("ome", "tiles")]
)
def test_planes_that_are_channels_are_channels(kind, layout, tmp_path):
    array = noise(4, 40, 64)
    options = {"truncate": True} if "one page" in kind else {}
    form = {"ome": True} if kind == "ome" else {"imagej": True}
    tifffile.imwrite(tmp_path / "x.tif", array, metadata={"axes": "CYX"}, **form, **options, **LAYOUTS[layout])
    assert np.array_equal(read(tmp_path / "x.tif"), array)
    assert np.array_equal(read(tmp_path / "x.tif", channels=[2]), array[[2]])
    with pytest.raises(ValueError, match=r"^path must be an image that has the channels 4,.*It has 4, counted from 0"):
        read(tmp_path / "x.tif", channels=[4])


@pytest.mark.parametrize(
    ("form", "axes"),
    [("ome", "TCYX"), ("ome", "CZYX"), ("ome", "TZCYX"), ("imagej", "ZCYX"), ("imagej", "TZCYX")],
)
def test_a_page_of_a_hyperstack_has_all_its_channels(form, axes, tmp_path):
    lengths = {"T": 2, "Z": 3, "C": 4, "Y": 40, "X": 64}
    array = noise(*(lengths[axis] for axis in axes))
    tifffile.imwrite(tmp_path / "x.tif", array, metadata={"axes": axes}, **{form: True})
    planes = np.moveaxis(array, axes.index("C"), -3).reshape(-1, 4, 40, 64)
    for page, plane in enumerate(planes):
        assert np.array_equal(read(tmp_path / "x.tif", page=page), plane)
    assert np.array_equal(read(tmp_path / "x.tif", page=1, channels=[3, 1]), planes[1][[3, 1]])
    with pytest.raises(ValueError, match=rf" has {len(planes)} pages"):
        read(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=rf" has {len(planes)} pages"):
        read(tmp_path / "x.tif", channels=[0])


def test_pages_in_colour(tmp_path):
    array = noise(3, 40, 64, 3)
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="rgb")
    assert np.array_equal(read(tmp_path / "x.tif", page=2), np.moveaxis(array[2], -1, 0))
    assert np.array_equal(read(tmp_path / "x.tif", page=2, channels=[1]), array[2, ..., 1][None])
    with pytest.raises(ValueError, match=r"has 3 pages \(Q=3\); choose one with page \(--page\), counted from 0\.$"):
        read(tmp_path / "x.tif", channels=[0])


def pyramid(path, array, *, flag=True, subifds=False, ome=False, step=2):
    levels = [array[:: step**level, :: step**level].copy() for level in range(3)]
    with tifffile.TiffWriter(path, ome=ome) as file:
        options = {"tile": (16, 16), "photometric": "rgb" if array.ndim == 3 else "minisblack"}
        options |= {} if flag else {"metadata": None}
        file.write(levels[0], **options, **({"subifds": 2} if subifds or ome else {}))
        for level in levels[1:]:
            file.write(level, **options, subfiletype=int(flag or subifds or ome))


@pytest.mark.parametrize("options", [{}, {"flag": False}, {"subifds": True}, {"ome": True}, {"step": 3}], ids=str)
@pytest.mark.parametrize("shape", [(64, 96), (70, 101, 3)])
def test_a_pyramid_is_its_full_level(shape, options, tmp_path):
    array = noise(*shape)
    pyramid(tmp_path / "x.tif", array, **options)
    assert np.array_equal(read(tmp_path / "x.tif"), np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None])
    with pytest.raises(ValueError, match="It has 1, counted from 0"):
        read(tmp_path / "x.tif", page=1)


def test_a_reduced_image_and_a_transparency_mask_are_no_planes(tmp_path):
    """A thumbnail in front, of another form, and the mask of pixels without data that GDAL writes."""
    array = noise(64, 96)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(noise(20, 30, 3), photometric="rgb", subfiletype=1, metadata=None)
        file.write(array, tile=(16, 16), metadata=None)
        file.write(array > 100, subfiletype=4, metadata=None)
    assert np.array_equal(read(tmp_path / "x.tif"), array[None])


def test_images_of_several_sizes_are_refused_and_chosen(tmp_path):
    one, other = noise(40, 64), noise(50, 30)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(one)
        file.write(other)
    with pytest.raises(
        ValueError, match=r"^path must be an image file of one page.* has 2 pages; choose one with page"
    ):
        read(tmp_path / "x.tif")
    assert np.array_equal(read(tmp_path / "x.tif", page=1), other[None])


@pytest.mark.parametrize("form", ["imagej", "shaped"])
def test_a_stack_that_was_cut_off_is_not_its_first_plane(form, tmp_path):
    """tifffile then ignores what the file says about itself."""
    options = {"imagej": True, "metadata": {"axes": "ZYX"}} if form == "imagej" else {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "x.tif", noise(5, 40, 64), truncate=True, **options)
    (tmp_path / "x.tif").write_bytes((tmp_path / "x.tif").read_bytes()[:-3000])
    for choices in ({}, {"page": 0}, {"page": 4}):
        if choices != {"page": 0} or form == "imagej":
            with pytest.raises(ValueError, match=r"^path must be .*x\.tif'"):
                read(tmp_path / "x.tif", **choices)
        else:  # this plane is there
            assert np.array_equal(read(tmp_path / "x.tif", page=0), noise(5, 40, 64)[:1])


def test_other_files_that_a_file_names_are_not_opened(tmp_path):
    """An OME-TIFF may say that its planes are in other files, wherever they are."""
    secret, path = tmp_path / "secret.tif", tmp_path / "in" / "x.ome.tif"
    path.parent.mkdir()
    tifffile.imwrite(secret, noise(40, 64))
    meta = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="40" SizeC="1" '
        'SizeZ="2" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<TiffData FirstZ="0" IFD="0" PlaneCount="1"><UUID FileName="x.ome.tif">urn:uuid:a</UUID></TiffData>'
        '<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="../secret.tif">urn:uuid:b</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(path, noise(40, 64) // 2, description=meta, metadata=None)
    assert np.array_equal(read(path, page=0)[0], noise(40, 64) // 2)
    with pytest.raises(ValueError, match="It has 1, counted from 0"):
        read(path, page=1)


ANIMATIONS = {"gif": {}, "webp": {"lossless": True}, "png": {}}


@pytest.mark.parametrize("ending", ANIMATIONS)
def test_a_frame_of_an_animation_is_chosen(ending, tmp_path):
    frames = [Image.fromarray(plane).convert("RGB") for plane in noise(3, 40, 64, 3) // 64 * 64]
    frames = [frame.quantize(64) for frame in frames] if ending == "gif" else frames
    frames[0].save(tmp_path / f"x.{ending}", save_all=True, append_images=frames[1:], **ANIMATIONS[ending])
    with pytest.raises(
        ValueError, match=r"^path must be an image file of one page.* has 3 pages; choose one with page"
    ):
        ImageFile(tmp_path / f"x.{ending}")
    for page in (0, 2):
        expected = np.asarray(frames[page].convert("RGB")).transpose(2, 0, 1)
        assert np.array_equal(read(tmp_path / f"x.{ending}", page=page, channels=[0, 1, 2]), expected)
    with pytest.raises(ValueError, match="It has 3, counted from 0"):
        read(tmp_path / f"x.{ending}", page=3)


def test_the_first_picture_of_a_phone_is_the_image(tmp_path):
    grey = Image.fromarray(noise(40, 64))
    grey.save(tmp_path / "alone.jpg")
    grey.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[grey.resize((8, 8))])
    assert np.array_equal(read(tmp_path / "x.jpg"), read(tmp_path / "alone.jpg"))


@pytest.mark.parametrize("masks", ["as many", "one"])
def test_the_mask_of_a_page_is_its_page_or_the_only_one(masks, tmp_path):
    array = noise(3, 40, 64)
    classes = array // 128
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="minisblack")
    tifffile.imwrite(tmp_path / "m.tif", classes if masks == "as many" else classes[2], photometric="minisblack")
    pairs = PairDataset([PairFiles(tmp_path / "x.tif", tmp_path / "m.tif")], reading=Reading(page=2))
    image, mask = pairs[0]
    assert np.array_equal(image[0], array[2])
    assert np.array_equal(mask, classes[2])


def test_a_channel_of_colours_is_read_alone(tmp_path):
    array = noise(40, 64, 3)
    Image.fromarray(array).save(tmp_path / "x.png")
    assert np.array_equal(read(tmp_path / "x.png", channels=[2, 0]), array[..., [2, 0]].transpose(2, 0, 1))


# Files that say they are larger than is allowed, and hold next to nothing.
def lying_tiff(path, width, height):
    tifffile.imwrite(path, np.zeros((16, 16), dtype=np.uint8), tile=(16, 16), compression="zlib", metadata=None)
    change_tags(path, {256: width, 257: height})


def change_tags(path, values):
    with tifffile.TiffFile(path, mode="r+") as file:
        for code, value in values.items():
            file.pages.first.tags[code].overwrite(value)


def lying_png(path, width, height):
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def lying_gif(path, width, height):
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    path.write_bytes(content)


def lying_bmp(path, width, height):
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    path.write_bytes(content)


def lying_jpeg(path, width, height):
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    path.write_bytes(content)


def lying_webp(path, width, height):
    frames = [Image.fromarray(noise(16, 16, 3)) for _ in range(2)]
    frames[0].save(path, save_all=True, append_images=[frames[1].rotate(90)])
    content = bytearray(path.read_bytes())
    content[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    path.write_bytes(content)


def array_of_zeros(path, width, height):
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(height, width))


LIARS = {
    "x.tif": lying_tiff, "x.png": lying_png, "x.gif": lying_gif, "x.bmp": lying_bmp, "x.jpg": lying_jpeg,
    "x.webp": lying_webp, "x.npy": array_of_zeros,
}  # fmt: skip


@pytest.mark.parametrize("name", LIARS)
def test_a_file_that_says_it_is_too_large_is_refused(name, tmp_path):
    LIARS[name](tmp_path / name, 12_000, 10_000)
    reading = Reading(max_pixels=10**8)
    for kind in (ImageFile, MaskFile) if name not in ("x.jpg", "x.webp") else (ImageFile,):  # lossy masks are refused
        with pytest.raises(ValueError, match=r"^path must be an image of at most 100000000 .* 10000 x 12000 pixels"):
            kind(tmp_path / name, None, reading)


@pytest.mark.parametrize("width", [10_001, 10_000])
def test_the_largest_size_is_allowed(width, tmp_path):
    array_of_zeros(tmp_path / "x.npy", width, 10)
    reading = Reading(max_pixels=100_000)
    if width == 10_000:
        assert ImageFile(tmp_path / "x.npy", None, reading).shape == (1, 10, width)
    else:
        with pytest.raises(ValueError, match="max_pixels"):
            ImageFile(tmp_path / "x.npy", None, reading)


def test_many_channels_count(tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(41, 100, 100))
    with pytest.raises(ValueError, match=r"100 x 100 pixels of 41 channels; .* to 102500"):
        ImageFile(tmp_path / "x.npy", None, Reading(max_pixels=10**5))


def test_tiles_that_are_larger_than_the_image_may_be_are_refused(tmp_path):
    lying_tiff(tmp_path / "x.tif", 16, 16)
    change_tags(tmp_path / "x.tif", {322: 65536, 323: 65520})
    with pytest.raises(ValueError, match=r"^path must be a file of tiles of at most 4000000000 values"):
        ImageFile(tmp_path / "x.tif")


def test_an_image_inside_a_tile_that_says_it_is_larger_is_refused(tmp_path):
    """Its decoder would allocate what it says."""
    for compression, at in (("jpeg2000", b"\xff\x4f\xff\x51"), ("png", b"IHDR"), ("jpeg", b"\xff\xc0")):
        path = tmp_path / f"{compression}.tif"
        tifffile.imwrite(path, np.zeros((16, 16), dtype=np.uint8), tile=(16, 16), compression=compression)
        content = bytearray(path.read_bytes())
        place = content.index(at) + {"jpeg2000": 8, "png": 4, "jpeg": 5}[compression]
        size = {"jpeg": b"\xff\xff\xff\xff"}.get(compression, (200_000).to_bytes(4, "big") * 2)
        content[place : place + len(size)] = size
        path.write_bytes(content)
        image = ImageFile(path, None, Reading(max_pixels=10**6))
        assert isinstance(image.raster, Segmented)
        with pytest.raises(ValueError, match=r"segment 0 says that it has (40000000000|4294836225) pixels"):
            image.window(0, 0, 16, 16)


def test_a_tile_that_unpacks_to_more_than_it_should_is_cut(tmp_path):
    """A zlib bomb: a gibibyte of zeros where 256 bytes are asked for."""
    path, packer = tmp_path / "x.tif", zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    tifffile.imwrite(path, np.zeros((16, 16), dtype=np.uint8), tile=(16, 16), compression="zlib", metadata=None)
    content = path.read_bytes()
    change_tags(path, {324: len(content), 325: len(bomb)})
    path.write_bytes(path.read_bytes() + bomb)
    tracemalloc.start()
    with pytest.raises(ValueError, match="path must be a readable image file"):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_json_of_a_reading_is_a_reading():
    reading = Reading(channels=[2, 0], page=3, numbers="uint16", other_numbers="scale")
    assert Reading(**json.loads(json.dumps(vars(reading)))) == reading
