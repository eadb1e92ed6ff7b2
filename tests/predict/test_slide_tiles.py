"""The tiles of a slide: they cover it once, see enough around their own pixels, and lie symmetrically."""

import itertools

import pytest

from gconv_ga.predict._slide import spans


@pytest.mark.parametrize("tile", [8, 16, 17, 64, 255, 256])
def test_tiles_cover_an_axis_once_and_symmetrically(tile):
    for size in [*range(1, 400), 1000, 1001, 2220, 2967]:
        parts = spans(size, tile)
        assert [(size - b, size - a, size - d, size - c) for a, b, c, d in reversed(parts)] == parts
        assert (parts[0].start, parts[-1].stop) == (0, size)
        for one, other in itertools.pairwise(parts):
            assert one.stop == other.start
        for part in parts:
            assert part.first <= part.start < part.stop <= part.last
            assert part.last - part.first <= tile
            assert part.start == part.first == 0 or part.start - part.first >= tile // 8
            assert part.stop == part.last == size or part.last - part.stop >= tile // 8


def test_there_are_no_more_tiles_than_needed():
    for size in (1000, 2220, 100_000):
        needed = -(-(size - 64) // 192)
        assert needed <= len(spans(size, 256)) <= needed + 2
    assert {part.last - part.first for part in spans(100_001, 256)} == {255, 256}
