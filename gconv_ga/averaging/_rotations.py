"""Rotations to average over: the finite groups of space, quadratures of SO(2) and SO(3), and random draws of SO(d)."""

import math
from functools import lru_cache
from itertools import permutations, product

import torch
from torch import Tensor

from ._completions import completions

_GOLDEN = (1 + math.sqrt(5)) / 2


def plane_rotations(angles: Tensor) -> Tensor:
    """``[..., 2, 2]`` for angles ``[...]`` in radians, counter-clockwise."""
    c, s = angles.cos(), angles.sin()
    return torch.stack((torch.stack((c, -s), -1), torch.stack((s, c), -1)), -2)


@lru_cache(maxsize=32)
def equal_angles(count: int) -> tuple[Tensor, Tensor]:
    """``count`` equally spaced angles: exact for all frequencies below ``count``.

    Returns:
        Rotations ``[count, 2, 2]`` and weights ``[count]``, float64.
    """
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    return plane_rotations(angles), torch.full((count,), 1 / count, dtype=torch.float64)


@lru_cache(maxsize=1)
def octahedral() -> tuple[Tensor, Tensor]:
    """The 24 rotations of the cube: exact for degrees up to 3."""
    matrices, _ = completions(3, proper=True, lmax=3)
    return matrices, torch.full((24,), 1 / 24, dtype=torch.float64)


@lru_cache(maxsize=1)
def icosahedral() -> tuple[Tensor, Tensor]:
    """The 60 rotations of the icosahedron: exact for degrees up to 5.

    Its 120 unit quaternions (the icosians) come in pairs ``+-q`` that are the same rotation.
    """
    quaternions: list[tuple[float, ...]] = [
        (float(i == 0), float(i == 1), float(i == 2), float(i == 3)) for i in range(4)
    ]
    quaternions += product((0.5, -0.5), repeat=4)
    even = [p for p in permutations(range(4)) if sum(p[i] > p[j] for i in range(4) for j in range(i, 4)) % 2 == 0]
    for a, b, c in product((0.5, -0.5), repeat=3):
        values = (_GOLDEN * a, b, c / _GOLDEN, 0.0)
        quaternions += [tuple(values[i] for i in p) for p in even]
    one_of_two = torch.tensor([q for q in quaternions if next(value for value in q if value) > 0], dtype=torch.float64)
    return quaternion_rotations(one_of_two), torch.full((60,), 1 / 60, dtype=torch.float64)


def quaternion_rotations(q: Tensor) -> Tensor:
    """``[..., 3, 3]`` for unit quaternions ``[..., 4]``, real part first."""
    real, vector = q[..., :1, None], q[..., 1:]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return eye + 2 * real * cross + 2 * cross @ cross


@lru_cache(maxsize=32)
def euler_product(degree: int) -> tuple[Tensor, Tensor]:
    """``R_z(a) R_y(b) R_z(c)``: equal angles in ``a`` and ``c``, Gauss and Legendre's points in ``cos b``.

    Exact for degrees up to ``degree``, with ``(degree + 1)^2 ceil((degree + 1) / 2)`` rotations.
    """
    around, _ = equal_angles(degree + 1)
    nodes, shares = gauss_legendre(degree // 2 + 1)
    about_z = torch.eye(3, dtype=torch.float64).repeat(degree + 1, 1, 1)
    about_z[:, :2, :2] = around
    about_y = torch.eye(3, dtype=torch.float64).repeat(len(nodes), 1, 1)
    sines = (1 - nodes.square()).sqrt()
    about_y[:, 0, 0], about_y[:, 0, 2], about_y[:, 2, 0], about_y[:, 2, 2] = nodes, sines, -sines, nodes
    rotations = about_z[:, None, None] @ about_y[None, :, None] @ about_z[None, None, :]
    weights = (shares / (degree + 1) ** 2).view(1, -1, 1).expand(rotations.shape[:3])
    return rotations.flatten(0, 2), weights.flatten()


def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Nodes in (-1, 1) and weights that sum to 1, by the eigenvalues of the Jacobi matrix (Golub and Welsch)."""
    i = torch.arange(1, count, dtype=torch.float64)
    beside = i / (4 * i.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return nodes, vectors[0].square()


def random_rotations(shape: tuple[int, ...], d: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Rotations ``[*shape, d, d]`` uniform on SO(d), of the dtype and device of ``like``."""
    device = like.device if generator is None else generator.device
    normal = torch.randn(*shape, d, d, generator=generator, dtype=torch.float64, device=device)
    q, r = torch.linalg.qr(normal)
    # Without the signs of the diagonal the draw depends on the algorithm of QR and is not uniform.
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    # A fixed mirror carries the uniform measure of the other half of O(d) onto SO(d).
    mirrored = torch.linalg.det(q) < 0
    q = torch.cat((torch.where(mirrored[..., None, None], -q[..., :1], q[..., :1]), q[..., 1:]), -1)
    return q.to(like)
