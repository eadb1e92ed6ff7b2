"""Real molecules: the frame has an element for each symmetry, is exact there, and moves continuously through them."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clouds import BENZENE, CH4, PYRIDINE, on_one_line, padded, read_extxyz
from frame_modules import OUTPUTS, Flat, equivariance_errors
from house import ROOT
from torch import Tensor

from gconv_ga.frames import Frame, FrameAverage, PCAFrame, PointFrame, assert_frame_equivariant

NAMED = {"pyridine": PYRIDINE, "benzene": BENZENE, "methane": CH4}
ORDERS = {"pyridine": 4, "benzene": 24, "methane": 24}  # of C2v, D6h, T_d
ALIKE = 1e-4  # the file has six decimals, and lengths are some angstroms


def symmetries(cloud: Tensor) -> Tensor:
    """The orthogonal maps about the mean that map the points to themselves, found by trying all images of three points.

    Three points (two and a reflection, for a planar cloud) determine the map. It is found by solving linear equations
    and kept if it is orthogonal and maps every point to a point.
    """
    y = cloud - cloud.mean(0)
    planar = int(torch.linalg.matrix_rank(y, atol=1e-6)) == 2
    used = max(
        itertools.combinations(range(len(y)), 2 if planar else 3),
        key=lambda i: float(torch.linalg.svdvals(y[list(i)])[-1]),
    )
    images = torch.tensor(list(itertools.permutations(range(len(y)), len(used))))
    lengths = y.norm(dim=1)
    fits = ((lengths[images] - lengths[list(used)]).abs() < ALIKE).all(1)
    target = y[images[fits]]  # [m, 2 or 3, 3]
    source = y[list(used)].expand_as(target)
    if planar:
        normals = [torch.linalg.cross(part[:, :1], part[:, 1:]) for part in (source, target)]
        source = torch.cat((source, normals[0]), 1).repeat(2, 1, 1)
        target = torch.cat([torch.cat((target, sign * normals[1]), 1) for sign in (1, -1)])
    maps = torch.linalg.solve(source, target).mT  # rows: map @ source_i = target_i
    eye = torch.eye(3, dtype=y.dtype)
    maps = maps[((maps.mT @ maps - eye).abs() < 10 * ALIKE).flatten(1).all(1)]
    misses = torch.cdist(y @ maps.mT, y.expand(len(maps), -1, -1)).amin(2).amax(1)
    return maps[misses < 10 * ALIKE]


def different(rotations: Tensor) -> Tensor:
    """For each matrix the index of the first one equal to it, ``[K]``."""
    return (torch.cdist(rotations.flatten(1), rotations.flatten(1)) < 100 * ALIKE).int().argmax(1)


def molecules(shared_data: Callable[[str], Path]) -> dict[str, Tensor]:
    found = read_extxyz(shared_data("molecules") / "g2.extxyz")
    assert len(found) == 148
    return found


@pytest.mark.parametrize("name", NAMED)
def test_number_of_elements(name: str, device: torch.device) -> None:
    cloud = NAMED[name]
    assert len(symmetries(cloud)) == ORDERS[name]
    for group, order in (("E", ORDERS[name]), ("SE", ORDERS[name] // 2)):
        _, rotations, _, _ = PointFrame(group)(cloud[None].to(device)).elements()
        assert len(different(rotations.cpu()).unique()) == order


def test_elements_of_all_molecules_go_in_orbits_of_their_symmetries(shared_data: Callable[[str], Path]) -> None:
    checked, orders = 0, set()
    for name, cloud in molecules(shared_data).items():
        if on_one_line(cloud):
            continue  # infinitely many symmetries; see test_frames_sets.py
        group = symmetries(cloud)
        _, rotations, _, weights = PointFrame("E")(cloud[None]).elements()
        kinds = different(rotations)
        assert len(kinds.unique()) % len(group) == 0, name
        # Each symmetry maps the weighted set to itself.
        shares = torch.zeros(len(kinds), dtype=weights.dtype).index_add(0, kinds, weights)
        for map_ in group:
            gaps = torch.cdist((map_ @ rotations).flatten(1), rotations.flatten(1))
            assert float(gaps.amin(1).max()) < 100 * ALIKE, name
            torch.testing.assert_close(shares[kinds[gaps.argmin(1)]], shares[kinds], rtol=0, atol=1e-2, msg=name)
        checked, orders = checked + 1, orders | {len(group)}
    assert checked == 112
    assert {1, 2, 4, 12, 24} <= orders


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("name", NAMED)
def test_exact(name: str, rank: int | None, device: torch.device) -> None:
    x = NAMED[name][None].to(device)
    assert_frame_equivariant(PointFrame(), x, group="E", rank=rank, tolerance=1e-12)
    net = FrameAverage(Flat(x.shape[1]).to(x), PointFrame(lmax=3), "points", OUTPUTS)
    assert max(float(error.max()) for error in equivariance_errors(net, x, trials=6).values()) <= 1e-12


def steps_through(frame: Frame, clouds: list[Tensor], device: torch.device, size: float) -> Tensor:
    """The change of the averaged vector of each molecule when its atoms move by ``size`` in a random direction."""
    x, mask = padded(clouds)
    x, mask = x.to(device), mask.to(device)
    inner = Flat(x.shape[1], extra=x.shape[1]).to(x)
    net = FrameAverage(lambda x, mask: inner(x, mask).vector, frame, ("points", "mask"), "vector")
    move = torch.randn(x.shape, dtype=torch.float64).to(x)
    with torch.no_grad():
        before, at, after = (net(x + s * move, mask) for s in (-size, 0, size))
    return torch.maximum((after - at).abs(), (at - before).abs()).amax(1)


@pytest.mark.parametrize("lmax", [1, 3])
def test_continuous_at_all_molecules(lmax: int, device: torch.device, shared_data: Callable[[str], Path]) -> None:
    clouds = list((molecules(shared_data) | NAMED).values())
    near = steps_through(PointFrame(lmax=lmax), clouds, device, 1e-9)
    assert len(near) == 151
    assert float(near.max()) <= 1e-7
    # The changes above are small because the steps are: the same modules do respond to larger ones.
    assert float(steps_through(PointFrame(lmax=lmax), clouds, device, 1e-2).median()) > 1e-3


def test_principal_axes_jump_at_some(device: torch.device, shared_data: Callable[[str], Path]) -> None:
    clouds = list((molecules(shared_data) | NAMED).values())
    assert int((steps_through(PCAFrame(degenerate="ignore"), clouds, device, 1e-9) > 1e-3).sum()) >= 6


def test_pyridine_is_that_of_the_file(shared_data: Callable[[str], Path]) -> None:
    assert torch.equal(molecules(shared_data)["C5H5N"], PYRIDINE)


def test_the_pyridine_example_runs_without_ase() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, for the pictures of the example, is not installed")
    page = (ROOT / "notebooks" / "07_molecules.py").read_text(encoding="utf-8")
    example = page.split("## Does it learn?")[0].replace("# %matplotlib inline", "")
    blocked = 'import sys\nsys.modules["ase"] = None\n'
    ran = subprocess.run(
        [sys.executable, "-c", blocked + example + "\nprint(Phi(pyridine[None])['energy'].shape)"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "elements of the frame of pyridine: [4]" in ran.stdout
    assert ran.stdout.rstrip().endswith("torch.Size([1])")
