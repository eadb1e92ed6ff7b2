"""The functions that 5 x 5 kernels of C8 are made of, and what more functions would cost.

Usage: python figures/filters.py [FILE]; the second figure is beside the first, its name ends in "_tradeoff".
"""

import sys
from pathlib import Path

from gconv_ga.filters import steerable_basis
from gconv_ga.plots import basis_figure, save_figure, tradeoff_chart


def main(path: Path) -> None:
    """Draws both."""
    save_figure(basis_figure(steerable_basis("C8", 5), dpi=140), path)
    tradeoff = path.with_stem(f"{path.stem}_tradeoff")
    save_figure(tradeoff_chart([steerable_basis("C8", size) for size in (3, 5, 7)], dpi=140), tradeoff)
    print(path, tradeoff)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
