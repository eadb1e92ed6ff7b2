"""The finite groups that stand in for the freedom that a cloud leaves: signs, or signs and permutations of axes."""

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
