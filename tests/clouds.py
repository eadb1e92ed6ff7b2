"""Point clouds whose symmetry breaks or strains frames, and a reader for molecules in files."""

import math
import re
from itertools import product
from pathlib import Path

import torch
from torch import Tensor


def rows(text: str) -> Tensor:
    """Parse coordinates, one point a line."""
    return torch.tensor([[float(v) for v in line.split()] for line in text.strip().splitlines()], dtype=torch.float64)


def polygon(n: int) -> Tensor:
    """The corners of a regular polygon."""
    angles = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    return torch.stack((angles.cos(), angles.sin()), -1)


def corners(d: int) -> Tensor:
    """The corners of a square, a cube, a tesseract."""
    return torch.tensor(list(product((-1.0, 1.0), repeat=d)), dtype=torch.float64)


def axes(d: int) -> Tensor:
    """The corners of a cross-polytope; for three dimensions the octahedron."""
    return torch.cat((torch.eye(d, dtype=torch.float64), -torch.eye(d, dtype=torch.float64)))


CH4 = rows(
    "0 0 0\n.629118 .629118 .629118\n-.629118 -.629118 .629118\n.629118 -.629118 -.629118\n-.629118 .629118 -.629118"
)
H2O = rows("0 0 .119262\n0 .763239 -.477047\n0 -.763239 -.477047")
CO2 = rows("0 0 0\n0 0 1.178658\n0 0 -1.178658")
HCN = rows("0 0 -.511747\n0 0 .664461\n0 0 -1.580746")
PYRIDINE = rows("""
0 0 1.424672
0 0 -1.386178
0 1.144277 .720306
0 -1.144277 .720306
0 -1.196404 -.672917
0 1.196404 -.672917
0 0 -2.473052
0 2.060723 1.307477
0 -2.060723 1.307477
0 -2.155293 -1.183103
0 2.155293 -1.183103
""")
FLAT_HEXAGON = torch.cat((polygon(6), torch.zeros(6, 1, dtype=torch.float64)), -1)
BENZENE = torch.cat((1.395248 * FLAT_HEXAGON, 2.48236 * FLAT_HEXAGON))
NH3 = torch.cat((rows("0 0 .116489"), torch.cat((0.939731 * polygon(3), torch.full((3, 1), -0.271808).double()), -1)))
SF6 = torch.cat((torch.zeros(1, 3, dtype=torch.float64), 1.56 * axes(3)))
# A screw of four atoms: no reflection maps it to itself.
CHIRAL = rows("1 .2 0\n0 1.3 .4\n-.9 0 1\n.1 -1.1 1.7")
GENERIC = rows("1.1 -.3 .2\n-.7 .9 .5\n.2 -1.3 -.8\n.6 .4 1.7\n-1.2 -.5 -.1\n.3 .8 -1.0")

THREE = {
    "one point": rows("1 2 3"),
    "two coincident points": rows("1.3 1.3 1.3\n1.3 1.3 1.3"),
    "five coincident points": rows("0.1 0.2 0.3").repeat(5, 1),
    "two points": rows("0 0 1\n0 .5 2"),
    "CO2": CO2,
    "HCN": HCN,
    "H2O": H2O,
    "NH3": NH3,
    "CH4": CH4,
    "pyridine": PYRIDINE,
    "benzene": BENZENE,
    "SF6": SF6,
    "cube": corners(3),
    "two coincident of four": rows("1 2 3\n1 2 3\n0 0 0\n2 1 0"),
    "chiral": CHIRAL,
    "generic": GENERIC,
}
OTHER_DIMENSIONS = {
    "point d=1": rows("2"),
    "points d=1": rows("2\n-1\n.5"),
    "pair d=1": rows("1\n-1"),
    "point d=2": rows("1 2"),
    "line d=2": rows("1 2\n2 4\n5 10"),
    "square d=2": polygon(4),
    "hexagon d=2": polygon(6),
    "generic d=2": rows("1 0\n-.3 .8\n.4 -1.2"),
    "point d=4": rows("1 2 3 4"),
    "line d=4": rows("0 1 2 0\n0 2 4 0\n0 -3 -6 0"),
    "plane d=4": rows("1 0 1 0\n0 2 0 2\n-1 -1 -1 -1\n2 1 2 1"),
    "tesseract d=4": corners(4),
    "cross-polytope d=4": axes(4),
    "generic d=4": torch.cat((GENERIC, GENERIC[:, :1] * GENERIC[:, 1:2]), -1),
}
LINES_OR_POINTS = ("one point", "two coincident points", "five coincident points", "two points", "CO2", "HCN")


def icosahedron() -> Tensor:
    """The twelve corners of the icosahedron."""
    golden = (1 + math.sqrt(5)) / 2
    first = [(0.0, a, b * golden) for a, b in product((-1.0, 1.0), repeat=2)]
    points = [point[i:] + point[:i] for point in first for i in range(3)]
    return torch.tensor(points, dtype=torch.float64)


def read_extxyz(path: Path) -> dict[str, Tensor]:
    """Return the molecules of an extended XYZ file by name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    molecules, start = {}, 0
    while start < len(lines):
        count = int(lines[start])
        name = re.search(r'name="?([^"\s]+)', lines[start + 1])
        atoms = [line.split()[1:4] for line in lines[start + 2 : start + 2 + count]]
        molecules[name[1] if name else str(start)] = rows("\n".join(" ".join(atom) for atom in atoms))
        start += 2 + count
    return molecules


def padded(clouds: list[Tensor], fill: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return clouds of different sizes as one batch, and its mask."""
    size = max(len(cloud) for cloud in clouds)
    batch = torch.full((len(clouds), size, clouds[0].shape[-1]), fill, dtype=clouds[0].dtype)
    mask = torch.zeros(len(clouds), size, dtype=torch.bool)
    for row, cloud in enumerate(clouds):
        batch[row, : len(cloud)] = cloud
        mask[row, : len(cloud)] = True
    return batch, mask


def on_one_line(cloud: Tensor) -> bool:
    """Return True if all points lie on a line (or in one place)."""
    y = cloud - cloud.mean(0)
    return bool(torch.linalg.matrix_rank(y, atol=1e-9) <= 1)
