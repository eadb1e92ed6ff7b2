"""The rows in use of an image that is decoded from top to bottom: decoded once, no more than needed."""

import pytest
import torch

from gconv_ga.images import _scratch
from gconv_ga.images._streamed import Streamed


def counted(heights, shape):
    """Bands of these heights whose values are the numbers of their rows; how many were asked for."""
    asked = []

    def decode():
        rows = torch.arange(shape[1]).view(1, -1, 1).expand(shape)
        asked.append(0)
        for band in rows.split(heights, dim=1):
            asked[-1] += 1
            yield band.clone()

    return Streamed(shape, decode), asked


@pytest.mark.parametrize("limit", [0, 2**23])
def test_windows_that_go_down_decode_once_and_hold_what_they_need(limit, monkeypatch):
    monkeypatch.setattr(_scratch, "LIMIT", limit)
    raster, asked = counted([4] * 25, (2, 100, 9))
    for top in (0, 0, 3, 17, 50, 90):
        assert raster.window(top, 1, 10, 2).tolist() == [[[row] * 2 for row in range(top, top + 10)]] * 2
        assert raster._kept.end - top <= 10 + 3
        assert raster._kept._room.shape == (2, 14, 9)
        assert isinstance(raster._kept._room, torch.Tensor) == (limit > 0)
    assert asked == [25]
    raster.window(20, 0, 1, 1)
    assert asked == [25, 6]


def test_windows_as_wide_as_the_image_need_no_disk(monkeypatch):
    monkeypatch.setattr(_scratch, "LIMIT", 0)
    raster, _ = counted([4] * 25, (2, 100, 5))
    raster.window(0, 0, 90, 5)
    assert isinstance(raster._kept._room, torch.Tensor)
    raster, _ = counted([4] * 25, (2, 100, 5))
    raster.window(0, 0, 90, 1)
    assert not isinstance(raster._kept._room, torch.Tensor)


def test_a_file_of_fewer_rows_than_it_says_is_refused():
    raster, _ = counted([4, 6], (1, 10, 2))
    raster.shape = (1, 12, 2)
    with pytest.raises(OSError, match="ends after 10 of its 12 rows"):
        raster.window(8, 0, 4, 2)
