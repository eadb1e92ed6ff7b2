"""Draw the basis functions of 5 x 5 kernels for C8, and the trade-off between their number and their error.

Usage: python figures/filters.py [FILE]. The second figure is written beside the first; its name ends in "_tradeoff".
"""

import sys
from pathlib import Path

from gconv_ga.filters import steerable_basis
from gconv_ga.plots import basis_figure, save_figure, tradeoff_chart


def main(path: Path) -> None:
    """Draw both figures."""
    save_figure(basis_figure(steerable_basis("C8", 5), dpi=140), path)
    tradeoff = path.with_stem(f"{path.stem}_tradeoff")
    save_figure(tradeoff_chart([steerable_basis("C8", size) for size in (3, 5, 7)], dpi=140), tradeoff)
    print(path, tradeoff)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
