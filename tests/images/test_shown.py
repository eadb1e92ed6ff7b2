"""Pixels mean what a viewer shows: orientation, where zero is white, inks, palettes, few bits, other number types."""

import itertools
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torchvision.transforms import v2

from gconv_ga.images import (
    CropStream,
    ImageFile,
    MaskEncoding,
    MaskFile,
    Normalization,
    PairDataset,
    PairFiles,
    Reading,
    _pictures,
    measure_files,
    read_image,
    read_mask,
    scan_pairs,
)
from gconv_ga.images._pictures import Decoded, Held
from gconv_ga.images._rasters import Oriented

HEIGHT, WIDTH = 40, 56
WINDOWS = [(0, 0, 1, 1), (3, 7, 20, 25), (0, 30, 40, 5), (39, 0, 1, 40), (10, 0, 7, 33)]
ORIENTATIONS = range(1, 9)


@pytest.fixture
def noise():
    """Smooth, so that JPEG changes little, and of no symmetry."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 3 + columns, 255 - rows * 4, columns * 4], axis=-1).astype(np.uint8)


def save(path, picture, orientation):
    """Write the tag of a camera that is held another way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"exif": exif}, ".webp": {"exif": exif, "lossless": True}, ".png": {"exif": exif}}
    picture.save(path, **options.get(path.suffix, {"tiffinfo": {274: orientation}}))


def late_exif(path):
    """Move the EXIF of a PNG behind its pixels."""
    content = path.read_bytes()
    at = content.index(b"eXIf") - 4
    size = 12 + int.from_bytes(content[at : at + 4], "big")
    chunk, rest = content[at : at + size], content[:at] + content[at + size :]
    path.write_bytes(rest[:-12] + chunk + rest[-12:])


def same(path, picture):
    """Compare an image file, whole and by window, with a picture of Pillow's."""
    expected = torch.from_numpy(np.moveaxis(np.atleast_3d(picture), -1, 0).astype(np.float32))
    image = ImageFile(path)
    assert image.shape == tuple(expected.shape)
    assert torch.equal(read_image(path), expected)
    for box in WINDOWS:
        assert torch.equal(image.window(*box), v2.functional.crop(expected, *box))
    return image.raster


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_an_image_is_read_the_way_up_that_it_is_shown(ending, orientation, noise, tmp_path):
    path = tmp_path / f"x.{ending}"
    save(path, Image.fromarray(noise), orientation)
    raster = same(path, ImageOps.exif_transpose(Image.open(path)))
    assert isinstance(raster, Oriented) is (orientation != 1)


@pytest.mark.parametrize("orientation", [2, 5, 6])
@pytest.mark.parametrize("kind", ["jpg", "png", "late.png"])
def test_so_is_a_large_one(kind, orientation, noise, tmp_path, monkeypatch):
    monkeypatch.setattr(_pictures, "LARGE", 0)
    path = tmp_path / f"x.{kind}"
    save(path, Image.fromarray(noise), orientation)
    if "late" in kind:
        late_exif(path)
    raster = same(path, ImageOps.exif_transpose(Image.open(path)))
    assert isinstance(raster.raster, Decoded)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("planes", [{}, {"tile": (16, 16)}, {"planarconfig": "separate", "compression": "zlib"}])
def test_so_is_a_tiff_of_any_layout(planes, orientation, noise, tmp_path):
    """The orientations are those that Pillow gives to the same pixels in a JPEG."""
    array = noise.transpose(2, 0, 1) if "planarconfig" in planes else noise
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="rgb", extratags=tag, **planes)
    picture = Image.fromarray(noise)
    picture.getexif()[0x0112] = orientation
    same(tmp_path / "x.tif", ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_mask_is_read_the_way_up_that_it_is_shown(ending, tmp_path):
    classes = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3
    save(tmp_path / f"x.{ending}", Image.fromarray(np.rot90(classes).astype(np.uint8)), 6)
    assert np.array_equal(read_mask(tmp_path / f"x.{ending}"), classes)


def test_crops_of_an_image_and_its_mask_fit_if_one_of_them_is_stored_upright(noise, tmp_path):
    values = noise[..., 0]
    save(tmp_path / "image.png", Image.fromarray(np.ascontiguousarray(np.rot90(values))), 6)
    Image.fromarray(values).save(tmp_path / "mask.png")
    pairs = PairDataset([PairFiles(tmp_path / "image.png", tmp_path / "mask.png")])
    for image, mask in CropStream(pairs, length=5, crop=20, symmetry="D4"):
        assert torch.equal(image[0], mask.to(torch.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}])
def test_where_zero_is_white_values_are_inverted(options, dtype, noise, tmp_path):
    values = noise[..., 0].astype(dtype) * (np.iinfo(dtype).max // 255)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="miniswhite", **options)
    same(tmp_path / "x.tif", np.iinfo(dtype).max - values)


def test_where_zero_is_white_floating_point_numbers_are_refused(noise, tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", noise[..., 0].astype(np.float32), photometric="miniswhite")
    with pytest.raises(ValueError, match=r"^path must be a file of whole numbers where zero is white"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("compression", [None, "group3", "group4", "tiff_lzw"])
def test_black_and_white_are_zero_and_one(compression, noise, tmp_path):
    bits = noise[..., 0] > 90
    Image.fromarray(bits).save(tmp_path / "x.tif", compression=compression)
    same(tmp_path / "x.tif", bits)
    assert ImageFile(tmp_path / "x.tif").numbers == "uint1"
    assert np.array_equal(read_mask(tmp_path / "x.tif"), bits)


@pytest.mark.parametrize("name", ["x.tif", "lzw.tif", "x.jpg"])
@pytest.mark.parametrize("large", [False, True])
def test_inks_are_colours(large, name, noise, tmp_path, monkeypatch):
    monkeypatch.setattr(_pictures, "LARGE", 0 if large else 2**22)
    options = {"compression": "tiff_lzw"} if "lzw" in name else {}
    Image.fromarray(noise).convert("CMYK").save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as file:
        assert file.mode == "CMYK"
        same(tmp_path / name, file.convert("RGB"))


def test_inks_of_sixteen_bits_are_colours(noise, tmp_path):
    """Black ink darkens in proportion: (1 - c)(1 - k), to the nearest level."""
    inks = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 5), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", inks, photometric="separated", extrasamples=["unassalpha"])
    light = 1 - inks[..., :4] / 65535
    colors = np.rint(light[..., :3] * light[..., 3:] * 65535)
    same(tmp_path / "x.tif", np.dstack([colors, inks[..., 4]]))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_brightness_and_two_colours_are_red_green_and_blue(compression, noise, tmp_path):
    options = {"quality": 95} if compression == "jpeg" else {}
    Image.fromarray(noise).convert("YCbCr").save(tmp_path / "x.tif", compression=compression, **options)
    with Image.open(tmp_path / "x.tif") as file:
        same(tmp_path / "x.tif", file.convert("RGB"))
    assert (read_image(tmp_path / "x.tif") - torch.from_numpy(noise).permute(2, 0, 1)).abs().mean() < 3


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_of_a_tiff_is_shown_and_is_an_index_of_masks(bits, noise, tmp_path):
    colors = np.random.default_rng(0).integers(0, 2**16, (3, 2**bits), dtype=np.uint16)
    indices = noise[..., 0].astype(f"u{bits // 8}") * (1 if bits == 8 else 200)
    tifffile.imwrite(tmp_path / "x.tif", indices, photometric="palette", colormap=colors, tile=(16, 16))
    same(tmp_path / "x.tif", np.moveaxis(colors[:, indices] // 256, 0, -1))
    assert np.array_equal(read_mask(tmp_path / "x.tif"), indices)
    code = MaskEncoding({"a": (colors[:, 0] // 256).tolist(), "b": (1, 2, 3)})
    with pytest.raises(ValueError, match=r"^mask must be an image in the colours"):
        read_mask(tmp_path / "x.tif", code)


@pytest.mark.parametrize("photometric", ["cielab", "cfa"])
def test_other_colours_are_refused(photometric, noise, tmp_path):
    array = noise[..., 0] if photometric == "cfa" else noise
    tifffile.imwrite(tmp_path / "x.tif", array, photometric=photometric)
    with pytest.raises(ValueError, match=rf"^path must be an image in grey.*Its colours are {photometric.upper()}"):
        read_image(tmp_path / "x.tif")


def png_of(path, samples, depth):
    """A grey PNG of few bits; Pillow writes none of 2 and 4."""
    bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :].reshape(len(samples), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, 0, 0, 0, 0)
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            PngImagePlugin.putchunk(file, name, data)


@pytest.mark.parametrize(("ending", "depth"), [*itertools.product(("png", "tif"), (1, 2, 4)), ("tif", 12)])
def test_levels_of_few_bits_are_not_stretched(ending, depth, tmp_path):
    samples = np.random.default_rng(0).integers(0, 2**depth, (HEIGHT, WIDTH))
    if ending == "png":
        png_of(tmp_path / "x.png", samples, depth)
    else:
        stored = samples.astype(np.uint16 if depth > 8 else np.uint8)
        tifffile.imwrite(tmp_path / "x.tif", stored, bitspersample=depth, photometric="minisblack")
    same(tmp_path / f"x.{ending}", samples)
    assert ImageFile(tmp_path / f"x.{ending}").numbers == f"uint{depth}"
    assert np.array_equal(read_mask(tmp_path / f"x.{ending}"), samples)


def test_a_mask_of_one_bit_is_in_black_and_white(tmp_path):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "x.png")
    assert read_mask(tmp_path / "x.png", MaskEncoding({"no": (0, 0, 0), "yes": (255, 255, 255)})).tolist() == [[0, 1]]


@pytest.mark.parametrize("ending", ["bmp", "gif", "webp"])
def test_other_formats_are_read(ending, noise, tmp_path):
    picture = Image.fromarray(noise).quantize(100) if ending == "gif" else Image.fromarray(noise)
    picture.save(tmp_path / f"x.{ending}", **({"lossless": True} if ending == "webp" else {}))
    assert isinstance(same(tmp_path / f"x.{ending}", picture.convert("RGB")), Held)


def test_the_content_says_what_a_file_is(noise, tmp_path):
    """A JPEG called .tif, a TIFF called .png, and what Pillow would hand to another program."""
    Image.fromarray(noise).save(tmp_path / "x.tif", format="JPEG")
    same(tmp_path / "x.tif", Image.open(tmp_path / "x.tif"))
    tifffile.imwrite(tmp_path / "x.png", noise, photometric="rgb")
    same(tmp_path / "x.png", noise)
    Image.fromarray(noise).save(tmp_path / "eps.png", format="EPS")
    with pytest.raises(ValueError, match=r"^path must be a readable image file.* it is none of PNG, JPEG"):
        read_image(tmp_path / "eps.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"^path must be a readable image file.* it is empty\."):
        read_image(tmp_path / "empty.png")


@pytest.mark.parametrize(
    "options",
    [
        {"compression": name, **more}
        for name, more in {
            "lzw": {"predictor": 2}, "zstd": {}, "lzma": {}, "packbits": {}, "png": {}, "jpeg2000": {}, "jpegxl": {},
            "zlib": {"predictor": 2}, "lerc": {},
        }.items()
    ],
    ids=lambda options: options["compression"],
)  # fmt: skip
def test_compressions_of_tiff(options, noise, tmp_path):
    """By window, so that one tile is decoded at a time."""
    tifffile.imwrite(tmp_path / "x.tif", noise, photometric="rgb", tile=(16, 16), **options)
    same(tmp_path / "x.tif", noise)


@pytest.mark.parametrize("name", ["uint64", "int64", "float64", "float16", "int8", "uint32", "bool"])
def test_number_types_of_arrays_and_tiff(name, noise, tmp_path):
    values = noise[..., 0] > 90 if name == "bool" else (noise[..., 0] // 2).astype(name)
    np.save(tmp_path / "x.npy", values)
    assert np.array_equal(read_mask(tmp_path / "x.npy"), values)
    same(tmp_path / "x.npy", values)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack")
    assert np.array_equal(read_mask(tmp_path / "x.tif"), values)
    assert ImageFile(tmp_path / "x.tif").numbers == ImageFile(tmp_path / "x.npy").numbers


# Another number type than that of the training images, which were grey levels of 8 bits.
SAME_PICTURE = {
    "uint16": lambda grey: grey.astype(np.uint16) * 257,
    "uint32": lambda grey: grey.astype(np.uint32) * (2**24 + 2**16 + 2**8 + 1),
    "float32": lambda grey: (grey / 255).astype(np.float32),
}


@pytest.mark.parametrize("kind", SAME_PICTURE)
def test_another_number_type_is_refused_with_the_factor_or_scaled(kind, noise, tmp_path):
    grey = noise[..., 0]
    np.save(tmp_path / "x.npy", SAME_PICTURE[kind](grey))
    with pytest.raises(ValueError, match=r"^path must be an image of the number type of the training") as caught:
        ImageFile(tmp_path / "x.npy", None, Reading(numbers="uint8"))
    factor = {"uint16": "times 1/257 ", "uint32": "times 1/1.6843e+07 ", "float32": "times 255 "}[kind]
    assert factor in str(caught.value)
    scaled = ImageFile(tmp_path / "x.npy", None, Reading(numbers="uint8", other_numbers="scale"))
    found = scaled.window(0, 0, HEIGHT, WIDTH)[0].numpy()
    assert np.allclose(found, grey, rtol=1e-6)
    kept = ImageFile(tmp_path / "x.npy", None, Reading(numbers="uint8", other_numbers="keep"))
    assert np.array_equal(kept.window(0, 0, HEIGHT, WIDTH)[0], SAME_PICTURE[kind](grey).astype(np.float32))


def test_the_percentile_is_scaled_too(noise, tmp_path):
    np.save(tmp_path / "x.npy", noise[..., 0])
    np.save(tmp_path / "wide.npy", noise[..., 0].astype(np.uint16) * 257)
    normalization = Normalization([0.3], [0.2], percentile=99.0)
    expected, found = (
        ImageFile(tmp_path / name, normalization, Reading(numbers="uint8", other_numbers="scale")).window(0, 0, 9, 9)
        for name in ("x.npy", "wide.npy")
    )
    assert torch.allclose(expected, found, rtol=1e-5)


def test_floating_point_numbers_beyond_one_are_not_scaled(noise, tmp_path):
    np.save(tmp_path / "x.npy", noise[..., 0].astype(np.float32))
    image = ImageFile(tmp_path / "x.npy", None, Reading(numbers="uint8", other_numbers="scale"))
    with pytest.raises(ValueError, match=r"^path must be an image of values from 0 to 1.*It holds 0.0 \.\. 172.0"):
        image.window(0, 0, HEIGHT, WIDTH)


@pytest.mark.parametrize("other_numbers", ["refuse", "scale"])
def test_whole_numbers_with_a_sign_have_no_usual_range(other_numbers, noise, tmp_path):
    np.save(tmp_path / "x.npy", noise[..., 0].astype(np.int16))
    with pytest.raises(ValueError, match=r"It holds int16; convert it"):
        ImageFile(tmp_path / "x.npy", None, Reading(numbers="uint8", other_numbers=other_numbers))


def test_all_precisions_of_floating_point_are_alike(noise, tmp_path):
    np.save(tmp_path / "x.npy", noise[..., 0].astype(np.float64))
    image = ImageFile(tmp_path / "x.npy", None, Reading(numbers="float32"))
    assert np.array_equal(image.window(0, 0, HEIGHT, WIDTH)[0], noise[..., 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": "012"}, "^channels must be numbers of channels"),
        ({"channels": []}, "^channels must be numbers of channels"),
        ({"channels": [0, 0]}, "^channels must be different numbers"),
        ({"channels": [-1]}, "^channels must be an int of at least 0"),
        ({"page": -1}, "^page must be an int of at least 0"),
        ({"max_pixels": 0}, "^max_pixels must be a positive int"),
        ({"other_numbers": "shrink"}, "^other_numbers must be one of 'refuse', 'scale', 'keep'"),
    ],
)
def test_wrong_choices_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Reading(**arguments)


def test_the_scan_finds_the_number_type_and_names_those_that_differ(noise, tmp_path):
    Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2) % 2).save(tmp_path / "mask.png")
    pairs = []
    for index in range(3):
        values = noise[:2, :2, 0] if index else noise[:2, :2, 0].astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"{index}.png")
        pairs.append(PairFiles(tmp_path / f"{index}.png", tmp_path / "mask.png"))
    scan = scan_pairs(pairs)
    assert scan.numbers == "uint8"
    assert [problem.file for problem in scan.problems] == ["0.png"]
    assert "times 1/257" in scan.problems[0].what
    assert scan_pairs(pairs, reading=Reading(other_numbers="scale")).problems == ()
    assert scan_pairs(pairs[:1], reading=Reading(numbers="uint8")).problems != ()


def test_a_channel_that_never_changes_is_worth_nothing(noise, tmp_path):
    """Opaque everywhere in the training images; a transparent pixel elsewhere has no effect either."""
    opaque = np.dstack([noise, np.full_like(noise[..., 0], 255)])
    Image.fromarray(opaque).save(tmp_path / "x.png")
    normalization = measure_files([PairFiles(tmp_path / "x.png", tmp_path / "x.png")])
    expected = [float(value) for value in noise.reshape(-1, 3).astype(np.float64).std(axis=0)]
    assert normalization.std == pytest.approx([*expected, 0.0])
    opaque[3:7, :, 3] = 9
    Image.fromarray(opaque).save(tmp_path / "y.png")
    image = ImageFile(tmp_path / "y.png", normalization).window(0, 0, HEIGHT, WIDTH)
    assert not image[3].any()
    assert torch.allclose(image[:3].std(dim=(1, 2), correction=0), torch.ones(3), atol=1e-4)


def test_images_in_which_nothing_changes_are_refused(tmp_path):
    Image.fromarray(np.full((8, 9), 7, dtype=np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"^std must be positive.*Images in which no channel changes"):
        measure_files([PairFiles(tmp_path / "x.png", tmp_path / "x.png")])


def test_a_constant_that_is_no_binary_fraction_is_constant():
    """Its variance by sums is not zero to the last bit."""
    images = [torch.stack([torch.full((30, 40), 0.1), torch.rand(30, 40)]) for _ in range(3)]
    assert Normalization.measure(images).std[0] == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted(wrong, noise, tmp_path):
    values = noise[..., 0].astype(np.float32)
    values[2, 3] = values[30, 5] = values[39, 50] = wrong
    np.save(tmp_path / "x.npy", values)
    image, said = ImageFile(tmp_path / "x.npy"), rf"^path must be an image of finite .*x\.npy'. 3 of its {values.size} "
    for read in (
        lambda: image.window(0, 0, 5, 5),
        lambda: list(image.raw_pieces()),
        ImageFile(tmp_path / "x.npy", Normalization([0.0], [1.0], percentile=99.0)).level,
    ):
        with pytest.raises(ValueError, match=said):
            read()
    assert image.window(5, 5, 10, 10).isfinite().all(), "a window without any is read"


def test_numbers_beyond_those_of_float32_are_not_finite(noise, tmp_path):
    np.save(tmp_path / "x.npy", noise[..., 0] * 1e300)
    with pytest.raises(ValueError, match="values are NaN, infinite or beyond float32"):
        read_image(tmp_path / "x.npy")


@pytest.mark.parametrize("kind", ["jpg", "tif", "webp"])
def test_a_mask_that_was_compressed_with_loss_is_refused(kind, tmp_path):
    mask = Image.fromarray(np.kron(np.eye(4, dtype=np.uint8), np.ones((8, 8), dtype=np.uint8)))
    options = {"jpg": {"quality": 100}, "tif": {"compression": "jpeg"}, "webp": {"quality": 100}}[kind]
    mask.save(tmp_path / f"x.{kind}", **options)
    with pytest.raises(ValueError, match=r"^path must be a mask file without lossy compression, such as PNG"):
        MaskFile(tmp_path / f"x.{kind}")
    mask.convert("RGB").save(tmp_path / "lossless.webp", lossless=True)
    assert MaskFile(tmp_path / "lossless.webp").shape == (32, 32)
