"""Training: a run in a folder that can be interrupted and resumed, and the pieces it is made of.

Needs the extra ``train``.

Names: `train_run`, `read_run`, `RunConfig` (a training in a folder); `fit`, `Segmenter`, `CrossEntropyDice`,
`ReportSteps`, `SaveCheckpoints` (with Lightning, on a stream of yours); `initial_weights`, `pretrained_weights`,
`start_at_frequencies` (what a network starts from); `is_main_process`.

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

from .._validate import missing_extra

try:
    from ._config import RunConfig
    from ._fit import ReportSteps, SaveCheckpoints, fit
    from ._module import CrossEntropyDice, Segmenter
    from ._processes import is_main_process
    from ._run import read_run, train_run
    from ._start import initial_weights, pretrained_weights, start_at_frequencies
except ModuleNotFoundError as error:
    raise missing_extra(__name__, "train", error) from error

__all__ = [
    "CrossEntropyDice",
    "ReportSteps",
    "RunConfig",
    "SaveCheckpoints",
    "Segmenter",
    "fit",
    "initial_weights",
    "is_main_process",
    "pretrained_weights",
    "read_run",
    "start_at_frequencies",
    "train_run",
]
