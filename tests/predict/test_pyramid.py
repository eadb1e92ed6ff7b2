"""Class maps as OME-TIFF: level 0 is what was written, coarser levels are majorities, symmetric ones."""

from collections import Counter

import numpy as np
import pytest
import tifffile

import gconv_ga.predict._pyramid as pyramid
from gconv_ga.predict._pyramid import most_frequent, write_pyramid


def test_the_groups_of_an_axis_are_symmetric():
    for size in range(1, 60):
        lengths = np.diff([*pyramid._groups(size), size]).tolist()
        assert lengths == lengths[::-1]
        assert sum(lengths) == size
        assert size < 2 or (2 in lengths or lengths == [3])
        assert all(length == 2 for place, length in enumerate(lengths) if place != len(lengths) // 2 or size % 2 == 0)


def test_the_most_frequent_value_is_taken_and_of_equals_the_highest():
    values = np.random.default_rng(0).integers(0, 4, (11, 13), dtype=np.uint8)
    heights, widths = np.array([2, 2, 3, 2, 2]), np.array([2, 2, 2, 1, 2, 2, 2])
    found = most_frequent(values, heights, widths)
    tops, lefts = np.cumsum(heights) - heights, np.cumsum(widths) - widths
    for row, column in np.ndindex(found.shape):
        block = values[tops[row] : tops[row] + heights[row], lefts[column] : lefts[column] + widths[column]]
        counts = Counter(block.ravel().tolist())
        most = max(counts.values())
        assert found[row, column] == max(value for value, count in counts.items() if count == most)


def test_without_an_order_none_of_values_as_frequent_is_taken():
    values = np.random.default_rng(1).integers(0, 3, (11, 13), dtype=np.uint32)
    heights, widths = np.array([2, 2, 3, 2, 2]), np.array([2, 2, 2, 1, 2, 2, 2])
    found = most_frequent(values, heights, widths, are_ordered=False)
    assert found.dtype == np.uint32
    tops, lefts = np.cumsum(heights) - heights, np.cumsum(widths) - widths
    ties = 0
    for row, column in np.ndindex(found.shape):
        block = values[tops[row] : tops[row] + heights[row], lefts[column] : lefts[column] + widths[column]]
        (value, most), *others = Counter(block.ravel().tolist()).most_common()
        is_tied = bool(others) and others[0][1] == most
        ties += is_tied and value > 0
        assert found[row, column] == (0 if is_tied else value)
    assert ties > 3


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(pyramid, "TILE", 32)
    monkeypatch.setattr(pyramid, "SMALLEST", 20)


def levels_of(path, values):
    def window(top, left, height, width):
        return values[top : top + height, left : left + width]

    shown = []
    write_pyramid(path, values.shape, window, values.dtype.type, pixel_size=0.5, preview=shown.append)
    with tifffile.TiffFile(path) as file:
        found = [level.asarray() for level in file.series[0].levels]
    assert np.array_equal(shown[0], found[-1])
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.usefixtures("small_tiles")
def test_levels_of_a_rotated_map_are_the_rotated_levels(dtype, tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (97, 118)).astype(dtype)
    values[:40, :70] = 0
    upright, rotated = (
        levels_of(tmp_path / f"{name}.tif", each) for name, each in (("a", values), ("b", np.rot90(values)))
    )
    assert np.array_equal(upright[0], values)
    assert [level.shape for level in upright] == [(97, 118), (49, 59), (25, 29), (13, 15)]
    for one, other in zip(upright, rotated, strict=True):
        assert np.array_equal(np.rot90(one), other)


@pytest.mark.usefixtures("small_tiles")
def test_pairs_from_the_left_are_not_symmetric(monkeypatch, tmp_path):
    monkeypatch.setattr(pyramid, "_groups", lambda size: list(range(0, size, 2)))
    values = np.random.default_rng(0).integers(0, 3, (97, 118)).astype(np.uint8)
    upright, rotated = (
        levels_of(tmp_path / f"{name}.tif", each) for name, each in (("a", values), ("b", np.rot90(values, 2)))
    )
    assert not np.array_equal(np.rot90(upright[1], 2), rotated[1])


def test_a_failed_write_leaves_nothing(tmp_path):
    def window(*_):
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_pyramid(tmp_path / "a.ome.tif", (20, 30), window, np.uint8)
    assert not list(tmp_path.iterdir())
