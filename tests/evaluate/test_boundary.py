"""Distances of outlines, against going through all pairs of pixels; and evaluation where some pixels count nowhere."""

import math

import pytest
import torch
from torch import nn

from gconv_ga.evaluate import boundary_distance, evaluate_image

NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def outline_by_hand(region, ignored):
    """Pixels of a region with a neighbour that is in the image, counts, and is not in the region."""
    rows, columns = region.shape
    found = []
    for i in range(rows):
        for j in range(columns):
            beside = [(i + di, j + dj) for di, dj in NEIGHBOURS if 0 <= i + di < rows and 0 <= j + dj < columns]
            if region[i, j] and not ignored[i, j] and any(not region[p] and not ignored[p] for p in beside):
                found.append((i, j))
    return found


def distances_by_hand(found, there, ignored):
    one, other = (outline_by_hand(region, ignored) for region in (found, there))
    away = [min(math.dist(p, q) for q in other) for p in one] + [min(math.dist(p, q) for q in one) for p in other]
    away.sort()
    place = 0.95 * (len(away) - 1)  # between two values, in proportion
    low = int(place)
    high = min(low + 1, len(away) - 1)
    return sum(away) / len(away), away[low] + (place - low) * (away[high] - away[low])


@pytest.mark.parametrize("some_ignored", [False, True])
@pytest.mark.parametrize("size", [(12, 17), (9, 5)])
def test_distances_are_those_of_all_pairs(size, some_ignored, generator):
    found, there = (torch.rand(size, generator=generator) > 0.6 for _ in range(2))
    ignored = torch.zeros(size, dtype=torch.bool)
    if some_ignored:
        ignored[2:6, 1:4] = True
    expected = distances_by_hand(found, there, ignored)
    assert boundary_distance(found, there, ignored=ignored) == pytest.approx(expected, abs=1e-10)


def test_a_shifted_square_is_off_by_the_shift():
    """All of its upper and lower sides but a corner lie on the other's; its left and right sides are two away."""
    found, there = torch.zeros(2, 20, 20, dtype=torch.bool)
    found[4:12, 4:12], there[4:12, 6:14] = True, True
    distance = boundary_distance(found, there)
    assert distance.percentile_95 == 2
    assert 0 < distance.mean < 2


def test_the_same_outline_is_nowhere_off(generator):
    region = torch.rand(9, 9, generator=generator) > 0.5
    assert boundary_distance(region, region) == (0, 0)


@pytest.mark.parametrize("element", range(4))
def test_turning_both_changes_nothing(element, generator):
    found, there = (torch.rand(8, 13, generator=generator) > 0.6 for _ in range(2))
    turned = boundary_distance(found.rot90(element), there.rot90(element))
    assert turned == pytest.approx(boundary_distance(found, there), abs=1e-12)


@pytest.mark.parametrize("value", [False, True])
def test_without_an_outline_there_is_no_distance(value, generator):
    region = torch.rand(9, 9, generator=generator) > 0.5
    assert boundary_distance(region, torch.full((9, 9), value)) is None
    assert boundary_distance(torch.full((9, 9), value), region) is None


@pytest.mark.parametrize("name", ["predicted", "ignored"])
def test_regions_of_two_sizes_are_refused(name):
    regions = {
        "predicted": torch.ones(4, 4, dtype=torch.bool),
        "ignored": None,
        name: torch.ones(4, 5, dtype=torch.bool),
    }
    with pytest.raises(ValueError, match=rf"^{name} must be a tensor \[H, W\] = \(4, 4\)"):
        boundary_distance(regions["predicted"], torch.ones(4, 4, dtype=torch.bool), ignored=regions["ignored"])


class Threshold(nn.Module):
    """Class 1 where the image is above a half."""

    def forward(self, x):
        return torch.cat((0.5 - x, x - 0.5), dim=1)


def evaluation(image, mask, **options):
    return evaluate_image(Threshold(), image, mask, classes=2, **options)


def test_what_lies_under_ignored_pixels_changes_no_score(generator):
    image = torch.rand(1, 12, 15, generator=generator)
    mask = (torch.rand(12, 15, generator=generator) > 0.5).long()
    ignored = torch.zeros(12, 15, dtype=torch.bool)
    ignored[3:7, 2:13] = True
    coded = mask.masked_fill(ignored, 255)
    expected = evaluation(image, coded, ignore_index=255)
    other = image.clone()
    other[0, ignored] = 1 - other[0, ignored]
    # Between the grid's angles the image is interpolated, and ignored pixels reach their neighbours.
    ours = evaluation(other, coded, ignore_index=255)
    assert (ours.dice, ours.iou, ours.boundary) == (expected.dice, expected.iou, expected.boundary)
    assert ours.angles[::2] == expected.angles[::2]
    assert evaluation(image, mask).dice != expected.dice
    assert evaluation(other, mask).dice != evaluation(image, mask).dice


def test_scores_beside_ignored_pixels_are_counted_by_hand(generator):
    image = torch.rand(1, 12, 15, generator=generator)
    mask = (torch.rand(12, 15, generator=generator) > 0.5).long()
    mask[3:7, 2:13] = -1
    inside, found = mask != -1, image[0] > 0.5
    scores = evaluation(image, mask, ignore_index=-1)
    for index in range(2):
        there, here = (mask == index) & inside, (found == bool(index)) & inside
        both = int((there & here).sum())
        assert scores.dice[index] == pytest.approx(2 * both / int(there.sum() + here.sum()), abs=1e-6)
        assert scores.iou[index] == pytest.approx(both / int((there | here).sum()), abs=1e-6)
        assert scores.boundary[index] == pytest.approx(distances_by_hand(here, there, ~inside), abs=1e-10)


def test_an_image_that_counts_nowhere_has_no_score():
    scores = evaluation(torch.rand(1, 8, 8), torch.full((8, 8), 255), ignore_index=255)
    assert scores.dice == scores.iou == scores.boundary == (None, None)
    assert scores.changed == (0.0,) * 8


def test_an_index_that_is_not_ignored_is_refused():
    with pytest.raises(ValueError, match="mask must be class indices from 0 to 1"):
        evaluation(torch.rand(1, 8, 8), torch.full((8, 8), 255), ignore_index=254)
