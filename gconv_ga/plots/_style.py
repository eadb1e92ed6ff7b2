"""The colours of all figures, and how a figure is saved."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# The colours of Okabe and Ito, which can be told apart with any colour vision.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#222222", "#8a8d92")
"""Blue, orange, green, purple, sky blue, vermilion, black, and a grey of ours."""

INK = "#222222"
PALE = "#c9cacb"

# From negative through zero to positive; darker is larger.
SIGNED = ("#003b5c", "#0072b2", "#ffffff", "#e69f00", "#7a3d00")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, in the size it was made for.

    Args:
        figure: The figure.
        path: Path of the file. Its folder is created if it does not exist.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> from gconv_ga.plots import save_figure
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_figure(Figure(), f"{folder}/empty.png").name
        'empty.png'
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(file)
    return file
