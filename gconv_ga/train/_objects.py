"""Training on objects: targets of random crops, the loss of all heads, and the rules that find objects best."""

import math
from collections.abc import Iterable, Sequence, Sized
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from .._validate import wrong_shape
from ..objects import Decoder, decode, object_scores, object_targets
from ..predict import predict_maps
from ._module import CrossEntropyDice, Segmenter

# The first of the best is chosen: the usual rules if others are no better.
CANDIDATES = (
    *(Decoder("watershed", rise=rise) for rise in (0.75, 0.5, 1.0, 1.5)),
    *(Decoder("distance", rise=rise) for rise in (0.15, 0.1, 0.25)),
    Decoder("flow"),
    Decoder("components"),
)


class ObjectStream(Dataset[tuple[Tensor, Tensor]]):
    """Data set of images with the targets of their objects, computed from each item of a data set of instances.

    Targets are computed after the augmentation, from the objects as they then are: a flow cannot be left pointing where
    it pointed before the crop was rotated.

    Args:
        pairs: Data set of pairs of image and instances, such as a `CropStream`.
        ignore_index: Number of ignored pixels, which becomes their class. If None, no pixel is ignored.

    Shape:
        - item: image ``[C, H, W]``; targets ``[4, H, W]``, as `gconv_ga.objects.object_targets` returns them

    Example:
        >>> import torch
        >>> from gconv_ga.images import CropStream, Split
        >>> from gconv_ga.train import ObjectStream
        >>> split = Split(torch.rand(3, 1, 32, 40), torch.zeros(3, 32, 40, dtype=torch.int64))
        >>> stream = ObjectStream(CropStream(split, length=10, crop=16, symmetry="D4", seed=1))
        >>> len(stream), stream[7][1].shape
        (10, torch.Size([4, 16, 16]))
    """

    def __init__(self, pairs: Dataset[tuple[Tensor, Tensor]], ignore_index: int | None = None) -> None:
        self.pairs = pairs
        self.ignore_index = ignore_index

    def __len__(self) -> int:
        return len(cast(Sized, self.pairs))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, instances = self.pairs[index]
        ignored = _ignored(instances, self.ignore_index)
        targets = object_targets(instances.masked_fill(ignored, 0))
        if self.ignore_index is not None:
            targets[0][ignored] = self.ignore_index
        return image, targets


def _ignored(instances: Tensor, ignore_index: int | None) -> Tensor:
    return torch.zeros_like(instances, dtype=torch.bool) if ignore_index is None else instances == ignore_index


class ObjectLoss(nn.Module):
    """`CrossEntropyDice` of the classes, plus the mean squared errors of distance and flow over the pixels of objects.

    Args:
        ignore_index: As for `CrossEntropyDice`.
        class_weights: As for `CrossEntropyDice`.
        boundary: As for `CrossEntropyDice`.

    Shape:
        - maps: ``[B, classes + 3, H, W]``, as `gconv_ga.models.ObjectUNet.maps` returns them
        - targets: ``[B, 4, H, W]``, as `gconv_ga.objects.object_targets` returns them
        - output: a scalar

    Raises:
        ValueError: The shape of the targets does not fit that of the maps.

    Example:
        >>> import torch
        >>> from gconv_ga.train import ObjectLoss
        >>> targets = torch.zeros(1, 4, 8, 8)
        >>> maps = torch.zeros(1, 5, 8, 8)
        >>> maps[:, 0] = 50.0
        >>> round(float(ObjectLoss()(maps, targets)), 3)
        0.0
    """

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        class_weights: Sequence[float] | None = None,
        boundary: float = 0.0,
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.classes = CrossEntropyDice(ignore_index, class_weights=class_weights, boundary=boundary)

    def forward(self, maps: Tensor, targets: Tensor) -> Tensor:
        batch, _, height, width = maps.shape
        if targets.shape != (batch, 4, height, width):
            raise wrong_shape("targets", f"[B, 4, H, W] = {(batch, 4, height, width)}, as the maps are", targets)
        classes, fields = targets[:, 0].to(torch.int64), targets[:, 1:]
        inside = ((classes > 0) & (classes != (-1 if self.ignore_index is None else self.ignore_index))).unsqueeze(1)
        # The distance, and the two components of the flow: each has the mean over the pixels of objects.
        errors = (F.mse_loss(maps[:, -3:], fields.to(maps.dtype), reduction="none") * inside).sum((0, 2, 3))
        loss: Tensor = self.classes(maps[:, :-3], classes) + errors.sum() / inside.sum().clamp_min(1)
        return loss


class ObjectSegmenter(Segmenter):
    """Lightning module that trains all heads of a network for objects, otherwise as `Segmenter` does.

    Args:
        model: Network with a method ``maps``, such as `gconv_ga.models.ObjectUNet`.
        learning_rate: As for `Segmenter`.
        weight_decay: As for `Segmenter`.
        loss: Module that compares maps with targets. If None, `ObjectLoss`.
        steps: As for `Segmenter`.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, classes + 3, H, W]``, logits, distance and flow

    Raises:
        ValueError: As for `Segmenter`.

    Example:
        >>> import torch
        >>> from gconv_ga.models import ObjectUNet
        >>> from gconv_ga.train import ObjectSegmenter
        >>> ObjectSegmenter(ObjectUNet(1, 2, group="C4", width=2, depth=2))(torch.zeros(2, 1, 16, 20)).shape
        torch.Size([2, 5, 16, 20])
    """

    _default_loss = ObjectLoss

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.model.maps(x)  # type: ignore[operator]  # a method of the network
        return maps


def choose_decoder(
    model: nn.Module,
    images: Dataset[tuple[Tensor, Tensor]],
    *,
    ignore_index: int | None = None,
    device: str | torch.device = "cpu",
) -> Decoder | None:
    """Return the rules that find the objects of images best: of the highest average precision, at IoU 0.5 to 0.9.

    Compared are watersheds on the distance to the edge of the predicted region and on the predicted distance, each with
    several rises, the predicted flow, and connected regions.

    Args:
        model: Network with a method ``maps``, on ``device``.
        images: Validation images with their instances.
        ignore_index: Number of ignored pixels, in which no objects are looked for. If None, no pixel is ignored.
        device: Device to compute on.

    Returns:
        The rules, or None if there are no images, or none with objects.

    Example:
        >>> import torch
        >>> from gconv_ga.images import Split
        >>> from gconv_ga.models import ObjectUNet
        >>> from gconv_ga.train import choose_decoder
        >>> nothing = Split(torch.zeros(0, 1, 16, 16), torch.zeros(0, 16, 16, dtype=torch.int64))
        >>> choose_decoder(ObjectUNet(1, 2, width=2, depth=2), nothing) is None
        True
    """
    indices = range(len(cast(Sized, images)))
    chosen = best_rules(candidate_scores(model, images, indices, ignore_index=ignore_index, device=device))
    return None if chosen is None else chosen[0]


def candidate_scores(
    model: nn.Module,
    images: Dataset[tuple[Tensor, Tensor]],
    indices: Iterable[int],
    *,
    ignore_index: int | None,
    device: str | torch.device,
) -> Tensor:
    """Return the average precision of all rules, NaN where an image has no objects; zero for images that are left out.

    Args:
        model: As for `choose_decoder`.
        images: As for `choose_decoder`.
        indices: Indices of the images to score.
        ignore_index: As for `choose_decoder`.
        device: As for `choose_decoder`.

    Shape:
        - output: ``[images, rules]``, float64
    """
    scores = torch.zeros(len(cast(Sized, images)), len(CANDIDATES), dtype=torch.float64)
    for index in indices:
        image, instances = images[index]
        maps = predict_maps(model, image, device=device).to(torch.float64)
        ignored = _ignored(instances, ignore_index)
        classes, instances = (each.masked_fill(ignored, 0) for each in (maps[:-3].argmax(dim=0), instances))
        for place, rules in enumerate(CANDIDATES):
            score = object_scores(decode(classes, rules, maps[-3:]).labels, instances).mean_average_precision
            scores[index, place] = math.nan if score is None else score
    return scores


def best_rules(scores: Tensor) -> tuple[Decoder, float] | None:
    """Return the rules of the highest mean score and that score; None if there are no scores.

    Args:
        scores: Result of `candidate_scores`.
    """
    means = scores.nanmean(dim=0).tolist()
    if all(math.isnan(mean) for mean in means):
        return None
    best = max(range(len(CANDIDATES)), key=lambda place: -1.0 if math.isnan(means[place]) else means[place])
    return CANDIDATES[best], means[best]
