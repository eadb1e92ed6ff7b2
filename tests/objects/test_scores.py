"""Scores of objects against slow definitions, and changes under rotations that are known."""

from itertools import combinations, permutations

import pytest
import torch
from object_images import blobs

from gconv_ga.actions import LabelMask
from gconv_ga.objects import changed_objects, decode, match_objects, object_scores


def sets(labels):
    return {
        number: {(int(row), int(column)) for row, column in torch.nonzero(labels == number)}
        for number in labels.unique().tolist()
        if number
    }


def slow_iou(labels, true):
    """Intersection over union of each pair, by sets."""
    return {(i, j): len(a & b) / len(a | b) for i, a in sets(labels).items() for j, b in sets(true).items() if a & b}


def slow_most(pairs, value):
    """Largest total value of one-to-one pairs, by trying all subsets that are one-to-one."""
    for size in range(len(pairs), 0, -1):
        totals = [
            sum(value[pair] for pair in chosen)
            for chosen in combinations(pairs, size)
            if len({i for i, _ in chosen}) == len({j for _, j in chosen}) == size
        ]
        if totals:
            return max(totals), size
    return 0, 0


def shifted(seed):
    """True objects, and others: shifted, one split, one lost."""
    true = decode(blobs((26, 30), seed)).labels
    found = true.roll((1, 1), (0, 1))
    found[found == 1] = 0
    rows = torch.arange(26)[:, None].expand_as(found)
    return torch.where((found == 2) & (rows % 2 == 0), 50, found), true


CASES = [shifted(seed) for seed in range(3)]


@pytest.mark.parametrize("case", CASES, ids=["0", "1", "2"])
def test_scores_are_those_of_the_definition(case):
    labels, true = case
    iou, scores = slow_iou(labels, true), object_scores(labels, true)
    found, there = len(sets(labels)), len(sets(true))
    assert (scores.found, scores.true, scores.count_error) == (found, there, found - there)
    for step, score in enumerate(scores.average_precision):
        good = [pair for pair in iou if iou[pair] >= 0.5 + 0.05 * step - 1e-12]
        _, matched = slow_most(good, iou)
        assert score == pytest.approx(matched / (found + there - matched))
        if step == 0:
            assert (scores.precision, scores.recall) == pytest.approx((matched / found, matched / there))
    sure = [pair for pair in iou if iou[pair] > 0.5]
    quality = sum(iou[pair] for pair in sure) / (len(sure) + (found - len(sure)) / 2 + (there - len(sure)) / 2)
    assert scores.panoptic_quality == pytest.approx(quality)
    assert {tuple(pair) for pair in match_objects(labels, true).tolist()} == set(sure)
    assert 0 < scores.mean_average_precision < scores.average_precision[0] < 1


def test_matching_is_one_to_one_where_several_reach_one_half():
    labels, true = torch.tensor([[1, 2]]), torch.tensor([[1, 1]])
    assert object_scores(labels, true).average_precision[0] == 0.5
    assert object_scores(true, labels).average_precision[0] == 0.5
    assert match_objects(labels, true).shape == (0, 2)


def test_true_objects_score_one_whatever_their_numbers():
    true = CASES[0][1]
    numbers = torch.cat((torch.zeros(1), 7 + 3 * torch.randperm(int(true.max())))).long()
    scores = object_scores(numbers[true], true)
    assert scores.average_precision == (1.0,) * 9
    assert (scores.precision, scores.recall, scores.panoptic_quality, scores.count_error) == (1, 1, 1, 0)


def test_without_objects_there_is_no_score():
    nothing, some = torch.zeros(3, 4, dtype=torch.int64), torch.ones(3, 4, dtype=torch.int64)
    both = object_scores(nothing, nothing)
    assert both.average_precision == (None,) * 9
    assert both.mean_average_precision is both.precision is both.recall is both.panoptic_quality is None
    assert object_scores(some, nothing).average_precision == (0.0,) * 9
    assert object_scores(some, nothing).recall is None
    assert object_scores(nothing, some).precision is None
    assert object_scores(nothing, some).count_error == -1


def slow_changed(after, before):
    """Share of pixels that change their object under the best pairing of all objects, by trying all pairings."""
    one, two = (list(sets(labels).values()) for labels in (after, before))
    one, two = (one, two) if len(one) <= len(two) else (two, one)
    either = len(set().union(*one, *two))
    kept = max(sum(len(a & b) for a, b in zip(one, chosen, strict=True)) for chosen in permutations(two, len(one)))
    return (either - kept) / either


@pytest.mark.parametrize("element", [0, 1, 6])
def test_changes_are_those_of_the_definition(element):
    before, _ = shifted(1)
    before[(before > 4) & (before < 50)] = 0
    after = LabelMask()(before, "D4", element).clone()
    after[after == 3] = 2
    after[:5] = 0
    expected = LabelMask()(before, "D4", element)
    changes = changed_objects(before, after, "D4", element)
    assert changes.pixels == pytest.approx(slow_changed(after, expected))
    _, kept = slow_most(
        [pair for pair, iou in slow_iou(after, expected).items() if iou >= 0.5], slow_iou(after, expected)
    )
    count = len(sets(after)) + len(sets(expected))
    assert changes.partnerless == pytest.approx((count - 2 * kept) / count)
    assert changes.count_change == len(sets(after)) - len(sets(expected)) < 0


def test_new_numbers_are_no_change_and_one_pixel_is():
    before = CASES[0][1]
    after = LabelMask()(before, "C4", 3)
    assert changed_objects(before, torch.where(after > 0, 90 - after, 0), "C4", 3) == (0, 0, 0)
    harmed = after.clone()
    harmed[tuple(torch.nonzero(after)[0])] = 0
    assert changed_objects(before, harmed, "C4", 3).pixels == pytest.approx(1 / int((before > 0).sum()))


def test_what_comes_from_outside_is_excluded():
    before = torch.ones(9, 9, dtype=torch.int64)
    after = torch.ones(9, 9, dtype=torch.int64)
    assert changed_objects(before, after, "C8", 1) == (0, 0, 0)
    assert changed_objects(torch.zeros_like(before), torch.zeros_like(after), "C4", 1) == (0, 0, 0)


@pytest.mark.parametrize(
    ("labels", "true", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64), "labels must be a tensor"),
        (torch.zeros(6, dtype=torch.int64), torch.zeros(6, dtype=torch.int64), "labels must be a tensor"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64), "labels must be numbers of objects"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.full((2, 3), -1), "labels must be numbers of objects"),
    ],
)
def test_what_are_no_labels_is_refused(labels, true, message):
    with pytest.raises(ValueError, match=message):
        object_scores(labels, true)


def test_a_rotated_map_of_another_size_is_refused():
    labels = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"moved_labels must be a tensor \[H, W\] = \(3, 2\)"):
        changed_objects(labels, labels, "C4", 1)
