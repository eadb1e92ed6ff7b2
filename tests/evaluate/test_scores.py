"""Loss, Dice and scores over rotated images, against counting by hand."""

import math

import pytest
import torch
from torch import nn

from gconv_ga.evaluate import OrientationScores, changed_labels, dice, evaluate_image, mean_score, orientation_scores
from gconv_ga.models import EquivariantUNet
from gconv_ga.predict import predict_labels
from gconv_ga.segmenter import as_device
from gconv_ga.train import CrossEntropyDice


def dice_by_hand(labels, masks, classes):
    scores = []
    for label, mask in zip(labels.tolist(), masks.tolist(), strict=True):
        for k in range(1, classes):
            found, there = (
                {(i, j) for i, row in enumerate(rows) for j, value in enumerate(row) if value == k}
                for rows in (label, mask)
            )
            if found or there:
                scores += [2 * len(found & there) / (len(found) + len(there))]
    return sum(scores) / len(scores)


@pytest.mark.parametrize("classes", [2, 3])
def test_dice_is_the_mean_over_images_and_classes(classes, generator):
    labels, masks = (torch.randint(0, classes, (5, 4, 6), generator=generator) for _ in range(2))
    labels[1], masks[1] = 0, 0  # nothing found, nothing there: it counts in no mean
    labels[2] = 0  # nothing found
    assert dice(labels, masks, classes=classes) == pytest.approx(dice_by_hand(labels, masks, classes), abs=1e-6)


def test_dice_of_nothing_is_no_number():
    nothing = torch.zeros(2, 3, 3, dtype=torch.int64)
    assert math.isnan(dice(nothing, nothing, classes=2))


@pytest.mark.parametrize(
    ("labels", "masks", "classes", "message"),
    [
        ((2, 4, 4), (2, 4, 5), 2, r"^labels must be a tensor \[N, H, W\] = \(2, 4, 5\)"),
        ((4, 4), (4, 4), 2, r"^labels must be a tensor \[N, H, W\]"),
        ((1, 4, 4), (1, 4, 4), 1, r"^classes must be an int of at least 2, but got classes=1"),
    ],
)
def test_dice_refuses_what_does_not_fit(labels, masks, classes, message):
    with pytest.raises(ValueError, match=message):
        dice(torch.zeros(labels, dtype=torch.int64), torch.zeros(masks, dtype=torch.int64), classes=classes)


def test_a_label_beyond_the_classes_is_refused():
    with pytest.raises(ValueError, match=r"^classes must be more than the largest label, but got classes=2"):
        dice(torch.full((1, 2, 2), 2), torch.zeros(1, 2, 2, dtype=torch.int64), classes=2)


def test_the_loss_is_cross_entropy_plus_dice(generator):
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    masks = torch.randint(0, 3, (2, 4, 5), generator=generator)
    p = logits.softmax(dim=1)
    onehot = torch.stack([masks == k for k in range(3)], dim=1).double()
    cross_entropy = -(p.log() * onehot).sum(dim=1).mean()
    overlaps = [2 * (p[:, k] * onehot[:, k]).sum() / (p[:, k] + onehot[:, k]).sum() for k in range(3)]
    expected = cross_entropy + 1 - sum(overlaps) / 3
    assert CrossEntropyDice()(logits, masks) == pytest.approx(float(expected), rel=1e-6)


def test_ignored_pixels_change_no_loss(generator):
    logits = torch.randn(1, 2, 4, 4, generator=generator)
    masks = torch.randint(0, 2, (1, 4, 4), generator=generator)
    masks[0, 0] = 255
    other = logits.clone()
    other[:, :, 0] += torch.randn(2, 4, generator=generator)
    loss = CrossEntropyDice(ignore_index=255)
    assert loss(logits, masks) == pytest.approx(float(loss(other, masks)), rel=1e-6)
    other[:, :, 1] += 1 + torch.randn(2, 4, generator=generator)
    assert loss(logits, masks) != pytest.approx(float(loss(other, masks)), rel=1e-6)


@pytest.mark.parametrize("ignore_index", [255, -1, 0])
def test_the_loss_is_that_of_the_pixels_that_count(ignore_index, generator):
    """The same pixels, laid out as an image of their own."""
    logits = torch.randn(1, 3, 4, 5, generator=generator, dtype=torch.float64)
    masks = torch.randint(1, 3, (1, 4, 5), generator=generator)
    masks[0, 1:3, :4] = ignore_index
    counts = masks[0] != ignore_index
    alone = CrossEntropyDice()(logits[:, :, counts].unsqueeze(2), masks[:, counts].unsqueeze(1))
    assert CrossEntropyDice(ignore_index)(logits, masks) == pytest.approx(float(alone), rel=1e-9)


def test_where_no_pixel_counts_there_is_no_loss_and_no_gradient():
    logits = torch.ones(1, 2, 3, 3, requires_grad=True)
    loss = CrossEntropyDice(ignore_index=255)(logits, torch.full((1, 3, 3), 255))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0
    assert bool((gradient == 0).all())


def test_dice_leaves_out_what_is_ignored(generator):
    labels, masks = (torch.randint(0, 3, (1, 6, 7), generator=generator) for _ in range(2))
    ignored = torch.zeros(6, 7, dtype=torch.bool)
    ignored[2:4, 1:6] = True
    coded = masks.masked_fill(ignored, 255)
    alone = dice_by_hand(labels[:, ~ignored].unsqueeze(1), masks[:, ~ignored].unsqueeze(1), 3)
    assert dice(labels, coded, classes=3, ignore_index=255) == pytest.approx(alone, abs=1e-6)
    assert dice(labels, masks, classes=3) != pytest.approx(alone, abs=1e-3)
    with pytest.raises(ValueError, match=r"^classes must be more than the largest label"):
        dice(labels, coded, classes=3)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^masks must be a tensor \[B, H, W\] = \(1, 4, 4\)"):
        CrossEntropyDice()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 5, dtype=torch.int64))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_labels_are_the_largest_logits(batch_size, generator, device):
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Dropout(0.5))
    model[1].eval()  # mixed modes, to be kept
    images = torch.randn(5, 1, 6, 7, generator=generator)
    labels = predict_labels(model, images, batch_size=batch_size, device=device)
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    model.cpu().eval()
    assert labels.device.type == "cpu"
    assert torch.equal(labels, model(images).argmax(dim=1))


def test_images_without_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"^images must be a tensor \[N, C, H, W\], but got \(1, 6, 7\)"):
        predict_labels(nn.Conv2d(1, 2, 1), torch.zeros(1, 6, 7))


class BrightToTheLeft(nn.Module):
    """Calls a pixel 1 where it is brighter than the one to its left, which lies elsewhere when the image is turned."""

    def forward(self, x):
        score = x - x.roll(1, dims=-1)
        return torch.cat((torch.zeros_like(score), score), dim=1)


@pytest.mark.parametrize("size", [(6, 6), (5, 8)], ids=str)
def test_orientation_figures_are_those_counted_by_hand(size, generator):
    images = torch.randn(3, 1, *size, generator=generator)
    masks = torch.randint(0, 2, (3, *size), generator=generator)
    got = orientation_scores(BrightToTheLeft(), images, masks, classes=2, group="C4", batch_size=2)

    def labels(x):
        return (x > x.roll(1, dims=-1)).long()[:, 0]

    turned, changed = [], []
    for turns in (1, 2, 3):
        back = labels(images.rot90(turns, (-2, -1))).rot90(-turns, (-2, -1))
        turned.append(dice_by_hand(back, masks, 2))
        changed.append(float((back != labels(images)).double().mean()))
    expected = OrientationScores(dice_by_hand(labels(images), masks, 2), sum(turned) / 3, min(turned), sum(changed) / 3)
    assert vars(got) == pytest.approx(vars(expected), abs=1e-6)
    assert got.changed > 0.2


@pytest.mark.parametrize("group", ["C2", "C4", "D1", "D4"])
def test_an_equivariant_network_changes_no_label(group, generator):
    net = EquivariantUNet(1, 2, group=group, width=4, depth=2).double().eval()
    images = torch.randn(2, 1, 17, 20, generator=generator, dtype=torch.float64)
    with torch.no_grad():  # half of the pixels get each class, none is a tie
        net.segmentation_head.bias[0] += (net(images)[:, 1] - net(images)[:, 0]).median() + 1e-6
    masks = predict_labels(net, images)
    assert masks.unique().tolist() == [0, 1]
    scores = orientation_scores(net, images, masks, classes=2, group=group)
    assert vars(scores) == pytest.approx({"upright": 1.0, "rotated": 1.0, "worst": 1.0, "changed": 0.0})


def test_off_the_grid_what_comes_from_outside_is_left_out():
    """A model that calls the dark surroundings 1 would be wrong in every corner, if corners counted."""

    class Dark(nn.Module):
        def forward(self, x):
            return torch.cat((x - 0.5, 0.5 - x), dim=1)

    images = torch.ones(1, 1, 33, 33)
    images[:, :, 12:20, 10:22] = 0.0
    scores = orientation_scores(Dark(), images, (images[:, 0] < 0.5).long(), classes=2, group="C8")
    assert scores.upright == 1.0
    assert scores.worst > 0.9
    assert scores.changed < 0.02


def test_one_image_has_the_same_scores_as_a_batch_of_one(generator):
    image = torch.rand(1, 14, 14, generator=generator)
    mask = torch.randint(0, 2, (14, 14), generator=generator)
    ours = evaluate_image(BrightToTheLeft(), image, mask, classes=2)
    batch = orientation_scores(BrightToTheLeft(), image[None], mask[None], classes=2, group="C8")
    rotated = ours.angles[1:]
    expected = OrientationScores(ours.angles[0], sum(rotated) / 7, min(rotated), sum(ours.changed[1:]) / 7)
    assert vars(batch) == pytest.approx(vars(expected), abs=1e-6)


@pytest.mark.parametrize("element", range(8))
def test_changed_labels_are_those_counted_by_hand(element, generator):
    """Under D4, with some pixels ignored."""
    labels = torch.randint(0, 3, (2, 5, 7), generator=generator)
    ignored = torch.zeros(2, 5, 7, dtype=torch.bool)
    ignored[:, 1:3, 2:6] = True

    def move(x):
        return (x if element < 4 else x.flip(-1)).rot90(element % 4, (-2, -1))

    moved_labels = torch.randint(0, 3, move(labels).shape, generator=generator)
    differs = move(labels) != moved_labels
    assert torch.equal(changed_labels(labels, moved_labels, "D4", element), differs)
    assert torch.equal(changed_labels(labels, moved_labels, "D4", element, ignored=ignored), differs & ~move(ignored))
    assert not changed_labels(labels, move(labels), "D4", element).any()


def test_changed_labels_leave_out_what_comes_from_outside():
    labels = torch.ones(9, 9, dtype=torch.uint8)  # unsigned: a label that marks the outside must not wrap around
    changed = changed_labels(labels, torch.zeros_like(labels), "C8", 1)
    assert changed[4].all()
    assert not changed[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_a_mask_of_another_size_or_with_negative_labels_is_refused():
    image, net = torch.zeros(1, 1, 4, 4), nn.Conv2d(1, 2, 1)
    with pytest.raises(ValueError, match=r"^masks must be a tensor \[N, H, W\] = \(1, 4, 4\)"):
        orientation_scores(net, image, torch.zeros(1, 4, 5).long(), classes=2, group="C4")
    with pytest.raises(ValueError, match=r"^masks must be class indices of at least 0"):
        orientation_scores(net, image, torch.full((1, 4, 4), -1), classes=2, group="C4")
    with pytest.raises(ValueError, match=r"^masks must be class indices of at least 0"):
        dice(torch.zeros(1, 4, 4).long(), torch.full((1, 4, 4), -1), classes=2)
    with pytest.raises(ValueError, match=r"^labels must be class indices of at least 0"):
        dice(torch.full((1, 4, 4), -1), torch.zeros(1, 4, 4).long(), classes=2)


def test_a_group_that_turns_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^group must be a group of more than the identity, but got group='C1'"):
        orientation_scores(nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4), classes=2, group="C1")


def test_the_device_is_one_of_this_machine():
    assert as_device("cpu") == as_device(torch.device("cpu")) == torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert as_device("auto").type == ("cpu" if accelerator is None else accelerator.type)
    with pytest.raises(
        ValueError, match=r"^device must be 'auto' or a device of this machine: cpu.*got device='abacus'"
    ):
        as_device("abacus")


def test_an_absent_class_has_no_score():
    nothing = torch.zeros(8, 8, dtype=torch.int64)
    scores = evaluate_image(nn.Conv2d(1, 1, 1), torch.zeros(1, 8, 8), nothing, classes=2)
    assert scores.dice == (1.0, None)
    assert scores.iou == (1.0, None)
    assert scores.mean is None
    assert mean_score([]) is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(8, 7).long(), r"mask must be a tensor \[H, W\]"),
        (torch.full((8, 8), 2), "mask must be class indices"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        evaluate_image(nn.Conv2d(1, 2, 1), torch.zeros(1, 8, 8), mask, classes=2)


def test_precision_and_recall_are_those_counted_by_hand():
    image = torch.tensor([[[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 0]]])
    mask = torch.tensor([[0, 1, 1, 1, 9], [0, 1, 0, 0, 0]])
    net = torch.nn.Conv2d(1, 3, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([0.0, 2.0, 0.0]).view(3, 1, 1, 1))
        net.bias.copy_(torch.tensor([0.0, -1.0, -5.0]))
    scores = evaluate_image(net, image, mask, classes=3, ignore_index=9)
    assert scores.precision == pytest.approx((4 / 5, 3 / 4, None))
    assert scores.recall == pytest.approx((4 / 5, 3 / 4, None))
    all_background = evaluate_image(net, torch.zeros_like(image), mask, classes=3, ignore_index=9)
    assert all_background.precision == pytest.approx((5 / 9, None, None))
    assert all_background.recall == pytest.approx((1, 0, None))
