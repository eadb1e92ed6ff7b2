"""What turning the image changes in the answer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._validate import invalid
from ..actions import LabelMask, ScalarField
from ..groups import Group, as_group
from ._scores import dice, predict_labels

OUTSIDE = 255  # no class: what comes from outside the image


@dataclass(frozen=True)
class OrientationScores:
    """How a segmenter does on images as they are and on turned ones.

    Args:
        upright: Dice on the images as they are.
        turned: Dice on the moved images, the mean over the elements other than the identity.
        worst: The lowest of these.
        changed: The share of pixels, 0 .. 1, whose label is another one when the image is moved, averaged as
            ``turned``. For an equivariant segmenter 0.

    Example:
        >>> OrientationScores(upright=0.9, turned=0.89, worst=0.88, changed=0.004).changed
        0.004
    """

    upright: float
    turned: float
    worst: float
    changed: float


def orientation_scores(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    *,
    classes: int,
    group: Group | str,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
) -> OrientationScores:
    """Moves images by every element of a group and compares: with the moved masks, and with the moved prediction.

    ``changed`` is the share of pixels where ``labels(L_g x)`` and ``L_g labels(x)`` differ. Quarter turns and mirrors
    move pixels, so what differs is the model's doing. At other angles the image is interpolated and the labels are read
    from the nearest pixel: pixels from outside the image are left out, and borders of regions count a little even for
    a model that turns perfectly.

    Args:
        model: It gives logits.
        images: The images, normalised as in training.
        masks: Their true classes.
        classes: How many there are; 0 is the background.
        group: The group or its name.
        batch_size: Images at a time.
        device: Where to compute.

    Shape:
        - images: ``[N, C, H, W]``
        - masks: ``[N, H, W]``

    Raises:
        ValueError: The group has no element but the identity, or a shape does not fit.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> brightness = torch.nn.Conv2d(1, 2, 1)  # one pixel at a time: it does not mind a turn
        >>> orientation_scores(brightness, images, (images[:, 0] > 0.5).long(), classes=2, group="C4").changed
        0.0
    """
    symmetry = as_group(group)
    if symmetry.order == 1:
        raise invalid("group", "a group of more than the identity", symmetry.name)
    upright = predict_labels(model, images, batch_size=batch_size, device=device)
    scores, changes = [], []
    for element in range(1, symmetry.order):
        move = LabelMask(fill=OUTSIDE)
        labels = predict_labels(model, ScalarField()(images, symmetry, element), batch_size=batch_size, device=device)
        truth, expected = move(masks, symmetry, element), move(upright, symmetry, element)
        inside = truth != OUTSIDE
        changes.append(float((labels != expected)[inside].double().mean()))
        # The background counts in no Dice score, so what lies outside is called background.
        scores.append(dice(labels * inside, truth * inside, classes=classes))
    mean = sum(scores) / len(scores)
    return OrientationScores(dice(upright, masks, classes=classes), mean, min(scores), sum(changes) / len(changes))
