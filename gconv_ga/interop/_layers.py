"""Filters and layers that only networks from escnn have: its sampled basis as filters, a fixed blur, a fixed mask."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .._validate import invalid, wrong_shape
from ..groups import C1, Group
from ..nn.authoring import Geometry, correlate, make_geometry


class Table:
    """Fixed numbers that many layers share: a file holds them once, and memory once for each dtype and device.

    Args:
        numbers: The numbers. They are kept in float32 if that loses no digit.
    """

    def __init__(self, numbers: Tensor) -> None:
        numbers = numbers.detach().cpu()
        rounded = numbers.float()
        self.numbers = rounded.clone() if torch.equal(rounded.double(), numbers.double()) else numbers.double()
        self._copies: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, weight: Tensor) -> Tensor:
        """Return the numbers in the dtype and on the device of a weight."""
        if (weight.dtype, weight.device) == (self.numbers.dtype, self.numbers.device):
            return self.numbers
        key = weight.dtype, weight.device
        if key not in self._copies:
            # The copy outlives the caller's modes.
            with torch.inference_mode(False), torch.no_grad():
                copy = self.numbers.to(device=weight.device, dtype=weight.dtype)
            if type(copy) is not Tensor or copy.is_meta or torch.compiler.is_compiling():
                return copy
            self._copies[key] = copy
        return self._copies[key]

    def __deepcopy__(self, memo: Any) -> "Table":
        # The numbers never change.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "_copies": {}}


@dataclass(frozen=True, eq=False)
class _EscnnFilters(ABC):
    """Rotated kernels from free weights by escnn's basis, with one matrix product.

    Every weight is a coefficient of escnn's, so that training continues in the same space of functions, from the same
    point and along the same gradients (for biases, see `FieldBias`). escnn samples its basis in float32, so the kernels
    are rotated to that precision, 1e-7 relative.

    Args:
        group: The group.
        kernel_size: Rows and columns.
        functions: The sampled basis, with elements in our order.
    """

    group: Group
    kernel_size: tuple[int, int]
    functions: Tensor = field(repr=False)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Axes of one kernel in the weight."""

    @property
    def _energy(self) -> float:
        """The output energy per input channel of white noise under kernels with independent weights of variance 1."""
        return float(self.functions.double().square().sum()) / self.group.order

    def variance(self, channels: float, *, rectified: bool) -> float:
        """Return the variance of independent normal weights that preserves the variance of white noise (He).

        Args:
            channels: Number of input channels (times elements) that one output sums over.
            rectified: Whether the input has passed a ReLU, which halves its second moment.

        References:
            He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, equation 10.
        """
        return (2.0 if rectified else 1.0) / (channels * self._energy)


class OnePlaneFilters(_EscnnFilters):
    """Filters for kernels of one plane: on images, or on feature maps whose orientations do not mix.

    Shape:
        - functions: ``[F, |G|, kh * kw]``
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Axes of one kernel in the weight."""
        return (len(self.functions),)

    def tables(self) -> dict[str, Tensor]:
        """Return the tables that `rotate` and `rotate_and_shift` need on the weight's device, as new CPU tensors."""
        shifts = [self.group.products[self.group.inverse(g)] for g in range(self.group.order)]
        rotated = self.functions.double().transpose(0, 1).contiguous()
        return {"rotated_functions": rotated, "shift_index": torch.tensor(shifts)}

    def rotate(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Rotate every kernel by every element.

        Shape:
            - weight: ``[C_out, J, F]``
            - output: ``[C_out, |G|, J, kh * kw]``
        """
        return weight.unsqueeze(1) @ tables["rotated_functions"].to(weight.dtype)

    def rotate_and_shift(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Move every kernel on the group by every element.

        Shape:
            - weight: ``[C_out, C_in, |G|, F]``
            - output: ``[C_out, |G|, C_in * |G|, kh * kw]``
        """
        shifted = weight[:, :, tables["shift_index"]].transpose(1, 2).flatten(2, 3)
        return shifted @ tables["rotated_functions"].to(weight.dtype)


@dataclass(frozen=True, eq=False)
class AllPlanesFilters(_EscnnFilters):
    """Filters for kernels with a plane for every element, from feature maps on the group to others.

    escnn's functions extend over all planes. There are ``F |G|`` of them, so the weight's element axis counts functions
    here.

    Shape:
        - functions: ``[F * |G|, |G|, |G|, kh * kw]``, of the output's element, then the input's
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Axes of one kernel in the weight, after the element axis."""
        return (len(self.functions) // self.group.order,)

    @property
    def _energy(self) -> float:
        # The channels that `variance` takes are counted with the elements.
        return super()._energy / self.group.order

    _table: Table = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # For large groups this is by far the largest part of a network: 51 MB for C36 and 5 x 5 kernels.
        object.__setattr__(self, "_table", Table(self.functions))
        object.__setattr__(self, "functions", self._table.numbers)

    def tables(self) -> dict[str, Tensor]:
        """Return no table: layers share the one of this object."""
        return {}

    def rotate(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Refuse kernels of one plane, which are not made of these functions.

        Raises:
            ValueError: Always.
        """
        raise invalid("filters", "made for kernels of one plane", self, "these are for a GroupConv2d with all its taps")

    def rotate_and_shift(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Move every kernel on the group by every element.

        Shape:
            - weight: ``[C_out, C_in, |G|, F]``
            - output: ``[C_out, |G|, C_in * |G|, kh * kw]``
        """
        kernels = weight.flatten(2) @ self._table.like(weight).flatten(1)
        order = self.group.order
        return kernels.unflatten(2, (order, order, -1)).transpose(1, 2).flatten(2, 3)


class FieldBias(nn.Module):
    """Add one number to each field, ``f + scale * bias``; by ``scale`` it is trained as escnn trains it.

    escnn's parameter is the coefficient of the constant function of norm 1 on the group, so ``scale`` is
    ``1 / sqrt(|G|)``. With the number itself as the parameter, gradients would be ``sqrt(|G|)`` times as large.

    Args:
        bias: The coefficients.
        scale: What they are multiplied by.

    Shape:
        - bias: ``[C]``
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The input has other axes.
    """

    def __init__(self, bias: Tensor, scale: float) -> None:
        super().__init__()
        self.bias, self.scale = nn.Parameter(bias), scale

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 5 or input.shape[1] != len(self.bias):
            raise wrong_shape("input", f"[B, C={len(self.bias)}, |G|, H, W]", input)
        # Under autocast the sum would be float32 otherwise.
        return input + (self.scale * self.bias).to(input.dtype).view(-1, 1, 1, 1)

    def extra_repr(self) -> str:
        return f"{len(self.bias)}, scale={self.scale:.6g}"


class Spread(nn.Module):
    """Repeat an image for every group element, so that each orientation can sample its own grid.

    Args:
        group: The group.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The input has other axes.
    """

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4:
            raise wrong_shape("input", "[B, C, H, W]", input)
        return input.unsqueeze(2).expand(-1, -1, self.group.order, -1, -1)

    def extra_repr(self) -> str:
        return repr(self.group.name)


class SharedGrid(nn.Module):
    """Pass images on, and warn at sizes at which the single grid of the next layer is not equivariant.

    Args:
        geometry: The windows of the next layer.

    Shape:
        - input and output: ``[B, C, H, W]``
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry

    def forward(self, input: Tensor) -> Tensor:
        self.geometry.warn_if_misaligned(*input.shape[-2:])
        return input

    def extra_repr(self) -> str:
        rows = self.geometry.rows
        return f"kernel={rows.kernel}, stride={rows.stride}, padding={rows.low}, group={self.geometry.group.name!r}"


class Blur(nn.Module):
    """Blur every feature map with one fixed kernel and a stride: the second half of an antialiased pool.

    Args:
        kernel: The kernel.
        stride: For rows and columns.
        padding: For rows and columns.
        group: The group of a feature map on the group. If None, the input is an image.
        sampling: "per_orientation" or "shared", as for `LiftingConv2d`.

    Shape:
        - kernel: ``[k, k]``
        - input: ``[B, C, H, W]``, or ``[B, C, |G|, H, W]`` with a group
        - output: ``[B, C, H', W']``, or ``[B, C, |G|, H', W']``

    Raises:
        ValueError: The input has other axes.
    """

    kernel: Tensor

    def __init__(
        self, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int], group: Group | None, sampling: str
    ) -> None:
        super().__init__()
        self.group, self.stride, self.padding, self.sampling = group, stride, padding, sampling
        size = (kernel.shape[0], kernel.shape[1])
        self.geometry = make_geometry(group or C1, size, stride, padding, (1, 1), sampling == "shared")
        self.register_buffer("kernel", kernel.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        order = 1 if self.group is None else self.group.order
        if self.group is None and input.ndim != 4:
            raise wrong_shape("input", "[B, C, H, W]", input)
        if self.group is not None and (input.ndim != 5 or input.shape[2] != order):
            raise wrong_shape("input", f"[B, C, |G|={order}, H, W]", input)
        maps = input.flatten(0, 1).reshape(-1, order, 1, *input.shape[-2:])
        kernels = self.kernel.flatten().expand(1, order, 1, -1)
        blurred = correlate(maps, kernels, None, self.geometry, 1, "zeros")
        return blurred.reshape(*input.shape[:-2], *blurred.shape[-2:])

    def extra_repr(self) -> str:
        size = tuple(self.kernel.shape)
        text = f"kernel_size={size}, stride={self.stride}, padding={self.padding}"
        return text if self.group is None else text + f", group={self.group.name!r}, sampling={self.sampling!r}"


class Mask(nn.Module):
    """Multiply an image or feature map by a fixed mask, of one size.

    Args:
        mask: The factors, one for each pixel.

    Shape:
        - mask: ``[S, S]``
        - input and output: ``[..., S, S]``

    Raises:
        ValueError: The input is of another size.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-2:] != self.mask.shape:
            raise wrong_shape("input", f"[..., H={self.mask.shape[0]}, W={self.mask.shape[1]}]", input)
        return torch.mul(input, self.mask)

    def extra_repr(self) -> str:
        return f"size={tuple(self.mask.shape)}"
