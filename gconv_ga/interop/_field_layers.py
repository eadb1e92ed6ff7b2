"""Layers on any fields of escnn, with its channels: mixed, vector and quotient fields, which no other layer takes."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._validate import wrong_shape
from ..nn.authoring import Geometry, KeepsKernels, KeepsTables
from ._fields import Fields
from ._layers import Table


class KeepsIndices(KeepsTables):
    """Base class of layers with indices of channels, which are no state; see `gconv_ga.nn.authoring.KeepsTables`."""

    def _keep(self, **indices: Tensor | Sequence[int]) -> None:
        """Keep indices under these names."""
        self._indices = {
            name: index.tolist() if isinstance(index, Tensor) else list(index) for name, index in indices.items()
        }
        self._fill_tables(torch.device("cpu"), torch.float32)

    def _make_tables(self) -> dict[str, Tensor]:
        return {name: torch.tensor(index, dtype=torch.long) for name, index in self._indices.items()}


class Channels(KeepsIndices):
    """Feature maps on the group as escnn's channels, or back, where escnn lists the elements in another order.

    Args:
        channels: For each group element, its channel in an escnn field.
        back: Whether to return to feature maps on the group.

    Shape:
        - input: ``[B, C, |G|, H, W]``, or ``[B, C * |G|, H, W]`` with ``back``
        - output: the other one
    """

    def __init__(self, channels: Sequence[int], back: bool) -> None:
        super().__init__()
        self.order, self.back = len(channels), back
        index = channels if back else sorted(range(len(channels)), key=channels.__getitem__)
        self.in_order = list(index) == list(range(len(channels)))
        self._keep(index=index)

    def forward(self, input: Tensor) -> Tensor:
        maps = input.unflatten(1, (-1, self.order)) if self.back else input
        if not self.in_order:
            maps = maps.index_select(2, self._tables_like(maps)["index"])
        return maps if self.back else maps.flatten(1, 2)

    def extra_repr(self) -> str:
        return f"|G|={self.order}, {'to maps' if self.back else 'from maps'}"


def to_channels(fields: Fields) -> Channels | None:
    """Return what makes escnn's channels of the plain tensor, None if they are the same."""
    return Channels(fields.channels, False) if fields.regular else None


def to_maps(fields: Fields) -> Channels | None:
    """Return what makes the plain tensor of escnn's channels, None if they are the same."""
    return Channels(fields.channels, True) if fields.regular else None


def around(into: Fields, core: nn.Module, outof: Fields) -> nn.Module:
    """Return a module on plain tensors, made of one on escnn's channels.

    Args:
        into: The fields that it takes.
        core: The module on channels.
        outof: The fields that it returns.
    """
    layers = [layer for layer in (to_channels(into), core, to_maps(outof)) if layer is not None]
    return core if len(layers) == 1 else nn.Sequential(*layers)


class FieldBlock(NamedTuple):
    """Functions between one kind of field in and one kind of field out.

    Args:
        table: The functions, ``[b, o, i, k * k]``.
        start: Index of the first coefficient.
        end: Index after the last coefficient.
        outs: Channels of the fields out.
        ins: Channels of the fields in.
    """

    table: Table
    start: int
    end: int
    outs: Tensor
    ins: Tensor


def expand_blocks(blocks: Sequence[FieldBlock], weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the kernels between all channels.

    Args:
        blocks: The functions.
        weight: All coefficients.
        size: Number of channels out and in.

    Shape:
        - output: ``[C_out, C_in, k * k]``
    """
    whole = None
    for block in blocks:
        functions = block.table.like(weight)
        count, o, i, area = functions.shape
        coefficients = weight[block.start : block.end].view(len(block.outs) // o, len(block.ins) // i, count)
        kernels = torch.einsum("pqb,boik->poqik", coefficients, functions)
        kernels = kernels.reshape(len(block.outs), len(block.ins), area)
        if kernels.shape[:2] == size:
            return kernels
        whole = kernels.new_zeros(*size, area) if whole is None else whole
        whole = whole.index_put((block.outs.unsqueeze(1), block.ins), kernels)
    assert whole is not None
    return whole


class _FieldConvolution(KeepsKernels):
    """Base class of convolutions between any fields: escnn's functions, its coefficients, and its bias.

    The output is equivariant as escnn's is: at sizes where a stride leaves pixels over it is not, and there is a
    warning.

    Args:
        blocks: The functions.
        size: Number of channels out and in.
        weight: The coefficients.
        bias: The coefficients of the bias; None for no bias.
        bias_functions: What they are multiplied by.
        geometry: The windows.
        groups: Blocks of channels.

    Shape:
        - weight: ``[b]``; bias: ``[c]``; bias_functions: ``[C_out, c]``
        - input: ``[B, C_in, H, W]``
        - output: ``[B, C_out, H', W']``
    """

    def __init__(
        self,
        blocks: Sequence[FieldBlock],
        size: tuple[int, int],
        weight: Tensor,
        bias: Tensor | None,
        bias_functions: Tensor | None,
        geometry: Geometry,
        groups: int,
    ) -> None:
        super().__init__()
        self.blocks, self.size, self.geometry, self.groups = list(blocks), size, geometry, groups
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.register_buffer("bias_functions", bias_functions, persistent=False)

    bias_functions: Tensor | None

    def _channels(self) -> tuple[int, int]:
        """Return the number of channels out and in of the kernels."""
        return self.size[0], self.size[1] // self.groups

    def kernels(self) -> Tensor:
        """Return the kernels between channels, ``[C_out, C_in / groups, k, k]``; cached in eval mode."""
        window = (self.geometry.rows.kernel, self.geometry.columns.kernel)
        return self._cached(lambda: self._expand(self.weight).unflatten(2, window).contiguous(), self.weight)

    def _expand(self, weight: Tensor) -> Tensor:
        return expand_blocks(self.blocks, weight, self._channels())

    def _check(self, input: Tensor) -> None:
        if input.ndim != 4 or input.shape[1] != self.size[1]:
            raise wrong_shape("input", f"[B, C={self.size[1]}, H, W]", input)

    def _bias(self) -> Tensor | None:
        if self.bias is None or self.bias_functions is None:
            return None
        return self.bias_functions.to(self.bias.dtype) @ self.bias

    def extra_repr(self) -> str:
        rows = self.geometry.rows
        text = f"{self.size[1]}, {self.size[0]}, kernel_size={rows.kernel}, stride={rows.stride}, padding={rows.low}"
        return text + f", functions={len(self.weight)}, group={self.geometry.group.name!r}"


class FieldConv2d(_FieldConvolution):
    """Convolution between any fields; the arguments are those of the base class, and ``padding_mode`` is torch's."""

    def __init__(self, *args: Any, padding_mode: str) -> None:
        super().__init__(*args)
        self.padding_mode = padding_mode

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        rows, columns = self.geometry.rows, self.geometry.columns
        self.geometry.warn_if_misaligned(*input.shape[-2:])
        x, padding = input, (rows.low, columns.low)
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, (*2 * (columns.low,), *2 * (rows.low,)), mode=self.padding_mode), (0, 0)
        stride, dilation = (rows.stride, columns.stride), (rows.dilation, columns.dilation)
        return F.conv2d(x, self.kernels(), self._bias(), stride, padding, dilation, self.groups)


class FieldConvTranspose2d(_FieldConvolution):
    """Transposed convolution between any fields; with an ``output_padding`` it is equivariant at no size, and warns."""

    def __init__(self, *args: Any, output_padding: tuple[int, int]) -> None:
        super().__init__(*args)
        self.output_padding = output_padding

    def _channels(self) -> tuple[int, int]:
        return self.size[0] // self.groups, self.size[1]

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        if any(self.output_padding) and any(self.geometry.flipped_axes()) and not torch.compiler.is_compiling():
            warnings.warn(
                f"sampling='shared' is not equivariant with output_padding {self.output_padding}, at any size. "
                "R2Upsampling and R2Conv would be.",
                stacklevel=2,
            )
        rows, columns = self.geometry.rows, self.geometry.columns
        stride, dilation = (rows.stride, columns.stride), (rows.dilation, columns.dilation)
        weight, padding = self.kernels().transpose(0, 1), (rows.low, columns.low)
        return F.conv_transpose2d(
            input, weight, self._bias(), stride, padding, self.output_padding, self.groups, dilation
        )  # fmt: skip


class Fieldwise(KeepsIndices):
    """Base class of layers that treat each field for itself, fields of one size together.

    Args:
        sizes: Number of channels of each field.
        invariant: Whether a field becomes a single channel.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, C, H', W']``, or ``[B, fields, H', W']`` if invariant
    """

    def __init__(self, sizes: Sequence[int], invariant: bool = False) -> None:
        super().__init__()
        self.sizes = sorted(set(sizes))
        fields: list[int] = []
        channels: dict[str, Sequence[int]] = {}
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        for size in self.sizes:
            own = [i for i, each in enumerate(sizes) if each == size]
            channels[f"channels{size}"] = [starts[i] + c for i in own for c in range(size)]
            fields += own
        order = [c for i in fields for c in range(starts[i], starts[i] + sizes[i])]
        order = fields if invariant else order
        self._keep(**channels, back=sorted(range(len(order)), key=order.__getitem__))

    def of_size(self, maps: Tensor, size: int) -> Tensor:
        """Return the output for the fields of one size.

        Shape:
            - maps: ``[B, fields, size, H, W]``
            - output: the same, or ``[B, fields, 1, H, W]`` if invariant
        """
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        done, tables = [], self._tables_like(input)
        for size in self.sizes:
            maps = input.index_select(1, tables[f"channels{size}"]).unflatten(1, (-1, size))
            done.append(self.of_size(maps, size).flatten(1, 2))
        return torch.cat(done, 1).index_select(1, tables["back"])

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}"


class FieldBatchNorm(Fieldwise):
    """Batch normalization with statistics for each field, shared by its channels: ``InnerBatchNorm``.

    Args:
        sizes: Number of channels of each field.
        norms: The norm of the fields of each size, in ascending order.

    Shape:
        - input and output: ``[B, C, H, W]``
    """

    def __init__(self, sizes: Sequence[int], norms: Sequence[nn.Module]) -> None:
        super().__init__(sizes)
        self.norms = nn.ModuleList(norms)

    def of_size(self, maps: Tensor, size: int) -> Tensor:
        normed: Tensor = self.norms[self.sizes.index(size)](maps)
        return normed


class FieldMaximum(Fieldwise):
    """Maximum of each field over its channels: ``GroupPooling`` of mixed fields."""

    def of_size(self, maps: Tensor, size: int) -> Tensor:
        return maps.amax(2, keepdim=True)


class FieldNorm(Fieldwise):
    """Length of each field: ``NormPool``."""

    def of_size(self, maps: Tensor, size: int) -> Tensor:
        return maps.norm(dim=2, keepdim=True)


class Pick(KeepsIndices):
    """Channels in another order, or some of them.

    Args:
        index: The channels.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, len(index), H, W]``
    """

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self._keep(index=index)

    def forward(self, input: Tensor) -> Tensor:
        return input.index_select(1, self._tables_like(input)["index"])


class Branches(nn.Module):
    """Modules on some of the channels each, whose outputs are concatenated: ``MultipleModule``.

    Args:
        parts: The modules, on escnn's channels.
        channels: The channels that each of them takes.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, C', H', W']``
    """

    def __init__(self, parts: Sequence[nn.Module], channels: Sequence[Tensor]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(Pick(index), part) for part, index in zip(parts, channels, strict=True)
        )

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([part(input) for part in self.parts], 1)


class FieldBasis(KeepsIndices):
    """Each field in another basis, ``f -> Q f``: ``DisentangleModule``, which takes restricted fields apart.

    Args:
        matrices: ``Q`` for each field.

    Shape:
        - input and output: ``[B, C, H, W]``
    """

    matrix: Tensor | None

    def __init__(self, matrices: Sequence[Tensor]) -> None:
        super().__init__()
        whole = torch.block_diag(*matrices)
        # Mostly a permutation, which needs no sum.
        index = whole.argmax(1)
        permutes = torch.equal(whole, F.one_hot(index, whole.shape[1]).to(whole))
        if permutes:
            self._keep(index=index)
        self.register_buffer("matrix", None if permutes else whole, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        if self.matrix is None:
            return input.index_select(1, self._tables_like(input)["index"])
        return torch.einsum("oi,bihw->bohw", self.matrix.to(input.dtype), input)
