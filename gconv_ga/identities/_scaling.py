"""Statement 8: a scaling of the plane, for which statement 4 fails."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .._validate import as_int, invalid
from ._sides import relative_difference

PlaneFunction = Callable[[Tensor, Tensor], Tensor]
"""A function of the coordinates ``(x, y)``, applied elementwise."""


class ScaledSides(NamedTuple):
    """The two sides of an equation that fails, and the factor between them.

    Args:
        left: ``(L_s k) * (L_s f)``.
        right: ``L_s (k * f)``.
        factor: The measured ratio: the number ``c`` for which ``c right`` is closest to ``left`` (least squares).
        determinant: The ratio according to the derivation.

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
        """The error of ``left = right``, ``max |left - right| / max(|left|, |right|)``."""
        return relative_difference(self.left, self.right)

    @property
    def corrected_error(self) -> float:
        """The error of ``left = determinant * right``, which is only that of the sampling."""
        return relative_difference(self.left, self.determinant * self.right)


def asymmetric_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Evaluate a smooth, integrable kernel without any symmetry: a Gaussian times a cubic, centred at (0.3, -0.2).

    Args:
        x: First coordinates.
        y: Second coordinates.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import asymmetric_kernel
        >>> asymmetric_kernel(torch.zeros(1), torch.zeros(1)).shape
        torch.Size([1])
    """
    u, v = x - 0.3, y + 0.2
    return (1 + u - 0.5 * v + 0.4 * u * v * v) * torch.exp(-(u * u + u * v + 1.5 * v * v) / 2)


def asymmetric_signal(x: Tensor, y: Tensor) -> Tensor:
    """Evaluate a smooth, integrable signal without any symmetry: two Gaussian bumps of different shape and sign.

    Args:
        x: First coordinates.
        y: Second coordinates.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import asymmetric_signal
        >>> asymmetric_signal(torch.zeros(1), torch.zeros(1)).shape
        torch.Size([1])
    """
    return torch.exp(-((x - 0.5) ** 2) - (y - 0.2) ** 2 / 2) - 0.6 * torch.exp(-((x + 1) ** 2) / 3 - (y + 0.7) ** 2)


def scaling_counterexample(
    scale: float | tuple[float, float] = 2.0,
    kernel: PlaneFunction = asymmetric_kernel,
    signal: PlaneFunction = asymmetric_signal,
    *,
    reach: float | None = None,
    samples: int = 257,
    points: int = 9,
    device: torch.device | str | None = None,
) -> ScaledSides:
    r"""Statement 8: a scaling of the plane commutes with correlation only up to its determinant.

    ``(L_s k) * (L_s f) = |det s| L_s (k * f)``, where ``(L_s f)(y) = f(y / s)``, ``(k * f)(y) = int k(u) f(y + u) du``,
    and ``k`` and ``f`` are continuous and integrable.

    Why it holds, and why statement 4 (the same without the factor) fails::

        ((L_s k) * (L_s f))(y) = int k(u / s) f(y / s + u / s) du
                               = |det s| int k(v) f(y / s + v) dv      v = u / s, so du = |det s| dv
                               = |det s| (L_s (k * f))(y)

    with ``det s = s^2`` in the plane, or ``s_x s_y`` for a scaling of each axis. Among linear maps, statement 4 holds
    for those that preserve areas, ``|det s| = 1``: rotations, reflections, and scalings with ``s_x s_y = 1``. (That a
    map preserves areas is not enough if it is not linear: translations do, and statement 4 fails for them.) The factor
    depends on the scale, so a layer that is to be equivariant to scalings has to divide its kernels by it.

    Both integrals are sums over the same square grid, ``samples`` points a side on ``[-reach, reach]``. The functions
    are evaluated there, and nothing is interpolated: the left side uses ``k(u / s)`` and ``f((y + u) / s)``, the right
    side ``k(u)`` and ``f(y / s + u)``. For smooth functions that vanish at the border such sums converge faster than
    any power of the spacing. With the defaults the corrected sides agree to 1e-11 for ``s`` from 1/3 to 3. They are
    compared at ``points x points`` positions ``y`` in ``[-2, 2]^2``.

    Args:
        scale: ``s``, a positive number, or the pair ``(s_x, s_y)``.
        kernel: ``k`` as a function of the coordinates ``(x, y)``, continuous and integrable.
        signal: ``f``, likewise.
        reach: Half the side of the square outside which both integrands must vanish. If None, ``8 max(1, s)``, which is
            enough for the default functions.
        samples: Number of grid points along a side.
        points: Number of positions along a side at which the two sides are compared.
        device: Device to compute on.

    Shape:
        - both sides: ``[points, points]``, float64, rows along y

    Raises:
        ValueError: ``scale`` or ``reach`` is not positive, or ``samples`` or ``points`` is less than 2.

    Example:
        >>> from gconv_ga.identities import scaling_counterexample
        >>> sides = scaling_counterexample(2.0)
        >>> print(f"{sides.factor:.6f} {sides.determinant:.0f}", sides.error > 0.7, sides.corrected_error < 1e-10)
        4.000000 4 True True
        >>> scaling_counterexample((2.0, 0.5)).error < 1e-10  # preserves areas: no factor
        True

    References:
        The change of variables in an integral. Sosnovik, Szmaja, Smeulders, "Scale-equivariant steerable networks",
        ICLR 2020, for networks that are equivariant to scalings.
    """
    s_x, s_y = _checked_scale(scale)
    if reach is None:
        reach = 8 * max(1, s_x, s_y)
    elif isinstance(reach, bool) or not isinstance(reach, int | float) or not 0 < reach < math.inf:
        raise invalid("reach", "a positive number or None", reach)
    count = as_int("samples", samples, minimum=2)
    line = torch.linspace(-reach, reach, count, dtype=torch.float64, device=device)
    positions = torch.linspace(-2, 2, as_int("points", points, minimum=2), dtype=torch.float64, device=device)
    area = (2 * reach / (count - 1)) ** 2
    u_x, u_y = line, line.unsqueeze(1)
    scaled_kernel, plain_kernel = kernel(u_x / s_x, u_y / s_y), kernel(u_x, u_y)
    left_values, right_values = [], []
    for y in positions.tolist():
        for x in positions.tolist():
            left_values.append((scaled_kernel * signal((x + u_x) / s_x, (y + u_y) / s_y)).sum() * area)
            right_values.append((plain_kernel * signal(x / s_x + u_x, y / s_y + u_y)).sum() * area)
    left, right = (torch.stack(values).view(len(positions), -1) for values in (left_values, right_values))
    factor = ((left * right).sum() / right.square().sum()).item()
    return ScaledSides(left, right, factor, s_x * s_y)


def _checked_scale(scale: float | tuple[float, float]) -> tuple[float, float]:
    """Return ``(s_x, s_y)``."""
    pair = scale if isinstance(scale, tuple | list) else (scale, scale)
    numbers = [s for s in pair if isinstance(s, int | float) and not isinstance(s, bool) and 0 < s < math.inf]
    if len(pair) != 2 or len(numbers) != 2:
        raise invalid("scale", "a positive number or a pair of them", scale)
    return float(numbers[0]), float(numbers[1])
