"""Objects of images of any size, and their files."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._validate import invalid
from ..groups import Group
from ..images import ImageFile
from ..objects import Decoder, Objects
from ._orientation import in_one_orientation
from ._tiles import Windows, logit_bands

# Float32 logits of four trained networks were within 1e-6 of the float64 ones, relative to the largest of an image.
DOUBT = 2.0**-15


class Decisive(nn.Module):
    """Network whose most likely classes do not depend on the rounding of float32.

    An equivariant network in float32 computes the logits of a rotated image in another order, with another rounding. At
    a pixel where two classes are as good as equal that decides the class, and there are some in a thousand images. So
    inputs with such a pixel are computed again in float64. Without TF32, which rounds a thousand times more coarsely.

    Args:
        model: Network that returns logits, in float32.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, classes, H, W]``, float64
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._exact: list[nn.Module] = []  # not registered as a part: it is there only once it is needed

    def forward(self, x: Tensor) -> Tensor:
        with _without_tf32():
            logits: Tensor = self.model(x)
        device = torch.device("cpu") if x.device.type == "mps" else x.device  # MPS has no float64
        best = logits.topk(min(2, logits.shape[1]), dim=1).values
        if bool((best[:, 0] - best[:, -1] > DOUBT * best.abs().amax().clamp_min(1)).all()):
            return logits.to(device).to(torch.float64)
        if not self._exact:
            self._exact.append(copy.deepcopy(self.model).to(device).to(torch.float64))
        exact: Tensor = self._exact[0](x.to(device).to(torch.float64))
        return exact


class Maps(nn.Module):
    """All outputs of a network with heads for objects: logits, distance, flow.

    Args:
        model: Network with a method ``maps``, such as `gconv_ga.models.ObjectUNet`.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, classes + 3, H, W]``
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        outputs: Any = self.model.maps
        maps: Tensor = outputs(x)
        return maps


class ExactMaps(Maps):
    """`Maps` in float64, of a copy of the network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(copy.deepcopy(model).to(torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.float64))


MAPS = 3  # channels after the logits: the distance, and the two components of the flow


def network_for(model: nn.Module, decoder: Decoder | None, group: Group | str | None = None) -> tuple[nn.Module, int]:
    """Return the network whose output rotates with its input, and the number of its channels that are no logits.

    Args:
        model: Network, equivariant if its output is to rotate.
        decoder: Rules by which objects are found. If None, only classes are.
        group: Group under which the network is equivariant. If None, its attribute ``group``. The network sees each
            input in one orientation, to the last bit; if it has no such attribute, it computes in float64 where
            rounding could decide.

    Raises:
        ValueError: The rules need maps that the network does not predict.
    """
    if decoder is None or not decoder.needs_maps:
        return in_one_orientation(model, group) or Decisive(model), 0
    if not hasattr(model, "maps"):
        advice = "it is for networks that were trained on objects, and not for their averages"
        raise invalid("decoder", "one of the methods 'watershed' and 'components'", decoder.method, advice)
    return in_one_orientation(model, group, outputs=Maps, vectors=2) or ExactMaps(model), MAPS


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Compute convolutions on a GPU in float32 proper for a while."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def predict_maps(
    model: nn.Module, image: Tensor | Windows, *, tile: int = 256, device: str | torch.device = "cpu"
) -> Tensor:
    """Predict the maps from which objects are decoded: the logits, the distance to the edge, and the flow.

    A network with an attribute ``group`` sees each tile in one orientation, as in `predict_image`.

    Args:
        model: Network with a method ``maps``, such as `gconv_ga.models.ObjectUNet`.
        image: As for `predict_image`.
        tile: As for `predict_image`.
        device: As for `predict_image`.

    Shape:
        - image: ``[C, H, W]``
        - output: ``[classes + 3, H, W]``, float64 from networks with a group

    Raises:
        ValueError: As for `predict_image`.

    Example:
        >>> import torch
        >>> from gconv_ga.models import ObjectUNet
        >>> from gconv_ga.predict import predict_maps
        >>> predict_maps(ObjectUNet(1, 2, width=2, depth=2), torch.zeros(1, 40, 50)).shape
        torch.Size([5, 40, 50])
    """
    network = in_one_orientation(model, outputs=Maps, vectors=2) or Maps(model)
    return torch.cat(list(logit_bands(network, image, tile=tile, device=device)), dim=1)


class ObjectPrediction(NamedTuple):
    """Predicted objects of an image.

    Args:
        objects: The objects.
        labels: Most likely class, ``[H, W]``, int64.
        probability: Probability of that class, ``[H, W]``, float32.

    Example:
        >>> from gconv_ga.predict import ObjectPrediction
        >>> ObjectPrediction._fields
        ('objects', 'labels', 'probability')
    """

    objects: Objects
    labels: Tensor
    probability: Tensor


def predict_objects(
    model: nn.Module,
    image: Tensor | Windows,
    *,
    decoder: Decoder | None = None,
    tile: int = 256,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], Any] | None = None,
) -> ObjectPrediction:
    """Predict the objects of an image: classes tile by tile, as by `predict_image`, cut by `gconv_ga.objects.decode`.

    For a network that is equivariant under rotations by 90 degrees and reflections, the objects of a rotated or
    reflected image are the rotated or reflected objects, to the last pixel. If the network has an attribute ``group``,
    as those of `gconv_ga.models` have, it sees each tile in the same orientation as its rotated copies. If it has none,
    tiles in which two classes are equal up to the rounding of float32 at some pixel are computed again in float64, and
    all tiles if the rules need predicted distances or flows. Memory and time of the decoding grow with the image; see
    `gconv_ga.objects.decode`.

    Args:
        model: As for `predict_image`.
        image: As for `predict_image`.
        decoder: Rules by which regions are cut. If None, ``Decoder()``.
        tile: As for `predict_image`.
        device: As for `predict_image`.
        progress: As for `Tiled`.

    Shape:
        - image: ``[C, H, W]``

    Raises:
        ValueError: As for `predict_image`, or the rules need maps that the network does not predict.

    Example:
        >>> import torch
        >>> from gconv_ga.models import EquivariantUNet
        >>> from gconv_ga.objects import changed_objects
        >>> from gconv_ga.predict import predict_objects
        >>> net = EquivariantUNet(1, 2, group="C4", width=2, depth=2).eval()
        >>> image = torch.randn(1, 40, 50, generator=torch.Generator().manual_seed(0))
        >>> objects, rotated = (predict_objects(net, x).objects for x in (image, image.rot90(1, (-2, -1))))
        >>> changed_objects(objects.labels, rotated.labels, "C4", 1).pixels
        0.0
    """
    from ..objects import decode  # loads scikit-image

    rules = Decoder() if decoder is None else decoder
    network, extra = network_for(model, rules)
    kept: list[tuple[Tensor, ...]] = []
    for band in logit_bands(network, image, tile=tile, device=device, progress=progress):
        logits, maps = band[: len(band) - extra], band[len(band) - extra :]
        kept.append((*classes_of(logits), maps))
    labels, probability, fields = joined(kept)
    return ObjectPrediction(decode(labels, rules, fields if extra else None), labels, probability)


def joined(bands: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor, Tensor]:
    """Join bands of classes ``[h, W]``, of their probabilities, and of maps ``[C, h, W]``."""
    labels, probability, maps = zip(*bands, strict=True)
    return torch.cat(labels), torch.cat(probability), torch.cat(maps, dim=1)


def classes_of(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the most likely class of each pixel and its probability.

    Shape:
        - logits: ``[classes, h, W]``
        - output: ``[h, W]``, int64; ``[h, W]``, float32
    """
    probability, labels = logits.softmax(dim=0).max(dim=0)
    return labels, probability.to(torch.float32)


@dataclass(frozen=True)
class ObjectFiles:
    """The files that `predict_to_file` writes about objects, and the rules by which it finds them.

    Args:
        decoder: Rules by which regions are cut.
        names: Names of the classes by index. If None, the indices.
        pixel_size: Side of a pixel in micrometres, for the table. If None, there are no columns in micrometres.
        geojson: Whether to write ``NAME_objects.geojson``, for QuPath.
        rois: Whether to write ``NAME_rois.zip``, for ImageJ.
        coco: Whether to write ``NAME_coco.json``, with run lengths.

    Raises:
        ValueError: The pixel size is not positive.

    Example:
        >>> from gconv_ga.predict import ObjectFiles
        >>> ObjectFiles(geojson=True).decoder.method
        'watershed'
    """

    decoder: Decoder = field(default_factory=Decoder)
    names: Sequence[str] | None = None
    pixel_size: float | None = None
    geojson: bool = False
    rois: bool = False
    coco: bool = False

    def __post_init__(self) -> None:
        if self.pixel_size is not None and not 0 < self.pixel_size < float("inf"):
            raise invalid("pixel_size", "a positive number of micrometres", self.pixel_size)

    def write(
        self,
        path: Path,
        labels: Tensor,
        probability: Tensor,
        image: ImageFile,
        colors: Sequence[Sequence[int]] | None = None,
        maps: Tensor | None = None,
    ) -> Objects:
        """Find the objects and write their files beside a prediction.

        Args:
            path: File of the prediction, ``NAME.png``.
            labels: Most likely class of each pixel.
            probability: Its probability.
            image: Open image file, for the intensities in its own units.
            colors: Red, green and blue of each class, for GeoJSON.
            maps: Distance and flow, for rules that need them.

        Shape:
            - labels: ``[H, W]``, int64
            - probability: ``[H, W]``
            - maps: ``[3, H, W]``
        """
        # These load scikit-image and scipy, which prediction without objects does not need.
        from ..objects import (
            decode,
            object_table,
            write_coco,
            write_geojson,
            write_labels,
            write_rois,
            write_table,
        )

        def beside(ending: str) -> Path:
            return path.with_name(f"{path.stem}_{ending}")

        objects = decode(labels, self.decoder, maps)
        table = object_table(
            objects, names=self.names, image=image.unnormalized().bands(), probability=probability,
            pixel_size=self.pixel_size,
        )  # fmt: skip
        write_labels(objects, beside("objects.tif"), pixel_size=self.pixel_size)
        write_table(table, beside("objects.csv"))
        if self.geojson:
            write_geojson(objects, beside("objects.geojson"), names=self.names, colors=colors, table=table)
        if self.rois:
            write_rois(objects, beside("rois.zip"), names=self.names)
        if self.coco:
            scores: Any = table["mean_probability"]
            write_coco(objects, beside("coco.json"), file_name=image.path.name, names=self.names, scores=scores)
        return objects
