"""Frames on symmetric clouds: principal axes are decided by the last bit, the frame of the farthest points is not.

The same square twice, with corners off by less than 1e-9; methane in two poses, drawn in one.
Usage: python figures/frames.py [FILE]
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from gconv_ga.frames import FrameSet, PCAFrame, PointFrame
from gconv_ga.plots import Cloud, cloud_figure, save_figure

SQUARE = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)
GENERIC = torch.tensor([[-1.2, -0.5], [-0.7, 0.6], [0.1, -0.2], [0.5, 0.75], [1.4, 0.1]], dtype=torch.float64)
METHANE = torch.tensor([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]], dtype=torch.float64) * 0.75


def generator(seed: int) -> torch.Generator:
    """A generator of its own for each drawing."""
    return torch.Generator().manual_seed(seed)


def random_turn(seed: int) -> Tensor:
    """An orthogonal matrix."""
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator(seed), dtype=torch.float64))
    return q * r.diagonal().sign()


def turned_back(frame: PCAFrame | PointFrame, turn: Tensor) -> FrameSet:
    """``g^-1 F(g x)``: for a frame the same whatever ``g``."""
    found = frame((METHANE @ turn.mT)[None])
    return FrameSet(turn.mT @ found.rotations, found.translations @ turn, found.weights)


def main(path: Path) -> None:
    """Draws both kinds of frames on the same clouds."""
    squares = [SQUARE + 1e-9 * torch.randn(4, 2, generator=generator(seed), dtype=torch.float64) for seed in (0, 1)]
    rows = []
    for number, (flat, solid) in enumerate(
        (
            (PCAFrame("E", 2, degenerate="ignore"), PCAFrame("E", 3, degenerate="ignore")),
            (PointFrame("E", 2), PointFrame("E", 3)),
        )
    ):
        titles = ("no symmetry", "a square", "the same square", "methane", "methane, turned\nand turned back")
        names = titles if number == 0 else ("",) * 5
        edges = [(0, 1), (1, 2), (2, 3), (3, 0)]
        bonds = [(0, 1), (0, 2), (0, 3), (0, 4)]
        rows.append(
            [
                Cloud(GENERIC, names[0], frames=flat(GENERIC[None])),
                *(
                    Cloud(x, name, frames=flat(x[None]), bonds=edges)
                    for x, name in zip(squares, names[1:3], strict=True)
                ),
                *(
                    Cloud(METHANE, name, frames=turned_back(solid, random_turn(seed)), bonds=bonds, symbols="CHHHH")
                    for seed, name in zip((3, 4), names[3:], strict=True)
                ),
            ]
        )
    save_figure(cloud_figure(rows, labels=["principal axes", "farthest points"], dpi=180), path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
