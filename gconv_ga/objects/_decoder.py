"""Options and result of a decoder. Imports nothing heavy: prediction without objects loads it too."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from .._validate import as_int, invalid, one_of

RISES = {"watershed": 0.75, "components": None, "distance": 0.15, "flow": None}
METHODS = tuple(RISES)


@dataclass(frozen=True)
class Decoder:
    """Rules by which `decode` cuts the region of a class into objects.

    Args:
        method: "watershed": a watershed on the distance to the edge of the region, from one seed for each of its
            summits; "components": the connected regions as they are; "distance": the watershed on the predicted
            distance; "flow": pixels that the predicted flow brings together. The last two need a network with such
            heads, `gconv_ga.models.ObjectUNet`.
        rise: Height by which a summit must rise above the pass to a higher one to be a seed of its own, in pixels, for
            "distance" in parts of the largest distance; lower values cut more. If None, 0.75, and 0.15 for "distance".
        smallest: Number of pixels below which an object is dropped.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> from gconv_ga.objects import Decoder
        >>> Decoder(rise=1.5)
        Decoder(method='watershed', rise=1.5, smallest=12)
        >>> Decoder("distance").height
        0.15
    """

    method: str = "watershed"
    rise: float | None = None
    smallest: int = 12

    def __post_init__(self) -> None:
        one_of("method", self.method, METHODS)
        if self.rise is not None and not self.rise > 0:
            raise invalid("rise", "positive", self.rise)
        as_int("smallest", self.smallest, minimum=1)

    @property
    def height(self) -> float:
        """The rise, or what stands for it if it is None."""
        return (RISES[self.method] or 0.0) if self.rise is None else self.rise

    @property
    def needs_maps(self) -> bool:
        """True if a distance and a flow must be predicted for it."""
        return self.method in ("distance", "flow")


class Objects(NamedTuple):
    """Objects in an image.

    Args:
        labels: Number of the object of each pixel, from 1 without gaps; 0 where there is none. ``[H, W]``, int64.
        classes: Class of each object. ``[objects]``, int64.

    Example:
        >>> from gconv_ga.objects import Objects
        >>> Objects._fields
        ('labels', 'classes')
    """

    labels: Tensor
    classes: Tensor
