"""Decoding: against a slow reading of its rules, and exact under rotations and reflections, which others are not."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage as ndi
import torch
from object_images import blobs, discs
from skimage.segmentation import watershed

from gconv_ga.actions import LabelMask
from gconv_ga.objects import Decoder, Objects, changed_objects, decode


def around(pixel, size):
    row, column = pixel
    for r in range(max(row - 1, 0), min(row + 2, size[0])):
        for c in range(max(column - 1, 0), min(column + 2, size[1])):
            if (r, c) != pixel:
                yield r, c


def clusters(pixels, size):
    """Sets of pixels that are neighbours by side or by corner."""
    left, found = set(pixels), []
    while left:
        grown, edge = set(), {left.pop()}
        while edge:
            grown |= edge
            edge = {beside for pixel in edge for beside in around(pixel, size)} & left
            left -= edge
        found.append(grown)
    return found


def slow_heights(region):
    """Distance to the nearest pixel outside, by trying all; sums of a 5 x 5 binomial, with the border repeated."""
    height, width = region.shape
    outside = np.argwhere(~region)
    rounded = np.zeros(region.shape, dtype=int)
    for row, column in np.argwhere(region):
        rounded[row, column] = round(16 * np.sqrt(((outside - (row, column)) ** 2).sum(axis=1).min()))
    weights, result = (1, 4, 6, 4, 1), {}
    for row, column in np.argwhere(region):
        total = sum(
            weights[r] * weights[c]
            * rounded[min(max(row + r - 2, 0), height - 1), min(max(column + c - 2, 0), width - 1)]
            for r in range(5)
            for c in range(5)
        )  # fmt: skip
        result[int(row), int(column)] = max((total + 128) // 256, 1)
    return result


def slow_seeds(heights, rise, size):
    """What is left of the summits when all sink by the rise and fill up to the passes, step by step."""
    filled = {pixel: height - round(16 * rise) for pixel, height in heights.items()}
    changes = True
    while changes:
        changes = False
        for pixel, height in heights.items():
            best = max([filled[pixel], *(filled[beside] for beside in around(pixel, size) if beside in filled)])
            if min(best, height) > filled[pixel]:
                filled[pixel], changes = min(best, height), True
    seeds = []
    for value in set(filled.values()):
        for plateau in clusters([pixel for pixel in filled if filled[pixel] == value], size):
            beside = {other for pixel in plateau for other in around(pixel, size) if other in filled} - plateau
            if all(filled[other] < value for other in beside):
                seeds.append(plateau)
    return seeds


def slow_watershed(region, rise, smallest):
    """The sets of pixels of the objects, by the rules of `decode` read one pixel at a time."""
    size, heights = region.shape, slow_heights(region)
    objects = slow_seeds(heights, rise, size)
    owner = {pixel: number for number, seed in enumerate(objects) for pixel in seed}
    for level in sorted(set(heights.values()), reverse=True):
        while True:
            joined = {}
            for pixel in [each for each in heights if heights[each] >= level and each not in owner]:
                near = [each for each in around(pixel, size) if owner.get(each) is not None]
                if near:
                    top = max(heights[each] for each in near)
                    highest = {owner[each] for each in near if heights[each] == top}
                    most = max(len(objects[number]) for number in highest)
                    largest = [number for number in highest if len(objects[number]) == most]
                    joined[pixel] = largest[0] if len(largest) == 1 else None
            if not joined:
                break
            owner |= joined
            for pixel, number in joined.items():
                if number is not None:
                    objects[number].add(pixel)
    return {frozenset(each) for each in objects if len(each) >= smallest}


def pixel_sets(labels):
    return {
        frozenset(map(tuple, np.argwhere(labels.numpy() == number).tolist()))
        for number in range(1, int(labels.max()) + 1)
    }


TWINS = discs((15, 24), (7, 7, 5.5), (7, 15, 5.5))  # as many columns on either side of the middle one
CASES = {
    "blobs": blobs((22, 26), 0), "other blobs": blobs((24, 19), 3), "noise": blobs((14, 17), 1, scale=0.7),
    "twins": TWINS, "twins, even": discs((15, 24), (7, 7, 5.5), (7, 16, 5.5)),
    "three": discs((22, 25), (7, 6, 5.2), (7, 15, 6.2), (14, 10, 5.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rise", [0.25, 0.75])
def test_the_objects_are_those_of_the_rules(name, rise):
    objects = decode(CASES[name], Decoder(rise=rise, smallest=4))
    expected = slow_watershed(CASES[name].numpy() > 0, rise, 4)
    assert pixel_sets(objects.labels) == expected
    assert len(objects.classes) == len(expected) > 0


def test_a_pixel_that_no_rule_gives_to_one_of_twins_belongs_to_none():
    labels = decode(TWINS).labels
    assert labels.max() == 2
    assert torch.equal(labels.flip(1)[:, 1:] > 0, (labels > 0)[:, :-1]), "the columns 0 .. 22 are symmetric"
    assert (labels[:, 11] == 0).all()
    assert TWINS[:, 11].any()


def connected(region):
    return torch.from_numpy(ndi.label(region.numpy() > 0, np.ones((3, 3)))[0].astype(np.int64))


@pytest.mark.parametrize("name", ["blobs", "noise", "three"])
def test_components_are_the_connected_regions(name):
    found = decode(CASES[name], Decoder("components", smallest=1)).labels
    assert pixel_sets(found) == pixel_sets(connected(CASES[name]))


def by_pixel_order(classes):
    """The usual decoder: smoothed by floats, and a watershed that assigns ties in the order of the pixels."""
    mask = classes.numpy() > 0
    height = ndi.distance_transform_edt(mask)
    seeds = ndi.label(height == ndi.maximum_filter(np.where(mask, height, -1), 5) * mask)[0]
    return Objects(torch.from_numpy(watershed(-height, seeds * mask, mask=mask).astype(np.int64)), torch.empty(0))


def by_first_owner(classes):
    """Our decoder with the tie between twins given to the one whose number is lower."""
    labels = decode(classes).labels
    columns = (classes > 0) & (labels == 0)
    return Objects(torch.where(columns, labels.roll(1, 1), labels), torch.empty(0))


def worst_change(decoder, classes):
    """Largest share of pixels in another object, over all rotations and reflections."""
    labels = decoder(classes).labels
    return max(
        changed_objects(labels, decoder(LabelMask()(classes, "D4", g)).labels, "D4", g).pixels for g in range(1, 8)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(64, 64), (61, 90)], ids=str)
def test_objects_rotate_with_the_classes_to_the_last_pixel(size, seed):
    classes = blobs(size, seed, scale=1.5 + seed / 2, classes=1 + seed % 2)
    assert len(decode(classes).classes) > 3
    assert worst_change(decode, classes) == 0


@pytest.mark.parametrize("name", CASES)
def test_ties_rotate_too(name):
    assert worst_change(decode, CASES[name]) == 0


@pytest.mark.parametrize("decoder", [by_pixel_order, by_first_owner])
def test_decoders_that_look_at_the_order_of_pixels_are_seen(decoder):
    assert worst_change(decoder, TWINS) > 0


def test_each_class_is_cut_on_its_own():
    classes = blobs((40, 50), 5, classes=2)
    objects = decode(classes)
    assert set(objects.classes.tolist()) == {1, 2}
    for index in (1, 2):
        alone = decode((classes == index).long()).labels
        own = torch.isin(objects.labels, 1 + torch.nonzero(objects.classes == index).flatten())
        assert pixel_sets(alone) == pixel_sets(objects.labels * own) - {frozenset()}
    for lower, upper in pairwise(objects.labels.unique().tolist()):
        assert upper == lower + 1, "numbers have no gaps"


def test_a_lower_rise_cuts_more_and_small_ones_are_dropped():
    classes = blobs((60, 60), 2)
    counts = [len(decode(classes, Decoder(rise=rise)).classes) for rise in (0.1, 1, 20)]
    assert counts[0] > counts[1] > counts[2]
    assert counts[2] == len(decode(classes, Decoder("components")).classes)
    sizes = decode(classes, Decoder(smallest=30)).labels.flatten().bincount()[1:]
    assert sizes.min() >= 30


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_images_have_none_and_one(value):
    objects = decode(torch.full((9, 12), value))
    assert objects.labels.unique().tolist() == [value]
    assert objects.classes.tolist() == [1] * value


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(1, 2, 2, dtype=torch.int64), r"classes must be a tensor \[H, W\]"),
        (torch.zeros(2, 2), "classes must be class indices"),
        (torch.tensor([[-1]]), "classes must be class indices"),
    ],
)
def test_what_is_no_class_map_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        decode(wrong)


@pytest.mark.parametrize("method", ["distance", "flow"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_maps_that_are_not_finite_are_refused(method, number):
    maps = torch.zeros(3, 8, 8)
    maps[0 if method == "distance" else 1, 4, 4] = number
    with pytest.raises(ValueError, match="maps must be finite distances and flows"):
        decode(torch.ones(8, 8, dtype=torch.long), Decoder(method=method), maps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "wartershed"}, "method must be one of 'watershed', 'components', 'distance', 'flow'.*Did you mean"),
        ({"rise": 0.0}, "rise must be positive"),
        ({"smallest": 0}, "smallest must be a positive int"),
    ],
)
def test_rules_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Decoder(**arguments)
