"""Draw frames on symmetric clouds: rounding decides on principal axes, but not on the frame of the farthest points.

The same square is drawn twice with corners perturbed by 1e-9, and methane in two orientations, both rotated back,
with the first axis of each element.
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
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def random_rotation(seed: int) -> Tensor:
    """Return a random orthogonal matrix."""
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator(seed), dtype=torch.float64))
    return q * r.diagonal().sign()


def rotated_back(frame: PCAFrame | PointFrame, rotation: Tensor) -> FrameSet:
    """Return ``g^-1 F(g x)``, which is the same for every ``g`` if ``F`` is a frame."""
    found = frame((METHANE @ rotation.mT)[None])
    return FrameSet(rotation.mT @ found.rotations, found.translations @ rotation, found.weights)


def main(path: Path) -> None:
    """Draw both kinds of frames on the same clouds."""
    squares = [SQUARE + 1e-9 * torch.randn(4, 2, generator=generator(seed), dtype=torch.float64) for seed in (0, 1)]
    rows = []
    for number, (flat, solid) in enumerate(
        (
            (PCAFrame("E", 2, degenerate="ignore"), PCAFrame("E", 3, degenerate="ignore")),
            (PointFrame("E", 2), PointFrame("E", 3)),
        )
    ):
        titles = (
            "no symmetry",
            "a square",
            "the same square",
            "methane:\nfirst axes",
            "methane, rotated\nand rotated back",
        )
        names = titles if number == 0 else ("",) * 5
        edges = [(0, 1), (1, 2), (2, 3), (3, 0)]
        molecule = {"bonds": [(0, 1), (0, 2), (0, 3), (0, 4)], "symbols": "CHHHH"}
        rows.append(
            [
                Cloud(GENERIC, names[0], frames=flat(GENERIC[None])),
                *(
                    Cloud(x, name, frames=flat(x[None]), bonds=edges)
                    for x, name in zip(squares, names[1:3], strict=True)
                ),
                *(
                    Cloud(METHANE, name, frames=rotated_back(solid, random_rotation(seed)), shown_axes=1, **molecule)
                    for seed, name in zip((3, 4), names[3:], strict=True)
                ),
            ]
        )
    labels = ["principal axes", "farthest points"]
    save_figure(cloud_figure(rows, labels=labels, view=(15.0, 10.0), dpi=180), path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
