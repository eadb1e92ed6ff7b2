"""Prediction of the classes of image pixels: of images of any size by tiles, as tensors and as files.

Needs the extra ``train``.

Names: `predict_labels` (a batch of images); `predict_image`, `ImagePrediction`, `Tiled` (images of any size);
`save_prediction`, `predict_to_file` (PNG with a colour map, probabilities, an overlay); `predict_objects`,
`ObjectPrediction`, `ObjectFiles`, `predict_maps` (things that can be counted); `SlideJob`, `Phase`, `predict_slide`
(whole slides).

Example:
    >>> import torch
    >>> from gconv_ga.predict import predict_image
    >>> predict_image(torch.nn.Conv2d(1, 3, 1), torch.zeros(1, 300, 500), tile=128).labels.shape
    torch.Size([300, 500])
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._objects import ObjectFiles, ObjectPrediction, predict_maps, predict_objects
    from ._predictions import predict_to_file, save_prediction
    from ._slide import Phase, SlideJob, predict_slide
    from ._tiles import ImagePrediction, Tiled, predict_image, predict_labels

__all__ = [
    "ImagePrediction",
    "ObjectFiles",
    "ObjectPrediction",
    "Phase",
    "SlideJob",
    "Tiled",
    "predict_image",
    "predict_labels",
    "predict_maps",
    "predict_objects",
    "predict_slide",
    "predict_to_file",
    "save_prediction",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_objects": ["ObjectFiles", "ObjectPrediction", "predict_maps", "predict_objects"],
        "_predictions": ["predict_to_file", "save_prediction"],
        "_slide": ["Phase", "SlideJob", "predict_slide"],
        "_tiles": ["ImagePrediction", "Tiled", "predict_image", "predict_labels"],
    },
    extra="train",
)
