"""Statements 8 and 9: a scaling and a translation of the plane, for which statement 4 fails."""

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


class TranslatedSides(NamedTuple):
    """The two sides of an equation that fails for translations, and the function that the left side equals.

    Args:
        left: ``(L_t k) * (L_t f)``.
        right: ``L_t (k * f)``.
        unmoved: ``k * f``.

    Shape:
        - left: ``[points, points]``, rows along y
        - right: the same
        - unmoved: the same

    Example:
        >>> import torch
        >>> from gconv_ga.identities import TranslatedSides
        >>> sides = TranslatedSides(torch.tensor([[8.0]]), torch.tensor([[2.0]]), torch.tensor([[8.0]]))
        >>> sides.error, sides.corrected_error
        (0.75, 0.0)
    """

    left: Tensor
    right: Tensor
    unmoved: Tensor

    @property
    def error(self) -> float:
        """The error of ``left = right``, ``max |left - right| / max(|left|, |right|)``."""
        return relative_difference(self.left, self.right)

    @property
    def corrected_error(self) -> float:
        """The error of ``left = unmoved``, which is only that of the sampling."""
        return relative_difference(self.left, self.unmoved)


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
    for those with ``|det s| = 1``: rotations, reflections, and scalings with ``s_x s_y = 1``. The map has to be linear
    as well: see `translation_counterexample`. The factor depends on the scale, so a layer that is to be equivariant to
    scalings has to divide its kernels by it.

    A unitary action does not help. Scaling made unitary, ``(U_s f)(y) = |det s|^(-1/2) f(y / s)``, preserves the norm
    of ``L^2``, and still ``(U_s k) * (U_s f) = |det s|^(1/2) U_s (k * f)``.

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
    grid, positions = _grid_and_positions(reach, 8 * max(1, s_x, s_y), samples, points, device)

    def scaled(function: PlaneFunction) -> PlaneFunction:
        return lambda x, y: function(x / s_x, y / s_y)

    left = _correlation(scaled(kernel), scaled(signal), grid, positions, positions)
    right = _correlation(kernel, signal, grid, positions / s_x, positions / s_y)
    factor = ((left * right).sum() / right.square().sum()).item()
    return ScaledSides(left, right, factor, s_x * s_y)


def translation_counterexample(
    shift: tuple[float, float] = (1.0, -0.5),
    kernel: PlaneFunction = asymmetric_kernel,
    signal: PlaneFunction = asymmetric_signal,
    *,
    reach: float | None = None,
    samples: int = 257,
    points: int = 9,
    device: torch.device | str | None = None,
) -> TranslatedSides:
    r"""Statement 9: a translation of kernel and signal does not move their correlation.

    ``(L_t k) * (L_t f) = k * f``, and not ``L_t (k * f)``, where ``(L_t f)(y) = f(y - t)``, ``(k * f)(y) = int k(u)
    f(y + u) du``, and ``k`` and ``f`` are continuous and integrable.

    Why it holds, and why statement 4 fails::

        ((L_t k) * (L_t f))(y) = int k(u - t) f(y + u - t) du
                               = int k(v) f(y + v) dv             v = u - t, so du = dv
                               = (k * f)(y)

    A translation preserves areas, and its action on functions is unitary. Neither is enough for statement 4, which
    needs a **linear** map of the plane with ``|det| = 1``: only for a linear ``g`` is ``g^-1 (y + u) = g^-1 y + g^-1
    u``. If the signal alone is translated, the correlation moves with it, ``k * (L_t f) = L_t (k * f)``: that is why
    convolutional layers are equivariant to translations.

    All integrals are sums over the same square grid, as in `scaling_counterexample`, and nothing is interpolated. With
    the defaults the left side agrees with ``k * f`` to rounding. They are compared at ``points x points`` positions
    ``y`` in ``[-2, 2]^2``.

    Args:
        shift: ``t``, to the right and up.
        kernel: ``k`` as a function of the coordinates ``(x, y)``, continuous and integrable.
        signal: ``f``, likewise.
        reach: Half the side of the square outside which the integrands must vanish. If None, ``8 + max |t|``, which is
            enough for the default functions.
        samples: Number of grid points along a side.
        points: Number of positions along a side at which the sides are compared.
        device: Device to compute on.

    Shape:
        - all three: ``[points, points]``, float64, rows along y

    Raises:
        ValueError: ``shift`` is not a pair of numbers, ``reach`` is not positive, or ``samples`` or ``points`` is less
            than 2.

    Example:
        >>> from gconv_ga.identities import translation_counterexample
        >>> sides = translation_counterexample((1.0, -0.5))
        >>> sides.error > 0.1, sides.corrected_error < 1e-10
        (True, True)

    References:
        The change of variables in an integral.
    """
    t_x, t_y = _checked_shift(shift)
    grid, positions = _grid_and_positions(reach, 8 + max(abs(t_x), abs(t_y)), samples, points, device)

    def translated(function: PlaneFunction) -> PlaneFunction:
        return lambda x, y: function(x - t_x, y - t_y)

    left = _correlation(translated(kernel), translated(signal), grid, positions, positions)
    right = _correlation(kernel, signal, grid, positions - t_x, positions - t_y)
    return TranslatedSides(left, right, _correlation(kernel, signal, grid, positions, positions))


def _grid_and_positions(
    reach: float | None, default_reach: float, samples: int, points: int, device: torch.device | str | None
) -> tuple[Tensor, Tensor]:
    """Return the coordinates ``[samples]`` of the grid along each axis, and those ``[points]`` of the positions."""
    if reach is None:
        reach = default_reach
    elif isinstance(reach, bool) or not isinstance(reach, int | float) or not 0 < reach < math.inf:
        raise invalid("reach", "a positive number or None", reach)
    count = as_int("samples", samples, minimum=2)
    line = torch.linspace(-reach, reach, count, dtype=torch.float64, device=device)
    return line, torch.linspace(-2, 2, as_int("points", points, minimum=2), dtype=torch.float64, device=device)


def _correlation(kernel: PlaneFunction, signal: PlaneFunction, grid: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Return ``int k(u) f(y + u) du`` at the positions ``(xs[j], ys[i])``, by a sum over the square of the grid."""
    u_x, u_y = grid, grid.unsqueeze(1)
    weights = kernel(u_x, u_y) * (grid[1] - grid[0]).square()
    values = [(weights * signal(x + u_x, y + u_y)).sum() for y in ys.tolist() for x in xs.tolist()]
    return torch.stack(values).view(len(ys), -1)


def _checked_scale(scale: float | tuple[float, float]) -> tuple[float, float]:
    """Return ``(s_x, s_y)``."""
    pair = scale if isinstance(scale, tuple | list) else (scale, scale)
    numbers = [s for s in pair if isinstance(s, int | float) and not isinstance(s, bool) and 0 < s < math.inf]
    if len(pair) != 2 or len(numbers) != 2:
        raise invalid("scale", "a positive number or a pair of them", scale)
    return float(numbers[0]), float(numbers[1])


def _checked_shift(shift: tuple[float, float]) -> tuple[float, float]:
    """Return ``(t_x, t_y)``."""
    pair = shift if isinstance(shift, tuple | list) else ()
    numbers = [t for t in pair if isinstance(t, int | float) and not isinstance(t, bool) and math.isfinite(t)]
    if len(pair) != 2 or len(numbers) != 2:
        raise invalid("shift", "a pair of finite numbers", shift)
    return float(numbers[0]), float(numbers[1])
