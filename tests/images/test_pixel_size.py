"""The size of a pixel, from the places where files state it, and from none where they say nothing of use."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from gconv_ga.images import read_pixel_size

PIXELS = np.zeros((4, 5), dtype=np.uint8)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (20000, 10000), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (50, 50), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (2400, 2400), "resolutionunit": "INCH"}, None),
        ({"resolution": (50800, 50800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (50800, 25400), "resolutionunit": "INCH"}, None),
        ({}, None),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "micron"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "inch"}}, None),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3}}, 0.3),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "YX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 250,
                    "PhysicalSizeYUnit": "nm",
                },
            },
            0.25,
        ),
        ({"ome": True, "metadata": {"axes": "YX"}}, None),
        ({"description": "Aperio Image Library v1\r\n5x4|AppMag = 20|MPP = 0.4990", "metadata": None}, 0.499),
    ],
)  # fmt: skip
def test_the_size_is_what_the_file_states(options, size, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    assert read_pixel_size(tmp_path / "a.tif") == (size if size is None else pytest.approx(size))


@pytest.mark.parametrize("suffix", [".tiff", ".svs", ".qptiff", ".TIF"])
def test_it_is_read_whatever_the_ending_of_a_tiff(suffix, tmp_path):
    tifffile.imwrite(tmp_path / f"a{suffix}", PIXELS, resolution=(20000, 20000), resolutionunit="CENTIMETER")
    assert read_pixel_size(tmp_path / f"a{suffix}") == pytest.approx(0.5)


def test_other_files_state_nothing(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", dpi=(25400, 25400))
    (tmp_path / "b.tif").write_bytes(b"no image")
    for name in ("a.png", "b.tif", "missing.tif"):
        assert read_pixel_size(tmp_path / name) is None
