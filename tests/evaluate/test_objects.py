"""Scores of objects: against those counted by hand, and changes for a network that is not equivariant."""

import pytest
import torch
from object_images import discs
from torch import nn

from gconv_ga.evaluate import evaluate_objects
from gconv_ga.objects import Decoder

MASK = discs((40, 50), (12, 12, 8), (26, 36, 8), (12, 32, 4))
IMAGE = MASK[None].float()


class Pointwise(nn.Module):
    """Class 1 where the image is above one half."""

    def forward(self, x):
        return torch.cat((torch.zeros_like(x), x - 0.5), dim=1)


class Lopsided(nn.Module):
    """The same, but blind on the left."""

    def forward(self, x):
        seen = x.clone()
        seen[..., : x.shape[-1] // 2] = 0
        return Pointwise()(seen)


def true_objects():
    """Two of the three, and one that is not there."""
    instances = torch.zeros_like(MASK)
    instances[:20, :22] = 7 * MASK[:20, :22]
    instances[18:, 26:] = 3 * MASK[18:, 26:]
    instances[30:, :9] = 5
    return instances


def test_objects_are_compared_with_the_true_ones():
    scores, changes = evaluate_objects(Pointwise(), IMAGE, true_objects())
    assert (scores.found, scores.true, scores.count_error) == (3, 3, 0)
    assert scores.average_precision == (0.5,) * 9
    assert (scores.precision, scores.recall, scores.panoptic_quality) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert [change.pixels for change in changes] == [0, 0, 0]


def test_a_network_that_is_not_equivariant_is_seen():
    _, changes = evaluate_objects(Lopsided(), IMAGE, true_objects())
    assert len(changes) == 3
    assert min(change.pixels for change in changes) > 0.1
    assert min(change.partnerless for change in changes) > 0.1


def test_reflections_are_compared_where_the_group_has_them():
    """A network that is blind on the left is so upside down too, and in no other position."""
    _, changes = evaluate_objects(Pointwise(), IMAGE, true_objects(), group="D4")
    assert [change.pixels for change in changes] == [0] * 7
    _, changes = evaluate_objects(Lopsided(), IMAGE, true_objects(), group="D4")
    assert [change.pixels > 0.1 for change in changes] == [True, True, True, True, True, False, True]
    with pytest.raises(ValueError, match="group must be one of C4, D4"):
        evaluate_objects(Pointwise(), IMAGE, true_objects(), group="C8")


def test_ignored_pixels_belong_to_no_object():
    """The small disc is ignored as a whole, and of another one first less and then more than half."""
    ignored = torch.zeros_like(MASK, dtype=torch.bool)
    ignored[:20, 28:] = True  # the small disc, which is no true object
    ignored[:, 40:] = True  # less than half of a large one
    instances = true_objects()
    instances[ignored] = 255
    scores, changes = evaluate_objects(Pointwise(), IMAGE, instances, ignored=ignored)
    assert (scores.found, scores.true) == (2, 3)
    assert scores.average_precision == (2 / 3,) * 9
    assert [change.pixels for change in changes] == [0, 0, 0]
    ignored[:, 32:] = True  # most of it
    scores, _ = evaluate_objects(Pointwise(), IMAGE, instances, ignored=ignored)
    assert (scores.found, scores.true) == (1, 3)
    ignored[:] = False
    ignored[:, : IMAGE.shape[-1] // 2 + 4] = True
    _, changes = evaluate_objects(Lopsided(), IMAGE, true_objects(), ignored=ignored)
    assert [change.pixels > 0 for change in changes] == [True, True, True], "ignored pixels are moved with the image"
    with pytest.raises(ValueError, match=r"ignored must be a tensor \[H, W\] = \(40, 50\)"):
        evaluate_objects(Pointwise(), IMAGE, true_objects(), ignored=ignored.T)


def test_the_rules_are_those_that_are_asked_for():
    scores, _ = evaluate_objects(Pointwise(), IMAGE, true_objects(), decoder=Decoder(smallest=100))
    assert scores.found == 2


def test_true_objects_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"instances must be a tensor \[H, W\] = \(40, 50\)"):
        evaluate_objects(Pointwise(), IMAGE, MASK.T)
