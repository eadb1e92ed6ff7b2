"""Statement 8: an action that does not keep areas, for which statement 4 fails."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .._validate import as_int, invalid
from ._sides import relative_difference

Function = Callable[[Tensor, Tensor], Tensor]


class ScaledSides(NamedTuple):
    """Both sides of the equation that fails, and by how much.

    Args:
        left: ``(L_s k) * (L_s f)``.
        right: ``L_s (k * f)``.
        factor: The measured ratio: the number ``c`` for which ``c right`` is nearest to ``left`` (least squares).
        determinant: What the derivation says the ratio is.

    Shape:
        - left: ``[points, points]``, rows along y
        - right: the same

    Example:
        >>> import torch
        >>> from gconv_ga.identities import ScaledSides
        >>> ScaledSides(torch.tensor([[8.0]]), torch.tensor([[2.0]]), 4.0, 4.0).error
        0.75
    """

    left: Tensor
    right: Tensor
    factor: float
    determinant: float

    @property
    def error(self) -> float:
        """How wrong ``left = right`` is, ``max |left - right| / max(|left|, |right|)``."""
        return relative_difference(self.left, self.right)

    @property
    def corrected_error(self) -> float:
        """How wrong ``left = determinant * right`` is: only as wrong as the sampling."""
        return relative_difference(self.left, self.determinant * self.right)


def crooked_kernel(x: Tensor, y: Tensor) -> Tensor:
    """A smooth integrable kernel of unit width without any symmetry: a Gaussian times a cubic, about (0.3, -0.2).

    Args:
        x: The first coordinate.
        y: The second.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import crooked_kernel
        >>> crooked_kernel(torch.zeros(1), torch.zeros(1)).shape
        torch.Size([1])
    """
    u, v = x - 0.3, y + 0.2
    return (1 + u - 0.5 * v + 0.4 * u * v * v) * torch.exp(-(u * u + u * v + 1.5 * v * v) / 2)


def crooked_signal(x: Tensor, y: Tensor) -> Tensor:
    """A smooth integrable signal without any symmetry: two Gaussian bumps of different shape and sign.

    Args:
        x: The first coordinate.
        y: The second.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import crooked_signal
        >>> crooked_signal(torch.zeros(1), torch.zeros(1)).shape
        torch.Size([1])
    """
    return torch.exp(-((x - 0.5) ** 2) - (y - 0.2) ** 2 / 2) - 0.6 * torch.exp(-((x + 1) ** 2) / 3 - (y + 0.7) ** 2)


def scaling_counterexample(
    scale: float | tuple[float, float] = 2.0,
    kernel: Function = crooked_kernel,
    signal: Function = crooked_signal,
    *,
    reach: float | None = None,
    samples: int = 257,
    points: int = 9,
    device: torch.device | str | None = None,
) -> ScaledSides:
    r"""Statement 8, an action must not be distributed over a correlation without its determinant.

    Statement 4 reads as if ``L_g`` could be distributed over ``*`` whatever ``g`` is. For a scaling of the plane,
    ``(L_s f)(y) = f(y / s)``, and continuous, integrable ``k`` and ``f`` with ``(k * f)(y) = int k(u) f(y + u) du``::

        ((L_s k) * (L_s f))(y) = int k(u / s) f(y / s + u / s) du
                               = |det s| int k(v) f(y / s + v) dv      v = u / s, so du = |det s| dv
                               = |det s| (L_s (k * f))(y)

    with ``det s = s^2`` in the plane, or ``s_x s_y`` for a scaling of each axis. The equation holds without a factor
    exactly where the action keeps areas: rotations and mirrors do (statement 4), scalings with ``s_x s_y = 1`` do, a
    zoom does not. That is a number only because the action is linear; it changes with the scale, so a layer that is to
    be equivariant under scalings must divide its kernels by it.

    Both integrals are sums over the same square grid, ``samples`` points a side on ``[-reach, reach]``, of the values
    of the functions, with nothing interpolated: the left side samples ``k(u / s)`` and ``f((y + u) / s)``, the right
    side ``k(u)`` and ``f(y / s + u)``. For smooth functions that vanish at the edge such sums converge faster than any
    power of the spacing: with the defaults the corrected sides agree to 1e-11 for ``s`` from 1/3 to 3. They are
    compared at ``points x points`` places ``y`` on ``[-2, 2]``.

    Args:
        scale: ``s``, positive, or ``(s_x, s_y)``.
        kernel: ``k`` as a function of the coordinates ``(x, y)``, continuous and integrable.
        signal: ``f``, likewise.
        reach: Half the side of the square, beyond which both integrands must vanish; None for ``8 max(1, s)``, enough
            for the default functions.
        samples: Points of the grid along a side.
        points: Places along a side where the two sides are compared.
        device: Where to compute.

    Shape:
        - both sides: ``[points, points]``, float64, rows along y

    Raises:
        ValueError: ``scale`` or ``reach`` is not positive, or there are too few samples or points.

    Example:
        >>> from gconv_ga.identities import scaling_counterexample
        >>> sides = scaling_counterexample(2.0)
        >>> print(f"{sides.factor:.6f} {sides.determinant:.0f}", sides.error > 0.7, sides.corrected_error < 1e-10)
        4.000000 4 True True
        >>> scaling_counterexample((2.0, 0.5)).error < 1e-10  # keeps areas: no factor
        True

    References:
        The change of variables in an integral. Sosnovik, Szmaja, Smeulders, "Scale-equivariant steerable networks",
        ICLR 2020, for networks that are equivariant under scalings.
    """
    s_x, s_y = _checked_scale(scale)
    if reach is None:
        reach = 8 * max(1, s_x, s_y)
    elif isinstance(reach, bool) or not isinstance(reach, int | float) or not 0 < reach < math.inf:
        raise invalid("reach", "a positive number or None", reach)
    count = as_int("samples", samples, minimum=2)
    line = torch.linspace(-reach, reach, count, dtype=torch.float64, device=device)
    places = torch.linspace(-2, 2, as_int("points", points, minimum=2), dtype=torch.float64, device=device)
    cell = (2 * reach / (count - 1)) ** 2
    u_x, u_y = line, line.unsqueeze(1)
    scaled_kernel, plain_kernel = kernel(u_x / s_x, u_y / s_y), kernel(u_x, u_y)
    left, right = [], []
    for y in places.tolist():
        for x in places.tolist():
            left.append((scaled_kernel * signal((x + u_x) / s_x, (y + u_y) / s_y)).sum() * cell)
            right.append((plain_kernel * signal(x / s_x + u_x, y / s_y + u_y)).sum() * cell)
    both = (torch.stack(left).view(len(places), -1), torch.stack(right).view(len(places), -1))
    factor = ((both[0] * both[1]).sum() / both[1].square().sum()).item()
    return ScaledSides(*both, factor, s_x * s_y)


def _checked_scale(scale: float | tuple[float, float]) -> tuple[float, float]:
    pair = scale if isinstance(scale, tuple | list) else (scale, scale)
    numbers = [s for s in pair if isinstance(s, int | float) and not isinstance(s, bool) and 0 < s < math.inf]
    if len(pair) != 2 or len(numbers) != 2:
        raise invalid("scale", "a positive number or a pair of them", scale)
    return float(numbers[0]), float(numbers[1])
