"""Random changes of crops: what each kind does to image and mask, in any number of channels, and in the stream."""

import numpy as np
import pytest
import torch
from object_images import blobs

from gconv_ga.images import Changes, CropStream, RandomChanges, Split
from gconv_ga.images._random_changes import _bend, _turn_hue
from gconv_ga.objects import Decoder, decode, object_targets
from gconv_ga.train import ObjectStream

KINDS = ("color", "contrast", "scale", "blur", "noise", "elastic")
INSTANCES = torch.stack([decode(blobs((64, 64), seed, scale=4), Decoder(rise=0.5)).labels for seed in range(2)])


def shaded(labels, channels=1):
    """An image that says of each pixel which object it belongs to."""
    return torch.stack([labels.float() + channel for channel in range(channels)])


def changed(kind, image, mask, seed=0, changes=None):
    """The first outcome in which something changed: each kind is made in half of the calls."""
    torch.manual_seed(seed)
    changes = RandomChanges(Changes.named(f"strong,{kind}") if changes is None else changes)
    outcomes = [changes(image, mask) for _ in range(20)]
    moved = [each for each in outcomes if not torch.equal(each[0], image)]
    assert 3 < len(moved) < 17
    return moved[0]


def test_words_name_kinds_and_strength():
    assert Changes.named("none") == Changes()
    light, strong = Changes.named("light"), Changes.named("strong")
    assert all(0 < getattr(light, kind) < getattr(strong, kind) for kind in KINDS)
    assert Changes.named("light, noise") == Changes.named("noise") == Changes(noise=light.noise)
    assert Changes.named("noise,strong,blur") == Changes(noise=strong.noise, blur=strong.blur)


@pytest.mark.parametrize("text", ["", "heavy", "light,strong", "none,noise", "noise,noise", "colour"])
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match="augment must be none, light, strong, or kinds among color, contrast, scale"):
        Changes.named(text)


def test_negative_changes_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="noise must be at least 0"):
        Changes(noise=-0.1)
    with pytest.raises(ValueError, match=r"mask must be a tensor \[H, W\] of an image"):
        RandomChanges("light")(torch.zeros(1, 8, 8), torch.zeros(8, 9))


@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("kind", ["contrast", "blur", "noise", "elastic"])
def test_each_kind_is_made_in_any_number_of_channels(kind, channels):
    image = torch.randn(channels, 40, 33, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(40 * 33).view(40, 33)
    other, moved = changed(kind, image, mask)
    assert other.shape == image.shape
    assert other.dtype == image.dtype
    assert bool(other.isfinite().all())
    assert torch.equal(moved, mask) == (kind != "elastic")
    assert all(not torch.equal(one, two) for one, two in zip(other, image, strict=True))


def test_contrast_is_a_line_for_each_channel():
    image = torch.randn(7, 16, 16)
    other, _ = changed("contrast", image, torch.zeros(16, 16))
    lines = [np.polyfit(*(each.flatten().numpy() for each in pair), 1) for pair in zip(image, other, strict=True)]
    factors, shifts = np.array(lines).T
    assert len(set(factors.round(3))) == len(set(shifts.round(3))) == 7
    assert (factors > 1 / 1.41).all()
    assert (factors < 1.41).all()
    assert (abs(shifts) < 0.41).all()
    fitted = torch.from_numpy(factors)[:, None, None] * image + torch.from_numpy(shifts)[:, None, None]
    assert torch.allclose(fitted.float(), other, atol=1e-5)


def test_color_keeps_grey_and_brightness_and_leaves_other_images_alone():
    grey, image = torch.randn(1, 8, 8).expand(3, 8, 8), torch.randn(3, 8, 8)
    turn = _turn_hue(25.0, torch.tensor(1.2))
    assert torch.allclose(torch.einsum("ij,jhw->ihw", turn, grey), grey, atol=1e-6)
    other, _ = changed("color", image, torch.zeros(8, 8))
    assert torch.allclose(other.mean(0), image.mean(0), atol=1e-6)
    third = _turn_hue(120.0, torch.tensor(1.0))  # red becomes green, green becomes blue
    assert torch.allclose(third, torch.eye(3).roll(1, 0), atol=1e-6)
    for channels in (1, 2, 4, 7):
        some = torch.randn(channels, 8, 8)
        assert all(torch.equal(RandomChanges("strong,color")(some, torch.zeros(8, 8))[0], some) for _ in range(9))


def test_blur_smooths_and_noise_adds_what_it_says():
    image = torch.randn(2, 64, 64)
    assert changed("blur", image, torch.zeros(64, 64))[0].std() < image.std()
    noise = changed("noise", image, torch.zeros(64, 64), changes=Changes(noise=0.3))[0] - image
    assert 0 < noise.std() < 0.3
    assert abs(noise.mean()) < 0.02
    small = torch.randn(1, 2, 3)
    assert changed("blur", small, torch.zeros(2, 3))[0].shape == small.shape


def test_elastic_moves_image_and_objects_together():
    """Within an object the image stays what the mask says; an image that is moved otherwise does not."""
    labels = torch.arange(4).repeat_interleave(16).expand(64, 64) * 1_000_000_007  # numbers beyond float32
    image = shaded(labels // 1_000_000_007)
    torch.manual_seed(0)
    bent, moved = _bend(image, labels, 4.0)
    assert set(moved.flatten().tolist()) == set(labels.flatten().tolist())
    assert (moved != labels).float().mean() > 0.02
    apart = (bent[0] - moved // 1_000_000_007).abs()
    assert apart.max() < 0.75, "interpolation at an edge is all that differs"
    assert (image[0] - moved // 1_000_000_007).abs().max() == 1
    assert (apart > 0.01).float().mean() < 0.08


def test_elastic_displacements_are_smooth_and_as_large_as_said():
    """A ramp reads the displacement off; at the border it is reflected."""
    ramp = torch.arange(96.0).expand(1, 96, 96)
    torch.manual_seed(0)
    shifts = torch.stack([_bend(ramp, torch.zeros(96, 96), 3.0)[0] - ramp for _ in range(20)])[:, 0, 16:-16, 16:-16]
    assert 1.2 < shifts.std() < 3.0
    assert (shifts[..., 1:] - shifts[..., :-1]).abs().max() < 0.8, "no point passes its neighbour"


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_targets_are_computed_after_the_changes(augment):
    """A flow that is moved as an image would be is another one."""
    split = Split(torch.stack([shaded(each) for each in INSTANCES]), INSTANCES)
    crops = CropStream(split, length=8, crop=48, augment=augment, seed=2)
    stream = ObjectStream(crops)
    for index in range(8):
        assert torch.equal(stream[index][1], object_targets(crops[index][1]))
    torch.manual_seed(3)
    _, moved = _bend(split.images[0], INSTANCES[0], 4.0)
    torch.manual_seed(3)
    flows, _ = _bend(object_targets(INSTANCES[0])[2:], INSTANCES[0], 4.0)
    right = object_targets(moved)[2:]
    inside = (moved > 0) & (right.norm(dim=0) > 0)
    assert (flows - right).norm(dim=0)[inside].mean() > 0.05
    assert (right.norm(dim=0)[inside] - 1).abs().max() < 1e-5
    assert (flows.norm(dim=0)[inside] - 1).abs().max() > 0.1, "interpolated, it is no unit vector"


def test_scale_makes_objects_larger_and_smaller():
    """Stripes eight pixels wide become wider or narrower by the factor, in image and mask alike."""
    stripes = (torch.arange(256) // 8).expand(256, 256)
    stream = CropStream(
        Split(stripes[None, None].float(), stripes[None]), length=60, crop=64, symmetry=None, augment="strong,scale"
    )
    widths = []
    for image, mask in stream:
        assert (image.shape, mask.shape) == ((1, 64, 64), (64, 64))
        assert (image[0] - mask).abs().max() < 0.75
        widths.append(64 / (mask[0, -1] - mask[0, 0]).item())
    assert sum(abs(width - 8) < 0.8 for width in widths) > 20, "half of the crops keep their scale"
    assert min(widths) < 6
    assert max(widths) > 11
    assert min(widths) > 8 / 1.75
    assert max(widths) < 8 * 1.75


def test_scale_pads_images_that_are_too_small_and_ignores_the_padding():
    split = Split(torch.rand(2, 1, 40, 48), torch.ones(2, 40, 48, dtype=torch.int64))
    options = {"length": 40, "crop": 40, "augment": "strong,scale", "seed": 1}
    padded = [mask for _, mask in CropStream(split, ignore_index=-1, **options)]
    assert {int(value) for mask in padded for value in mask.unique()} == {-1, 1}
    within = [mask for _, mask in CropStream(split, **options)]
    assert {int(value) for mask in within for value in mask.unique()} == {1}, "a window no larger than the image"


@pytest.mark.parametrize("augment", ["light", "strong", "scale"])
def test_items_depend_on_seed_and_index_alone(augment):
    split = Split(torch.rand(3, 3, 40, 48), torch.randint(2, (3, 40, 48)))
    options = {"crop": 32, "augment": augment, "seed": 4}
    first, longer = (CropStream(split, length=length, **options) for length in (20, 300))
    before = torch.get_rng_state()
    expected = [first[index] for index in range(20)]
    assert torch.equal(torch.get_rng_state(), before)
    for index in (19, 3, 7, 7):
        assert torch.equal(longer[index][0], expected[index][0])
        assert torch.equal(longer[index][1], expected[index][1])
    other = CropStream(split, length=20, **{**options, "seed": 5})
    assert any(not torch.equal(other[index][0], expected[index][0]) for index in range(20))


def test_without_changes_the_stream_is_what_it_was():
    split = Split(torch.rand(3, 3, 40, 48), torch.randint(2, (3, 40, 48)))
    ours, others = (CropStream(split, length=9, crop=32, **options) for options in ({}, {"augment": Changes()}))
    assert all(torch.equal(ours[index][0], others[index][0]) for index in range(9))
    assert all(set(crop.flatten().tolist()) <= set(split.images.flatten().tolist()) for crop, _ in ours)
