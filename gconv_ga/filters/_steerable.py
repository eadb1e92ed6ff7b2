"""Free weights to stacks of turned kernels, for groups of any number of rotations."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .._validate import invalid
from ..groups import Group
from ._grid import gather_turned
from ._steerable_basis import SteerableBasis, steerable_basis


@dataclass(frozen=True)
class SteerableFilters:
    """Free weights to turned kernels by a steerable basis, one matrix product each.

    Every weight is a coefficient of a function of `steerable_basis`: the layout is `torch.nn.Conv2d`'s with one axis of
    F coefficients in place of the two of the kernel. Turning replaces each function by its turned version.

    Args:
        group: Any group.
        kernel_size: Rows and columns, the same number.
        max_error: As in `steerable_basis`.
        functions: As in `steerable_basis`.
        smoothing: As in `steerable_basis`.

    Raises:
        ValueError: ``kernel_size`` is not square, or `steerable_basis` refuses an argument.

    Example:
        >>> import torch
        >>> from gconv_ga.groups import C8
        >>> filters = SteerableFilters(C8, (5, 5))
        >>> filters.turn(torch.randn(8, 3, *filters.shape), filters.tables()).shape
        torch.Size([8, 8, 3, 25])
    """

    group: Group
    kernel_size: tuple[int, int]
    max_error: float | None = None
    functions: int | None = None
    smoothing: float = 0.25

    def __post_init__(self) -> None:
        rows, columns = self.kernel_size
        if rows != columns:
            advice = "a kernel that turns by any angle has no longer side"
            raise invalid("kernel_size", "square for filters='steerable'", self.kernel_size, advice)
        _ = self.basis  # refuses what it cannot make

    @property
    def basis(self) -> SteerableBasis:
        """The functions; made once for all filters with these arguments."""
        return steerable_basis(
            self.group,
            self.kernel_size[0],
            max_error=self.max_error,
            functions=self.functions,
            smoothing=self.smoothing,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of one kernel in the weight."""
        return (len(self.basis),)

    def tables(self) -> dict[str, Tensor]:
        """What `turn` and `turn_and_shift` need on the weight's device, by name; new tensors, floats in float64.

        A table that is rounded and then taken to a finer dtype loses digits: make it anew instead.
        """
        group, count = self.group, len(self.basis)
        before = [[group.product(group.inverse(g), h) for h in range(group.order)] for g in range(group.order)]
        functions = self.basis.kernels.flatten(2).transpose(0, 1).contiguous()
        tables = {
            "turned_functions": functions,
            "shift_index": (torch.tensor(before).unsqueeze(2) * count + torch.arange(count)).flatten(1),
        }
        # Matrices as small as those of 3 x 3 kernels multiply twice as fast in pairs, zeros included: measured on a CPU
        # with 2 to 9 functions. At 5 x 5 pairs gain nothing.
        if functions.shape[2] <= 9 and group.order % 2 == 0:
            tables["turned_pairs"] = torch.stack([torch.block_diag(each, each) for each in functions])
        return tables

    def variance(self, channels: float, *, rectified: bool) -> Tensor:
        """For each function the variance of independent normal weights that keeps the variance of what passes through.

        He's rule, with the kernels' output energy on photographs in place of the number of taps: neighbouring pixels
        are alike, so that a smooth kernel's output is far larger than on white noise.

        Args:
            channels: How many input channels (times elements) one output sums over.
            rectified: Whether the input has passed a ReLU, which halves its second moment.

        Shape:
            - output: ``[F]``, float64

        References:
            He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, equation 10.
        """
        energy = self.basis.rectified_energy if rectified else self.basis.energy
        spread = torch.tensor(self.basis.spread, dtype=torch.float64)
        return spread.square() * (2.0 if rectified else 1.0) / (channels * energy)

    def turn(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Every kernel turned by every element, ``L_g k``.

        Shape:
            - weight: ``[C_out, J, F]``
            - output: ``[C_out, |G|, J, k * k]``
        """
        return weight.unsqueeze(1) @ tables["turned_functions"].to(weight.dtype)

    def turn_and_shift(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Every kernel on the group moved by every element, ``(L_g k)(y, h) = k(g^-1 y, g^-1 h)``.

        Shape:
            - weight: ``[C_out, C_in, |G|, F]``
            - output: ``[C_out, |G|, C_in * |G|, k * k]``
        """
        # Shift before the product, while the planes have F numbers and not k^2.
        shifted = gather_turned(weight.flatten(2), tables["shift_index"])
        blocks = tables.get("turned_pairs", tables["turned_functions"]).to(weight.dtype)
        turned = shifted.view(*shifted.shape[:2], -1, blocks.shape[1]) @ blocks
        return turned.view(*turned.shape[:2], -1, self.kernel_size[0] ** 2)
