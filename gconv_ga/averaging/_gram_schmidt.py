"""Steps of a Gram-Schmidt process that chooses among points smoothly."""

import torch
from torch import Tensor


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
