"""Figures, drawn without pyplot, so that no global state changes and no display is needed.

Requires matplotlib (extra ``plots``, also in ``train``).

Names: `demo_figure`; `Panel` and `panel_figure` for images, kernels and feature maps with signs between them; `Cloud`
and `cloud_figure` for points and their frames; `basis_figure` and `tradeoff_chart` for steerable filters; `chart` for
curves, `learning_curves`; `PALETTE`; `save_figure`.

Example:
    >>> import torch
    >>> from gconv_ga.plots import Panel, panel_figure
    >>> image, kernel = torch.rand(16, 24), torch.tensor([[-1.0, 0.0, 1.0]] * 3)
    >>> figure = panel_figure([[Panel(kernel, "$k$", colours="signed"), "*", Panel(image, "$f$")]])
    >>> figure.axes[0].get_title()
    '$k$'
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._charts import chart, learning_curves
    from ._cloud_figure import Cloud, cloud_figure
    from ._colours import PALETTE
    from ._demo_figure import demo_figure
    from ._filter_figures import basis_figure, tradeoff_chart
    from ._panels import Panel, panel_figure
    from ._saving import save_figure

__all__ = [
    "PALETTE",
    "Cloud",
    "Panel",
    "basis_figure",
    "chart",
    "cloud_figure",
    "demo_figure",
    "learning_curves",
    "panel_figure",
    "save_figure",
    "tradeoff_chart",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_charts": ["chart", "learning_curves"],
        "_cloud_figure": ["Cloud", "cloud_figure"],
        "_colours": ["PALETTE"],
        "_demo_figure": ["demo_figure"],
        "_filter_figures": ["basis_figure", "tradeoff_chart"],
        "_panels": ["Panel", "panel_figure"],
        "_saving": ["save_figure"],
    },
    extra="plots",
)
