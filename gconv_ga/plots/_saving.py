"""How a figure is saved."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


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
