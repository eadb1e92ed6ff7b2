"""Trained networks that come with the package, and what is known about each of them.

Needs the extra ``train``.

Names: `NAMES`; `load` (also ``gconv_ga.models.load``), `PretrainedModel` (finds objects in an image as it is in its
file); `find_checkpoint` (the file of the weights), `read_card`, `card_text` (data, licence, scores, failures).

Example:
    >>> import gconv_ga.images
    >>> from gconv_ga.images import read_image
    >>> from gconv_ga.pretrained import load
    >>> from pathlib import Path
    >>> image = read_image(Path(gconv_ga.images.__file__).parent / "sample" / "nuclei" / "images" / "16.png")
    >>> objects = load("nuclei")(image)
    >>> objects.labels.shape == image.shape[1:], len(objects.classes) == objects.labels.max()
    (True, tensor(True))
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._card import card_text
    from ._files import NAMES, find_checkpoint, read_card
    from ._model import PretrainedModel, load

__all__ = ["NAMES", "PretrainedModel", "card_text", "find_checkpoint", "load", "read_card"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_card": ["card_text"],
        "_files": ["NAMES", "find_checkpoint", "read_card"],
        "_model": ["PretrainedModel", "load"],
    },
    extra="train",
)
