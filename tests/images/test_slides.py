"""Whole slides: what each format gives is what was written, scaling is the mean by area, refusals say what to do."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from slide_files import halved, write_levels

from gconv_ga.images import Reading, Slide, find_images, is_slide

APERIO = Path(__file__).parents[3] / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"
needs_aperio = pytest.mark.skipif(not APERIO.exists(), reason="needs ../shared/data/slides")


@pytest.fixture
def colored(tmp_path):
    """A pyramid in colours, and its levels."""
    pixels = np.random.default_rng(0).integers(0, 256, (301, 215, 3), dtype=np.uint8)
    levels = [pixels, halved(pixels), halved(halved(pixels))]
    write_levels(tmp_path / "a.tif", levels, photometric="rgb", compression="deflate")
    return tmp_path / "a.tif", levels


def test_a_pyramid_is_read_by_level(colored):
    path, levels = colored
    slide = Slide(path)
    assert is_slide(path)
    assert slide.levels == tuple((3, *level.shape[:2]) for level in levels)
    assert slide.pixel_size == pytest.approx(0.5)
    assert slide.level_pixel_size(1) == pytest.approx(0.5 * (301 / 150 + 215 / 107) / 2)
    for number, level in enumerate(levels):
        assert torch.equal(slide.read(number, 5, 7, 40, 30), torch.from_numpy(level[5:45, 7:37]).permute(2, 0, 1))


def test_an_image_of_one_level_is_no_slide(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.uint8))
    assert not is_slide(tmp_path / "a.tif")
    assert Slide(tmp_path / "a.tif").levels == ((1, 20, 30),)


def test_an_ome_tiff_has_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (3, 150, 130), dtype=np.uint16)
    about = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(pixels, subifds=1, tile=(64, 64), metadata=about, photometric="minisblack", compression="lzw")
        file.write(pixels[:, ::2, ::2], subfiletype=1, tile=(64, 64), photometric="minisblack", compression="lzw")
    slide = Slide(tmp_path / "a.ome.tif")
    assert slide.levels == ((3, 150, 130), (3, 75, 65))
    assert slide.pixel_size == pytest.approx(0.25)
    assert slide.read(1, 3, 4, 10, 20).tolist() == pixels[:, ::2, ::2][:, 3:13, 4:24].tolist()
    two = Slide(tmp_path / "a.ome.tif", Reading(channels=[2, 0]))
    assert two.read(0, 3, 4, 10, 20).tolist() == pixels[[2, 0], 3:13, 4:24].tolist()


@pytest.mark.parametrize("version", [2, 3])
def test_an_ome_zarr_is_read(version, tmp_path):
    zarr = pytest.importorskip("zarr")
    pixels = np.random.default_rng(0).integers(0, 65536, (1, 2, 90, 70), dtype=np.uint16)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    axes = [{"name": name} if name in "tc" else {"name": name, "unit": "micrometer"} for name in "tcyx"]
    scales = {"0": [1, 1, 0.5, 0.5], "1": [1, 1, 1.0, 1.0]}
    sets = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for name, scale in scales.items()
    ]
    for name, level in (("0", pixels), ("1", pixels[..., ::2, ::2])):
        array = group.create_array(name, shape=level.shape, chunks=(1, 1, 32, 32), dtype=level.dtype)
        array[...] = level
    about = {"multiscales": [{"axes": axes, "datasets": sets}]}
    group.attrs.update(about if version == 2 else {"ome": about})
    slide = Slide(tmp_path / "a.zarr")
    assert (slide.levels, slide.pixel_size) == (((2, 90, 70), (2, 45, 35)), 0.5)
    assert slide.read(0, 11, 13, 40, 50).tolist() == pixels[0, :, 11:51, 13:63].tolist()


def write_zarr(path, pixels, scale, **more):
    """An OME-Zarr 0.4 of one level."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", shape=pixels.shape, chunks=(16, 16), dtype=pixels.dtype)[...] = pixels
    sets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    axes = [{"name": name, "unit": "micrometer"} for name in "yx"]
    group.attrs.update({"multiscales": [{"axes": axes, "datasets": sets, **more}]})


def test_the_scale_of_all_levels_of_an_ome_zarr_counts(tmp_path):
    """The two transformations follow one another: 2 x 0.25 micrometres."""
    both = [{"type": "scale", "scale": [0.25, 0.25]}]
    write_zarr(tmp_path / "a.zarr", np.zeros((20, 30), np.uint8), [2, 2], coordinateTransformations=both)
    assert Slide(tmp_path / "a.zarr").pixel_size == 0.5


def test_an_image_in_a_collection_of_ome_zarr_is_found(tmp_path):
    """As bioformats2raw writes them: each image in a folder of its own, called 0, 1 ..., and one of metadata."""
    zarr = pytest.importorskip("zarr")
    about = {"bioformats2raw.layout": 3}
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2).attrs.update(about)
    zarr.open_group(str(tmp_path / "a.zarr/OME"), mode="w", zarr_format=2).attrs.update({"series": ["0"]})
    with pytest.raises(ValueError, match=r"It has no multiscales, and no folder in it has\."):
        Slide(tmp_path / "a.zarr")
    pixels = [np.full((20, 30), number, np.uint8) for number in range(2)]
    write_zarr(tmp_path / "a.zarr/0", pixels[0], [0.5, 0.5])
    assert Slide(tmp_path / "a.zarr").read(0, 1, 2, 3, 4).tolist() == [[[0] * 4] * 3]
    write_zarr(tmp_path / "a.zarr/1", pixels[1], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"It holds the images 0, 1; name the folder of one, such as .*a\.zarr/0\."):
        Slide(tmp_path / "a.zarr")
    second = tmp_path / "a.zarr" / "1"
    assert is_slide(second)
    assert find_images(second, slides=True) == [second]
    assert Slide(second).read(0, 1, 2, 3, 4).tolist() == [[[1] * 4] * 3]


@needs_aperio
def test_the_slide_of_a_scanner_is_what_openslide_says():
    openslide = pytest.importorskip("openslide")
    slide = Slide(APERIO)
    assert is_slide(APERIO)
    assert (slide.levels, slide.pixel_size) == (((3, 2967, 2220),), 0.499)
    expected = np.asarray(openslide.OpenSlide(APERIO).read_region((1000, 700), 0, (300, 200)))[..., :3]
    difference = np.abs(slide.read(0, 700, 1000, 200, 300).permute(1, 2, 0).numpy().astype(int) - expected)
    assert difference.max() <= 1  # decoders of JPEG may differ by a grey level


@needs_aperio
def test_formats_of_openslide_are_read_by_it(tmp_path):
    """A pyramid as OpenSlide reads it, for the formats of which there are no small files."""
    pytest.importorskip("openslide")
    from gconv_ga.images._slide_files import open_with_openslide

    (level,), pixel_size = open_with_openslide(APERIO)
    assert (level.shape, pixel_size) == ((3, 2967, 2220), 0.499)
    difference = level.window(700, 1000, 200, 300).int() - Slide(APERIO).read(0, 700, 1000, 200, 300).int()
    assert difference.abs().max() <= 1


def exact_mean(pixels, target, place):
    """Mean over the area of one larger pixel, in fractions."""
    (size, many), total = (pixels.shape, Fraction(0))
    spans = [(Fraction(at * side, end), Fraction((at + 1) * side, end)) for at, side, end in
             zip(place, (size, many), target, strict=True)]  # fmt: skip
    for row in range(size):
        for column in range(many):
            shares = [max(Fraction(0), min(high, Fraction(at + 1)) - max(low, Fraction(at)))
                      for (low, high), at in zip(spans, (row, column), strict=True)]  # fmt: skip
            total += shares[0] * shares[1] * int(pixels[row, column])
    return total * target[0] * target[1] / (size * many)


def test_scaling_is_the_mean_by_area(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (23, 17), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    image = Slide(tmp_path / "a.tif").at(pixel_size=0.8)
    assert image.shape == (1, 14, 11)
    assert image.scale == (23 / 14, 17 / 11)
    whole = image.window(0, 0, 14, 11)
    for place in ((0, 0), (13, 10), (7, 4)):
        assert float(whole[0, *place]) == pytest.approx(float(exact_mean(pixels, (14, 11), place)), rel=1e-7)
    assert torch.equal(image.window(5, 3, 6, 7), whole[:, 5:11, 3:10])
    assert torch.equal(Slide(tmp_path / "a.tif").overview(14, 11), whole)


def test_a_rotated_slide_is_scaled_to_the_rotated_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (203, 157, 3), dtype=np.uint8)
    images = []
    for name, values in (("a", pixels), ("b", np.rot90(pixels))):
        tifffile.imwrite(tmp_path / f"{name}.tif", values, photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3)
        image = Slide(tmp_path / f"{name}.tif").at(pixel_size=0.7)
        images.append(image.window(0, 0, *image.shape[1:]))
    assert torch.equal(images[0].rot90(1, (-2, -1)), images[1])


@pytest.mark.parametrize(
    ("wanted", "level", "shape"),
    [(0.5, 0, (301, 215)), (0.52, 0, (301, 215)), (1.0, 1, (150, 107)), (0.8, 0, (188, 134)), (3.0, 2, (50, 36))],
)
def test_the_level_is_chosen_by_the_size_of_pixels(wanted, level, shape, colored):
    image = Slide(colored[0]).at(pixel_size=wanted)
    assert (image.level, image.shape[1:]) == (level, shape)


def test_what_cannot_be_read_at_a_resolution_is_refused(colored, tmp_path):
    slide = Slide(colored[0])
    with pytest.raises(ValueError, match=r"no larger than 0\.25 micrometres.* give level=0 \(--level 0\)"):
        slide.at(pixel_size=0.25)
    with pytest.raises(ValueError, match=r"level must be below 3, the number of levels of a\.tif, but got level=3"):
        slide.at(level=3)
    with pytest.raises(ValueError, match="given where level is not"):
        slide.at()
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((20, 30), np.uint8))
    with pytest.raises(ValueError, match="does not state the size of its pixels"):
        Slide(tmp_path / "b.tif").at(pixel_size=0.5)
    with pytest.raises(ValueError, match="There is no such file"):
        Slide(tmp_path / "c.mrxs")
    (tmp_path / "d.mrxs").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="a readable image file"):
        Slide(tmp_path / "d.mrxs")
