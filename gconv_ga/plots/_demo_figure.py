"""The picture of the demonstration: what segmenters say of an image, and of the image turned."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .._validate import invalid, wrong_shape
from ..actions import LabelMask, ScalarField
from ..groups import Group, as_group
from ._panels import against_truth, changed, lay_out, picture, region


def demo_figure(
    image: Tensor,
    truth: Tensor,
    predictions: Mapping[str, tuple[Tensor, Tensor]],
    *,
    group: Group | str,
    element: int,
) -> Figure:
    """One image and its prediction by several segmenters, upright and turned, and what the turn changed.

    Rows: the image as it is, the image moved by ``element``, the difference of the two answers. Columns: the image,
    the truth, one for each segmenter. Colours are safe for the colour-blind. At angles off the grid, what comes from
    outside the image is white and counts in no difference.

    Args:
        image: The image, in any units.
        truth: Its true classes; 0 is the background.
        predictions: For each segmenter its name and two label maps: of the image, and of the moved image.
        group: The group or its name.
        element: How the image was moved.

    Shape:
        - image: ``[C, H, W]``
        - truth, and the first map of each pair: ``[H, W]``
        - the second map of each pair: the shape of the moved image

    Raises:
        ValueError: There is no prediction, ``element`` is no element of the group, or a map has the wrong shape.

    Example:
        >>> import torch
        >>> from gconv_ga.plots import demo_figure
        >>> truth = torch.zeros(16, 24, dtype=torch.int64)
        >>> both = {"one": (truth, truth.T), "two": (truth, truth.T)}
        >>> figure = demo_figure(torch.rand(3, 16, 24), truth, both, group="C4", element=1)
        >>> figure.axes[0].get_title()
        'image'
    """
    if not predictions:
        raise invalid("predictions", "at least one segmenter's two label maps", predictions)
    symmetry, move = as_group(group), LabelMask()
    turned_truth = move(truth, symmetry, element)
    for name, maps in predictions.items():
        for labels, shape in zip(maps, (truth.shape, turned_truth.shape), strict=True):
            if labels.shape != shape:
                raise wrong_shape(f"predictions[{name!r}]", f"[H, W] = {tuple(shape)}", labels)
    inside = move(torch.ones_like(truth), symmetry, element)  # 0 where a turn off the grid shows what is not there
    rows = [
        [picture(image), region(truth)],
        [picture(ScalarField()(image, symmetry, element)), region(turned_truth)],
        [],
    ]
    notes = []
    for first, second in predictions.values():
        expected, second = move(first, symmetry, element), second * inside
        rows[0].append(against_truth(first, truth))
        rows[1].append(against_truth(second, turned_truth))
        rows[2].append(changed(second, expected))
        count = int((second != expected).sum())
        notes.append(f"{count:,} pixel{'' if count == 1 else 's'} changed")
    for pixels in rows[1] + rows[2]:
        pixels[inside.numpy() == 0] = 1.0  # white
    several = (
        max(int(labels.max()) for labels in (truth, *(each for pair in predictions.values() for each in pair))) > 1
    )
    return lay_out(["image", "truth", *predictions], rows, notes, several=several)
