"""The finite groups that stand in for the freedom that a cloud leaves: signs, or signs and permutations of axes."""

import math
from functools import lru_cache
from itertools import permutations, product

import torch
from torch import Tensor

from .._validate import invalid


@lru_cache(maxsize=32)
def completions(d: int, proper: bool, lmax: int) -> tuple[Tensor, Tensor]:
    """Changes of axes, and which of them average out the freedom from each level on.

    If the cloud fixes the first ``k`` axes only, the others are chosen at will; averaging over signs of those
    (``lmax=1``) leaves no vector among them, and averaging over signs and permutations (``lmax=3``, the hyperoctahedral
    group; for three axes the octahedral one) leaves no tensor of rank 1 to 3 but the invariant ones.

    Args:
        d: The number of axes.
        proper: Determinant 1 only.
        lmax: 1 or 3.

    Returns:
        Matrices ``[G, d, d]`` that act on axes from the right, and probabilities ``[d, G]``: row ``k`` is uniform on
        those that keep the first ``k`` axes. On the CPU, float64.

    Raises:
        ValueError: They are too many to list.

    Example:
        >>> from gconv_ga.frames._rotations import completions
        >>> matrices, uniform = completions(3, proper=False, lmax=1)
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
    kept = torch.stack([(matrices == eye)[..., :k].flatten(1).all(1) for k in range(d)]).double()
    return matrices, kept / kept.sum(-1, keepdim=True)


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


def reject(y: Tensor, axes: Tensor) -> Tensor:
    """``y - E E^T y``, what of ``y`` is at right angles to the axes ``E``; twice, against rounding.

    Shape:
        - y: ``[P, M, d]``
        - axes: ``[P, d, k]``, orthonormal columns
        - output: ``[P, M, d]``
    """
    if axes.shape[-1]:
        for _ in range(2):
            y = y - (y @ axes) @ axes.mT
    return y


def farthest(squares: Tensor, delta: float, power: int) -> tuple[Tensor, Tensor]:
    """How much each point counts as the farthest, and the square of "the" largest distance.

    ``L = sum q^(p+1) / sum q^p`` (the Lehmer mean) is smooth and at most ``max q``, so that the bump
    ``a_j = relu((q_j / L - (1 - delta)) / delta)^2`` is at least 1 for the largest; ``max`` itself has a kink at ties,
    where the gradient would not be equivariant. Bumps are divided by their sum.

    Args:
        squares: Squared distances; each row has a positive one.
        delta: The width of the bump.
        power: The exponent ``p``.

    Shape:
        - squares: ``[P, M]``
        - output: ``[P, M]``, rows sum to 1, and ``L`` ``[P]``
    """
    # Both L / top and q / L are homogeneous of degree 0 in q, so dividing by a detached number is exact.
    top = squares.detach().amax(-1, keepdim=True)
    ratio = squares / top
    powers = ratio**power
    lehmer = (powers * ratio).sum(-1, keepdim=True) / powers.sum(-1, keepdim=True)
    bump = ((ratio / lehmer - (1 - delta)) / delta).relu().square()
    return bump / bump.sum(-1, keepdim=True), (lehmer * top).squeeze(-1)


def smoothstep(u: Tensor) -> Tensor:
    """0 below 0, 1 above 1, ``u^2 (3 - 2 u)`` between."""
    u = u.clamp(0, 1)
    return u.square() * (3 - 2 * u)


def normalized(v: Tensor) -> Tensor:
    """``v / |v|`` along the last axis."""
    length: Tensor = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return v / length


def any_axis(axes: Tensor) -> Tensor:
    """A unit vector at right angles to the axes: the basis vector farthest from them, made orthogonal.

    Shape:
        - axes: ``[P, d, k]``, k < d
        - output: ``[P, d]``
    """
    basis = torch.eye(axes.shape[1], dtype=axes.dtype, device=axes.device).expand(len(axes), -1, -1)
    rest = reject(basis, axes)
    best = rest.detach().square().sum(-1).argmax(-1)
    axis = rest[torch.arange(len(axes), device=axes.device), best]
    return normalized(axis)


def last_axis(axes: Tensor) -> Tensor:
    """The unit vector that completes ``d - 1`` axes to determinant 1.

    Not by minors: the backward pass of `torch.linalg.det` gives zeros at exactly singular matrices (torch 2.14).

    Shape:
        - axes: ``[P, d, d - 1]``
        - output: ``[P, d]``
    """
    d = axes.shape[1]
    if d == 1:
        return axes.new_ones(len(axes), 1)
    if d == 2:
        return torch.stack((-axes[:, 1, 0], axes[:, 0, 0]), -1)
    if d == 3:
        return torch.linalg.cross(axes[..., 0], axes[..., 1])
    axis = any_axis(axes)
    whole = torch.cat((axes, axis.unsqueeze(-1)), -1)
    sign: Tensor = torch.linalg.det(whole.detach()).sign()
    return axis * sign.unsqueeze(-1)
