"""Figures. They are drawn without pyplot, so nothing global changes and no display is needed.

Needs matplotlib (extra ``plots``, also in ``train``).

Names: `demo_figure`, `save_figure`.

Example:
    >>> import torch
    >>> from gconv_ga.plots import demo_figure
    >>> image, truth = torch.rand(1, 32, 32), torch.zeros(32, 32, dtype=torch.int64)
    >>> labels, labels_of_turned = truth, truth.rot90(1, (-2, -1))
    >>> figure = demo_figure(image, truth, {"C4 U-Net": (labels, labels_of_turned)}, group="C4", element=1)
    >>> len(figure.axes)
    9
"""

from .._validate import missing_extra

try:
    from ._demo import demo_figure
    from ._save import save_figure
except ModuleNotFoundError as error:
    raise missing_extra(__name__, "plots", error) from error

__all__ = ["demo_figure", "save_figure"]
