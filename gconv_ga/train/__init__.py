"""Training: a run in a folder that can be interrupted, resumed and extended, and the pieces it is made of.

Needs the extra ``train``.

Names: `train_run`, `read_run`, `RunConfig` (a training in a folder); `fit`, `Segmenter`, `CrossEntropyDice`,
`ReportSteps`, `SaveCheckpoints` (training with Lightning on any stream of crops); `initial_weights`,
`pretrained_weights`, `start_at_frequencies` (initial weights); `class_weights` (rare classes); `ObjectSegmenter`,
`ObjectLoss`, `ObjectStream`, `choose_decoder` (objects); `is_main_process`.

Example:
    >>> from gconv_ga.evaluate import orientation_scores
    >>> from gconv_ga.images import CropStream, load_sample
    >>> from gconv_ga.segmenter import SegmenterConfig
    >>> from gconv_ga.train import Segmenter, fit
    >>> sample = load_sample("nuclei")
    >>> arguments = dict(in_channels=1, classes=2, group="C4", width=2, depth=2)
    >>> config = SegmenterConfig("EquivariantUNet", arguments, sample.classes, sample.normalization)
    >>> model = config.build(seed=0)
    >>> steps, batch_size = 3, 2
    >>> stream = CropStream(sample.train, length=steps * batch_size, crop=32, symmetry="D4", seed=0)
    >>> fit(Segmenter(model), stream, batch_size=batch_size)
    >>> scores = orientation_scores(model, sample.test.images, sample.test.masks, classes=2, group="C4")
    >>> scores.changed < 1e-4  # the share of pixels whose label changes when the image is rotated
    True
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._config import RunConfig
    from ._fit import ReportSteps, SaveCheckpoints, fit
    from ._module import CrossEntropyDice, Segmenter
    from ._objects import ObjectLoss, ObjectSegmenter, ObjectStream, choose_decoder
    from ._processes import is_main_process
    from ._run import read_run, train_run
    from ._start import class_weights, initial_weights, pretrained_weights, start_at_frequencies

__all__ = [
    "CrossEntropyDice",
    "ObjectLoss",
    "ObjectSegmenter",
    "ObjectStream",
    "ReportSteps",
    "RunConfig",
    "SaveCheckpoints",
    "Segmenter",
    "choose_decoder",
    "class_weights",
    "fit",
    "initial_weights",
    "is_main_process",
    "pretrained_weights",
    "read_run",
    "start_at_frequencies",
    "train_run",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_config": ["RunConfig"],
        "_fit": ["ReportSteps", "SaveCheckpoints", "fit"],
        "_module": ["CrossEntropyDice", "Segmenter"],
        "_objects": ["ObjectLoss", "ObjectSegmenter", "ObjectStream", "choose_decoder"],
        "_processes": ["is_main_process"],
        "_run": ["read_run", "train_run"],
        "_start": ["class_weights", "initial_weights", "pretrained_weights", "start_at_frequencies"],
    },
    extra="train",
)
