"""Sets of orthogonal matrices that do not depend on the input: signed permutations, quadrature rules, random draws."""

import math
from functools import lru_cache
from itertools import permutations, product

import torch
from torch import Tensor

from .._validate import invalid


@lru_cache(maxsize=32)
def signed_permutations(d: int, proper: bool, lmax: int) -> tuple[Tensor, Tensor]:
    """Return changes of axes, and the distributions over them that average out freely chosen axes.

    If a cloud determines only the first ``k`` axes, the others are arbitrary. Averaging over their signs (``lmax=1``)
    leaves no invariant vector among them. Averaging over signs and permutations (``lmax=3``, the hyperoctahedral group;
    the octahedral group for three axes) leaves no tensor of rank 1 to 3 but the invariant ones.

    Args:
        d: Number of axes.
        proper: If True, only matrices of determinant 1.
        lmax: 1 for signs, 3 for signs and permutations.

    Returns:
        Matrices ``[G, d, d]`` that act on axes from the right, and probabilities ``[d, G]``: row ``k`` is uniform on
        the matrices that keep the first ``k`` axes. On the CPU, float64.

    Raises:
        ValueError: There are too many to list.

    Example:
        >>> from gconv_ga.frames._rotations import signed_permutations
        >>> matrices, uniform = signed_permutations(3, proper=False, lmax=1)
        >>> matrices.shape, (uniform > 0).sum(-1).tolist()
        (torch.Size([8, 3, 3]), [8, 4, 2])
    """
    orders = permutations(range(d)) if lmax > 1 else [tuple(range(d))]
    limit = 12 if lmax == 1 else 5
    if d > limit:
        raise invalid("d", f"at most {limit} with lmax={lmax}", d, "the signs of all axes are too many to list")
    eye = torch.eye(d, dtype=torch.float64)
    signs = torch.tensor(list(product((1.0, -1.0), repeat=d)), dtype=torch.float64)
    matrices = torch.cat([eye[list(order)] * signs.unsqueeze(1) for order in orders])
    if proper:
        matrices = matrices[torch.linalg.det(matrices) > 0]
    keeps_first = torch.stack([(matrices == eye)[..., :k].flatten(1).all(1) for k in range(d)]).double()
    return matrices, keeps_first / keeps_first.sum(-1, keepdim=True)


@lru_cache(maxsize=32)
def equal_angles(count: int) -> tuple[Tensor, Tensor]:
    """Return the rule of ``count`` equally spaced angles, exact for all frequencies below ``count``.

    Returns:
        Rotations ``[count, 2, 2]`` and weights ``[count]``, float64.
    """
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    cos, sin = angles.cos(), angles.sin()
    rotations = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)
    return rotations, torch.full((count,), 1 / count, dtype=torch.float64)


@lru_cache(maxsize=1)
def octahedral() -> tuple[Tensor, Tensor]:
    """Return the 24 rotations of the cube, a rule that is exact for degrees up to 3."""
    matrices, _ = signed_permutations(3, proper=True, lmax=3)
    return matrices, torch.full((24,), 1 / 24, dtype=torch.float64)


@lru_cache(maxsize=1)
def icosahedral() -> tuple[Tensor, Tensor]:
    """Return the 60 rotations of the icosahedron, a rule that is exact for degrees up to 5.

    They are given by 120 unit quaternions (the icosians), in pairs ``+-q`` that are the same rotation.
    """
    golden = (1 + math.sqrt(5)) / 2
    quaternions: list[tuple[float, ...]] = [
        (float(i == 0), float(i == 1), float(i == 2), float(i == 3)) for i in range(4)
    ]
    quaternions += product((0.5, -0.5), repeat=4)
    even = [p for p in permutations(range(4)) if sum(p[i] > p[j] for i in range(4) for j in range(i, 4)) % 2 == 0]
    for a, b, c in product((0.5, -0.5), repeat=3):
        values = (golden * a, b, c / golden, 0.0)
        quaternions += [tuple(values[i] for i in p) for p in even]
    one_of_each_pair = [q for q in quaternions if next(value for value in q if value) > 0]
    rotations = _quaternion_rotations(torch.tensor(one_of_each_pair, dtype=torch.float64))
    return rotations, torch.full((60,), 1 / 60, dtype=torch.float64)


def _quaternion_rotations(q: Tensor) -> Tensor:
    """Return the rotations ``[..., 3, 3]`` of unit quaternions ``[..., 4]``, real part first."""
    real, vector = q[..., :1, None], q[..., 1:]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return eye + 2 * real * cross + 2 * cross @ cross


@lru_cache(maxsize=32)
def euler_product(degree: int) -> tuple[Tensor, Tensor]:
    """Return the product rule in Euler angles, ``R_z(a) R_y(b) R_z(c)``, exact for degrees up to ``degree``.

    The angles ``a`` and ``c`` are equally spaced, and ``cos b`` are Gauss-Legendre nodes: in all
    ``(degree + 1)^2 ceil((degree + 1) / 2)`` rotations.
    """
    around, _ = equal_angles(degree + 1)
    nodes, shares = _gauss_legendre(degree // 2 + 1)
    about_z = torch.eye(3, dtype=torch.float64).repeat(degree + 1, 1, 1)
    about_z[:, :2, :2] = around
    about_y = torch.eye(3, dtype=torch.float64).repeat(len(nodes), 1, 1)
    sines = (1 - nodes.square()).sqrt()
    about_y[:, 0, 0], about_y[:, 0, 2], about_y[:, 2, 0], about_y[:, 2, 2] = nodes, sines, -sines, nodes
    rotations = about_z[:, None, None] @ about_y[None, :, None] @ about_z[None, None, :]
    weights = (shares / (degree + 1) ** 2).view(1, -1, 1).expand(rotations.shape[:3])
    return rotations.flatten(0, 2), weights.flatten()


def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Return nodes in (-1, 1) and weights that sum to 1, from the Jacobi matrix (Golub and Welsch)."""
    i = torch.arange(1, count, dtype=torch.float64)
    off_diagonal = i / (4 * i.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return nodes, vectors[0].square()


def random_rotations(shape: tuple[int, ...], d: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw rotations ``[*shape, d, d]`` uniformly from SO(d), with the dtype and device of ``like``."""
    device = like.device if generator is None else generator.device
    normal = torch.randn(*shape, d, d, generator=generator, dtype=torch.float64, device=device)
    q, r = torch.linalg.qr(normal)
    # Without the signs of the diagonal the draw depends on the algorithm of QR and is not uniform.
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    # Changing the sign of one column maps the uniform measure on the other half of O(d) to that on SO(d).
    reflects = torch.linalg.det(q) < 0
    q = torch.cat((torch.where(reflects[..., None, None], -q[..., :1], q[..., :1]), q[..., 1:]), -1)
    return q.to(like)
