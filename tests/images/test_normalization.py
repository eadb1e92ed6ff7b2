"""Normalisation: as its formula says, and the same for the turned image."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gconv_ga.images import Normalization


def test_it_is_its_formula(generator):
    x = torch.rand(2, 2, 5, 10, generator=generator, dtype=torch.float64)
    y = Normalization([1.0, 2.0], [3.0, 4.0], percentile=90)(x)
    for image, got in zip(x, y, strict=True):
        level = sorted(image.flatten().tolist())[89]  # 90 of 100 values are at most this one
        for channel, (mean, std) in enumerate([(1, 3), (2, 4)]):
            assert torch.allclose(got[channel], (image[channel] / level - mean) / std, rtol=1e-12)


def test_a_black_level_is_subtracted_first(generator):
    x = torch.rand(2, 2, 5, 10, generator=generator, dtype=torch.float64)
    normalize = Normalization([1.0, 2.0], [3.0, 4.0], percentile=90, black=20)
    for image, got in zip(x, normalize(x), strict=True):
        ordered = sorted(image.flatten().tolist())
        black, white = ordered[19], ordered[89]
        for channel, (mean, std) in enumerate([(1, 3), (2, 4)]):
            expected = ((image[channel] - black) / (white - black) - mean) / std
            assert torch.allclose(got[channel], expected, rtol=1e-12)


def test_a_black_level_makes_the_offset_of_a_camera_irrelevant(generator):
    images = torch.rand(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    gain, offset = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1, 1) for each in ([1, 0.3, 40], [0, 5, -2]))
    alone, moved = (Normalization.measure(each, 99, 1)(each) for each in (images, images * gain + offset))
    assert torch.allclose(alone, moved)
    without = Normalization.measure(images, 99)
    assert not torch.allclose(without(images), without(images * gain + offset), atol=0.1)


def test_windows_have_the_black_level_of_the_whole_image(generator):
    image = torch.rand(1, 6, 8, generator=generator)
    normalize = Normalization([0.5], [2.0], 99, 10)
    level = normalize.level(lambda: image.split(3, dim=-1))
    assert level.shape == (2,)
    assert torch.equal(normalize(image[..., 2:5], level), normalize(image)[..., 2:5])


@pytest.mark.parametrize("percentiles", [(None,), (50,), (99.8,), (99.8, 1)])
def test_it_commutes_with_a_quarter_turn(percentiles, generator):
    x = torch.rand(3, 7, 12, generator=generator)
    normalize = Normalization([0.1, 0.2, 0.3], [1.0, 2.0, 3.0], *percentiles)
    assert torch.equal(normalize(x.rot90(1, (-2, -1))), normalize(x).rot90(1, (-2, -1)))


def test_images_of_any_size_are_measured_pixel_by_pixel(generator):
    images = [torch.rand(2, *size, generator=generator, dtype=torch.float64) for size in ((4, 5), (6, 3), (8, 8))]
    pixels = torch.cat([image.flatten(1) for image in images], dim=1)
    normalization = Normalization.measure(images)
    assert torch.allclose(torch.tensor(normalization.mean, dtype=torch.float64), pixels.mean(dim=1))
    assert torch.allclose(torch.tensor(normalization.std, dtype=torch.float64), pixels.std(dim=1, correction=0))


def test_a_percentile_makes_brightness_irrelevant(generator):
    images = torch.rand(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    exposure = torch.tensor([1.0, 0.3, 40.0], dtype=torch.float64).view(3, 1, 1, 1)
    dark, bright = (Normalization.measure(each, 99)(each) for each in (images, images * exposure))
    assert torch.allclose(dark, bright)


def test_a_black_image_stays_finite():
    assert Normalization([0.5], [1.0], 99.8)(torch.zeros(1, 4, 4)).eq(-0.5).all()
    assert Normalization([0.5], [1.0], 99.8, 1)(torch.full((1, 4, 4), 7.0)).eq(-0.5).all()


NUMBERS = [0.0, -0.0, 2.0**-149, -(2.0**-149), 2.0**127, -(2.0**127), math.inf, -math.inf, 1.0, -1.0]


@given(
    st.lists(st.floats(width=32, allow_nan=False) | st.sampled_from(NUMBERS), min_size=1, max_size=40),
    st.floats(0, 100, exclude_min=True),
    st.integers(1, 7),
)
def test_the_percentile_of_pieces_is_the_one_of_the_sorted_values(values, percentile, size):
    image = torch.tensor(values, dtype=torch.float32).view(1, 1, -1)
    expected = sorted(values)[max(1, math.ceil(percentile / 100 * len(values))) - 1]
    level = Normalization([0.0], [1.0], percentile).level(lambda: image.split(size, dim=-1))
    assert level.shape == ()
    assert level.dtype == torch.float32
    assert level.item() == expected


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=40),
    st.sampled_from([torch.uint8, torch.uint16, torch.int16, torch.int32, torch.float64]),
    st.floats(0, 100, exclude_min=True),
)
def test_the_percentile_is_the_same_in_every_number_type(values, dtype, percentile):
    image, normalization = torch.tensor(values).view(1, 1, -1), Normalization([0.0], [1.0], percentile)
    level = normalization.level(lambda: image.to(dtype).split(3, dim=-1))
    assert level == sorted(values)[max(1, math.ceil(percentile / 100 * len(values))) - 1]
    assert level.dtype == torch.float32
    assert torch.equal(normalization(image.float(), level), normalization(image.float()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 0.0], [1.0]), "^std must be one number for each channel, 2 as in mean"),
        (([0.0], [0.0]), "^std must be positive"),
        (([0.0], [float("nan")]), "^std must be positive"),
        (([0.0], [1.0], 0), "^percentile must be above 0 and up to 100, or None, but got percentile=0"),
        (([0.0], [1.0], 100.1), "^percentile must be above 0"),
        (([0.0], [1.0], None, 1), "^black must be None, but got black=1"),
        (([0.0], [1.0], 50, 50), "^black must be above 0 and below the percentile, 50, but got black=50"),
        (([0.0], [1.0], 50, float("nan")), "^black must be above 0"),
    ],
)
def test_wrong_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Normalization(*arguments)


def test_images_that_are_all_alike_are_refused():
    with pytest.raises(ValueError, match=r"^std must be positive"):
        Normalization.measure(torch.ones(2, 1, 4, 4))


@pytest.mark.parametrize("shape", [(2, 8, 8), (8, 8), (4, 2, 8, 8)])
def test_other_channels_are_refused(shape):
    with pytest.raises(ValueError, match=r"^image must be a tensor \[\.\.\., C=1, H, W\]"):
        Normalization([0.0], [1.0])(torch.zeros(shape))
