"""The tissue of a slide: Otsu's threshold on saturation, and the tiles that touch it."""

import numpy as np
import pytest
import tifffile
import torch
from skimage.filters import threshold_otsu
from slide_files import stained

from gconv_ga.images import Slide
from gconv_ga.predict._tissue import _otsu, darkened, find_tissue, shown, tiles_with_tissue


def found(folder, pixels, **options):
    tifffile.imwrite(folder / "a.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    return find_tissue(Slide(folder / "a.tif").at(level=0), **options)


def test_the_threshold_is_otsus():
    values = torch.from_numpy(np.random.default_rng(0).gamma(2, 12, 20000).clip(0, 255)).float()
    assert _otsu(values) == pytest.approx(threshold_otsu(values.numpy(), nbins=1024), abs=0.6)


def test_stain_is_found_and_glass_is_not(tmp_path):
    pixels = stained((400, 300), share=0.3)
    tissue = found(tmp_path, pixels)
    assert tissue.mask.shape == (50, 38)
    share = np.kron(pixels[:400, :300].astype(int).max(2) - pixels.min(2) > 40, 1).mean()
    assert share - 0.02 < float(tissue.mask.float().mean()) < share + 0.25
    assert 8 <= tissue.threshold <= 32


def test_what_has_no_saturation_is_all_taken(tmp_path):
    grey = np.repeat(stained((200, 150))[..., :1], 3, axis=2)
    assert found(tmp_path, grey).mask.all()
    assert found(tmp_path, grey).threshold is None
    assert found(tmp_path, stained((200, 150)).astype(np.uint16)).mask.all()
    assert found(tmp_path, stained((200, 150))[..., 0]).mask.all()
    assert found(tmp_path, stained((200, 150)), everything=True).mask.all()


def test_a_section_that_fills_the_slide_is_not_parted(tmp_path):
    """Otsu's threshold alone would call the paler half glass."""
    pixels = np.empty((200, 160, 3), np.uint8)
    pixels[:, :80], pixels[:, 80:] = (226, 150, 190), (110, 30, 170)
    assert found(tmp_path, pixels).mask.all()


def test_tiles_touch_the_mask_where_their_areas_meet():
    mask = torch.zeros(7, 5, dtype=torch.bool)
    mask[2, 3] = mask[6, 0] = True
    rows, columns = [(0, 20), (20, 41), (41, 70)], [(0, 13), (13, 33), (33, 48)]
    touched = tiles_with_tissue(mask, (70, 48), rows, columns)
    for place in np.ndindex(3, 3):
        (top, bottom), (left, right) = rows[place[0]], columns[place[1]]
        # In parts: 10 rows and 9.6 columns of the image are one pixel of the view.
        expected = any(
            row * 10 < bottom and (row + 1) * 10 > top and column * 9.6 < right and (column + 1) * 9.6 > left
            for row, column in mask.nonzero().tolist()
        )
        assert touched[place] == expected


def test_pictures_show_what_is_left_out():
    view = torch.full((3, 4, 5), 200.0)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[0] = False
    picture = darkened(shown(view), mask)
    assert (picture[0] == 80).all()
    assert (picture[1:] == 200).all()
    assert shown(torch.linspace(0, 60000, 20).view(1, 4, 5)).max() == 255
