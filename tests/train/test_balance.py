"""What rare classes and boundaries are given in the loss, and that a run gives it to them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import gconv_ga.images
from gconv_ga.images import find_images, match_masks
from gconv_ga.train import CrossEntropyDice, ObjectLoss, RunConfig, class_weights, train_run

SAMPLE = Path(gconv_ga.images.__file__).parent / "sample" / "nuclei"
MASKS = torch.zeros(2, 9, 12, dtype=torch.int64)
MASKS[0, 2:5, 3:7], MASKS[1, :, 10:] = 1, 2
LOGITS = torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def near(masks, ignored=None):
    """Whether another class is at most two pixels away along rows and columns, pixel by pixel."""
    height, width = masks.shape
    found = torch.zeros(height, width, dtype=torch.bool)
    for row in range(height):
        for column in range(width):
            around = masks[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].flatten().tolist()
            found[row, column] = len(set(around) - {ignored}) > 1
    return found


@pytest.mark.parametrize("ignored", [None, 1, 2])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 3.0)])
@pytest.mark.parametrize("boundary", [0.0, 2.5])
def test_the_cross_entropy_is_weighted(ignored, weights, boundary):
    loss = CrossEntropyDice(ignored, class_weights=weights, boundary=boundary)
    errors = F.cross_entropy(LOGITS, MASKS, reduction="none")
    of_class = torch.ones(3) if weights is None else torch.tensor(weights)
    of_pixel = (1 + boundary * torch.stack([near(mask, ignored) for mask in MASKS])) * (ignored != MASKS)
    expected = (errors * of_class[MASKS] * of_pixel).sum() / of_pixel.sum()
    found = loss(LOGITS, MASKS) - CrossEntropyDice(ignored).dice(LOGITS, MASKS)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert CrossEntropyDice(ignored).state_dict() == loss.state_dict() == {}, "weights are no part of a checkpoint"
    if weights is not None or boundary:
        assert float(loss(LOGITS, MASKS)) != pytest.approx(float(CrossEntropyDice(ignored)(LOGITS, MASKS)), rel=1e-3)


def test_a_mask_that_is_ignored_costs_nothing():
    loss = CrossEntropyDice(-1, class_weights=(1.0, 2.0, 1.0), boundary=1.0)
    assert float(loss(LOGITS, torch.full_like(MASKS, -1))) == 0
    with pytest.raises(ValueError, match="boundary must be at least 0"):
        CrossEntropyDice(boundary=-1.0)


def test_the_loss_of_objects_passes_them_on():
    targets = torch.zeros(2, 4, 9, 12)
    targets[:, 0] = MASKS.clamp_max(1)
    maps, options = torch.randn(2, 5, 9, 12), {"class_weights": (1.0, 3.0), "boundary": 2.0}
    gain = ObjectLoss(**options)(maps, targets) - ObjectLoss()(maps, targets)
    of_classes = [CrossEntropyDice(**each)(maps[:, :2], MASKS.clamp_max(1)) for each in (options, {})]
    assert float(gain) == pytest.approx(float(of_classes[0] - of_classes[1]), abs=1e-5)


def test_class_weights_are_inverse_square_roots_with_mean_one():
    counts = MASKS.flatten().bincount() + 1.0
    weights = torch.tensor(class_weights(MASKS, 3))
    assert torch.allclose(weights[1:] / weights[0], (counts[0] / counts[1:]).sqrt())
    assert float((counts * weights).sum() / counts.sum()) == pytest.approx(1.0)
    ignored = class_weights(MASKS.where(MASKS != 2, 255), 3, ignore_index=255)
    assert ignored[2] > 3 * weights[2]
    with pytest.raises(ValueError, match="masks must be class indices below 2"):
        class_weights(MASKS, 2)


def test_each_choice_changes_a_run(config, tmp_path):
    pairs, _ = match_masks(find_images(SAMPLE / "images")[:2], SAMPLE / "masks")
    run = RunConfig(config, {"00": "train", "01": "train"}, steps=3, batch_size=2, crop=16)
    choices = [{}, {"balance": "crops"}, {"balance": "weights"}, {"boundary": 2.0}, {"augment": "strong"}]
    weights = []
    for number, choice in enumerate(choices):
        trained = train_run(tmp_path / str(number), dataclasses.replace(run, **choice), pairs).state_dict()
        weights.append(torch.cat([tensor.flatten().double() for tensor in trained.values()]))
    assert all(bool(weights[one].ne(weights[two]).any()) for one in range(5) for two in range(one))
    for wrong in ({"balance": "all"}, {"boundary": -1.0}, {"boundary": float("nan")}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            dataclasses.replace(run, **wrong)
