"""Training segmenters: loss, Lightning module, checkpoints that hold no code, and what a turn of the image changes.

Needs the extra ``train``.

Names: `SegmenterConfig`, `Segmenter`, `CrossEntropyDice`, `fit`, `ReportSteps`, `SaveCheckpoints`; `save_checkpoint`,
`load_checkpoint`, `Checkpoint`; `predict_labels`, `dice`, `orientation_scores`, `OrientationScores`; `Tiled`,
`predict_image`, `ImagePrediction`, `save_prediction`, `predict_to_file` (images of any size); `train_run`, `read_run`,
`RunConfig` (a training in a folder), `Machines` (it runs on), `leads` (who writes), `initial_weights`,
`pretrained_weights`, `start_at_frequencies` (it begins with); `evaluate_image`, `ImageScores`, `boundary_distance`,
`BoundaryDistance`, `mean_score`; `as_device`.

Example:
    >>> from gconv_ga.data import CropStream, load_sample
    >>> from gconv_ga.training import Segmenter, SegmenterConfig, fit, orientation_scores
    >>> sample = load_sample("nuclei")
    >>> config = SegmenterConfig(
    ...     "EquivariantUNet", dict(in_channels=1, classes=2, group="C4", width=2, depth=2), sample.classes,
    ...     sample.normalization,
    ... )
    >>> model = config.build(seed=0)
    >>> steps, batch_size = 3, 2
    >>> stream = CropStream(sample.train, length=steps * batch_size, crop=32, symmetry="D4", seed=0)
    >>> fit(Segmenter(model), stream, batch_size=batch_size)
    >>> scores = orientation_scores(model, sample.test.images, sample.test.masks, classes=2, group="C4")
    >>> scores.changed < 1e-4  # the share of pixels whose label changes when the image is turned
    True
"""

from .._validate import missing_extra

try:
    from ._boundary import BoundaryDistance, boundary_distance
    from ._callbacks import ReportSteps, SaveCheckpoints
    from ._checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from ._config import SegmenterConfig
    from ._devices import as_device
    from ._evaluation import ImageScores, evaluate_image, mean_score
    from ._fit import fit
    from ._frequencies import start_at_frequencies
    from ._initial import initial_weights, pretrained_weights
    from ._losses import CrossEntropyDice
    from ._machines import Machines
    from ._orientation import OrientationScores, orientation_scores
    from ._predict_image import ImagePrediction, predict_image
    from ._predictions import predict_to_file, save_prediction
    from ._processes import leads
    from ._run import read_run, train_run
    from ._run_config import RunConfig
    from ._scores import dice, predict_labels
    from ._segmenter import Segmenter
    from ._tiled import Tiled
except ModuleNotFoundError as error:
    raise missing_extra(__name__, "train", error) from error

__all__ = [
    "BoundaryDistance",
    "Checkpoint",
    "CrossEntropyDice",
    "ImagePrediction",
    "ImageScores",
    "Machines",
    "OrientationScores",
    "ReportSteps",
    "RunConfig",
    "SaveCheckpoints",
    "Segmenter",
    "SegmenterConfig",
    "Tiled",
    "as_device",
    "boundary_distance",
    "dice",
    "evaluate_image",
    "fit",
    "initial_weights",
    "leads",
    "load_checkpoint",
    "mean_score",
    "orientation_scores",
    "predict_image",
    "predict_labels",
    "predict_to_file",
    "pretrained_weights",
    "read_run",
    "save_checkpoint",
    "save_prediction",
    "start_at_frequencies",
    "train_run",
]
