"""Norms and nonlinearities of escnn on vectors and other fields that no pointwise function may change."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._field_layers import Fieldwise, KeepsIndices


def squash(x: Tensor) -> Tensor:
    """Return ``x / (1 + x)``: lengths below 1."""
    return x / (1.0 + x)


class FieldActivation(Fieldwise):
    """A function of the length of each field, ``f -> f * act(|f| - b) / |f|``: ``NormNonLinearity``.

    Args:
        sizes: Number of channels of each field.
        function: "relu", "sigmoid", "softplus" or "squash".
        log_bias: ``log b`` for each field, the fields in ascending order of their size; None for ``b = 0``.
        eps: Fields that are not longer than this become zero.

    Shape:
        - input and output: ``[B, C, H, W]``
    """

    def __init__(self, sizes: Sequence[int], function: str, log_bias: Tensor | None, eps: float) -> None:
        super().__init__(sizes)
        self.function, self.eps = function, eps
        self.counts = [list(sizes).count(size) for size in self.sizes]
        self.log_bias = None if log_bias is None else nn.Parameter(log_bias)

    def of_size(self, maps: Tensor, size: int) -> Tensor:
        lengths = maps.norm(dim=2, keepdim=True)
        shifted = lengths
        if self.log_bias is not None:
            bias = self.log_bias.exp().split(self.counts)[self.sizes.index(size)]
            shifted = lengths - bias.view(-1, 1, 1, 1)
        act = {"relu": torch.relu, "sigmoid": torch.sigmoid, "softplus": F.softplus, "squash": squash}[self.function]
        factor = act(shifted) / lengths.clamp_min(self.eps)
        return maps * torch.where(lengths <= self.eps, torch.zeros_like(factor), factor)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, function={self.function!r}"


class FieldMaxPool(Fieldwise):
    """In each window, the longest vector of each field: ``NormMaxPool``.

    Args:
        sizes: Number of channels of each field.
        window: Kernel size, stride, padding and dilation, each for rows and columns.
        ceil_mode: As in `torch.nn.MaxPool2d`.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, C, H', W']``
    """

    def __init__(self, sizes: Sequence[int], window: tuple[Any, ...], ceil_mode: bool) -> None:
        super().__init__(sizes)
        self.window, self.ceil_mode = window, ceil_mode

    def of_size(self, maps: Tensor, size: int) -> Tensor:
        lengths = maps.square().sum(2).sqrt()
        kernel, stride, padding, dilation = self.window
        pooled, index = F.max_pool2d_with_indices(lengths, kernel, stride, padding, dilation, self.ceil_mode)
        spread = index.flatten(2).unsqueeze(2).expand(-1, -1, size, -1)
        return maps.flatten(3).gather(3, spread).unflatten(3, pooled.shape[2:])


class FieldGates(KeepsIndices):
    """Fields times the sigmoid of scalar fields: ``GatedNonLinearity1``.

    Args:
        gates: Channels of the gates.
        gated: Channels of the fields that they multiply.
        gate_of: For each of these channels, which gate multiplies it.
        keep: For each output channel, its place among the gates followed by the gated fields.
        bias: What is subtracted from each gate.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, len(keep), H, W]``
    """

    def __init__(self, gates: Tensor, gated: Tensor, gate_of: Tensor, keep: Tensor, bias: Tensor) -> None:
        super().__init__()
        self._keep(gates=gates, gated=gated, gate_of=gate_of, keep=keep)
        self.bias = nn.Parameter(bias)

    def forward(self, input: Tensor) -> Tensor:
        tables = self._tables_like(input)
        gates = torch.sigmoid(input.index_select(1, tables["gates"]) - self.bias.view(-1, 1, 1))
        gated = input.index_select(1, tables["gated"]) * gates.index_select(1, tables["gate_of"])
        return torch.cat([gates, gated], 1).index_select(1, tables["keep"])


class FourierActivation(nn.Module):
    """A pointwise function of each field's values on the group: ``FourierPointwise`` and what derives from it.

    Args:
        to_values: From the Fourier coefficients of a field to its values.
        to_coefficients: From values to coefficients.
        act: The function.

    Shape:
        - to_values: ``[values, coefficients]``; to_coefficients: ``[coefficients', values]``
        - input: ``[B, fields * coefficients, H, W]``
        - output: ``[B, fields * coefficients', H, W]``
    """

    to_values: Tensor
    to_coefficients: Tensor

    def __init__(self, to_values: Tensor, to_coefficients: Tensor, act: nn.Module) -> None:
        super().__init__()
        self.act = act
        self.register_buffer("to_values", to_values, persistent=False)
        self.register_buffer("to_coefficients", to_coefficients, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        fields = input.unflatten(1, (-1, self.to_values.shape[1]))
        values = self.act(torch.einsum("bcfhw,gf->bcghw", fields, self.to_values))
        return torch.einsum("bcghw,fg->bcfhw", values, self.to_coefficients).flatten(1, 2)


class IrrepStatistics(KeepsIndices):
    """Batch normalization of the fields of one representation, each irrep for itself: ``GNormBatchNorm``.

    Only invariant components have a mean and a bias. As in escnn, no gradient flows through the statistics.

    Args:
        basis: From coefficients of irreps to the channels of a field; None if they are the same.
        inverse: The way back.
        irreps: 1 where a component belongs to an irrep.
        invariant: The invariant components.
        state: Running mean and variance, and weight and bias if there are any.
        eps: Added to variances.

    Shape:
        - basis: ``[s, s]``; irreps: ``[s, r]``
        - running_mean, bias: ``[fields, len(invariant)]``; running_var, weight: ``[fields, r]``
        - input and output: ``[B, fields, s, H, W]``
    """

    basis: Tensor | None
    inverse: Tensor | None
    irreps: Tensor
    running_mean: Tensor
    running_var: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        basis: Tensor | None,
        inverse: Tensor | None,
        irreps: Tensor,
        invariant: Tensor,
        state: Mapping[str, Tensor],
        eps: float,
    ) -> None:
        super().__init__()
        self.eps = eps
        self._keep(invariant=invariant)
        for name, table in (("basis", basis), ("inverse", inverse), ("irreps", irreps)):
            self.register_buffer(name, table, persistent=False)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, state[name])
        for name in ("weight", "bias"):
            self.register_parameter(name, nn.Parameter(state[name]) if name in state else None)

    def forward(self, input: Tensor, factor: float | None) -> Tensor:
        """Normalize by the statistics of the batch and move the running ones by ``factor``; if None, by the latter.

        Args:
            input: The fields.
            factor: Share of the batch in the running statistics.
        """
        x = input if self.inverse is None else torch.einsum("ds,bcshw->bcdhw", self.inverse, input)
        mean, variance = self.running_mean, self.running_var
        if factor is not None:
            mean, variance = self._of_batch(x.detach())
            with torch.no_grad():
                self.running_mean.lerp_(mean, factor)
                self.running_var.lerp_(variance, factor)
        scale = (variance + self.eps).rsqrt() if self.weight is None else self.weight / (variance + self.eps).sqrt()
        scale = scale @ self.irreps.t()
        invariant = self._tables_like(scale)["invariant"]
        shift = torch.zeros_like(scale).index_copy(1, invariant, -mean * scale[:, invariant])
        if self.bias is not None:
            shift = shift.index_add(1, invariant, self.bias)
        x = x * scale[..., None, None] + shift[..., None, None]
        return x if self.basis is None else torch.einsum("ds,bcshw->bcdhw", self.basis, x)

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count = x.shape[0] * x.shape[3] * x.shape[4]
        invariant = self._tables_like(x)["invariant"]
        mean = x[:, :, invariant].mean((0, 3, 4))
        second = x.square().mean((0, 3, 4)).index_add(1, invariant, -mean.square())
        variance = second * (count / max(count - 1, 1))
        return mean, variance @ (self.irreps / self.irreps.sum(0))


class ScalarStatistics(nn.Module):
    """Batch normalization of the fields of one representation, by one variance for each field: ``IIDBatchNorm2d``.

    As in escnn, no gradient flows through the statistics.

    Args:
        size: Number of channels of a field.
        project: The projection of a field onto its invariant part, of which a mean is taken; None if there is none.
        invariant: The directions of that part.
        state: Running variance, running mean if there is an invariant part, weight and bias if there are any.
        eps: Added to variances.

    Shape:
        - project: ``[s, s]``; invariant: ``[s, r]``
        - running_mean: ``[fields, s]``; running_var, weight: ``[fields, 1]``; bias: ``[fields, r]``
        - input and output: ``[B, fields, s, H, W]``
    """

    project: Tensor | None
    invariant: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self, size: int, project: Tensor | None, invariant: Tensor | None, state: Mapping[str, Tensor], eps: float
    ) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.register_buffer("project", project, persistent=False)
        self.register_buffer("invariant", invariant, persistent=False)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, state.get(name))
        for name in ("weight", "bias"):
            self.register_parameter(name, nn.Parameter(state[name]) if name in state else None)

    def forward(self, input: Tensor, factor: float | None) -> Tensor:
        """Normalize as `IrrepStatistics` does.

        Args:
            input: The fields.
            factor: Share of the batch in the running statistics; None to use these.
        """
        mean, variance = self.running_mean, self.running_var
        if factor is not None:
            x = input.detach()
            variance = x.var((0, 3, 4)).mean(1, keepdim=True)
            with torch.no_grad():
                self.running_var.lerp_(variance, factor)
            if self.running_mean is not None and self.project is not None:
                mean = x.mean((0, 3, 4)) @ self.project.t()
                with torch.no_grad():
                    self.running_mean.lerp_(mean, factor)
        x = input if mean is None else input - mean[..., None, None]
        scale = (variance + self.eps).rsqrt() if self.weight is None else self.weight / (variance + self.eps).sqrt()
        x = x * scale[..., None, None]
        if self.bias is None or self.invariant is None:
            return x
        return x + (self.bias @ self.invariant.t())[..., None, None]


class FieldNormalization(KeepsIndices):
    """Batch normalization with its own statistics for the fields of each representation.

    Args:
        channels: For each representation, the channels of its fields.
        sizes: For each representation, the number of its channels.
        norms: For each representation, an `IrrepStatistics` or a `ScalarStatistics`.
        momentum: Share of a batch in the running statistics; None for their mean over all batches.
        batches: Number of batches so far.
        tracks: Whether running statistics are used in eval mode.

    Shape:
        - input and output: ``[B, C, H, W]``
    """

    num_batches_tracked: Tensor

    def __init__(
        self,
        channels: Sequence[Tensor],
        sizes: Sequence[int],
        norms: Sequence[nn.Module],
        momentum: float | None,
        batches: Tensor,
        tracks: bool,
    ) -> None:
        super().__init__()
        self.norms, self.sizes, self.momentum = nn.ModuleList(norms), list(sizes), momentum
        self.tracks = tracks
        back = torch.cat(list(channels)).argsort()
        self._keep(**{f"channels{i}": index for i, index in enumerate(channels)}, back=back)
        self.register_buffer("num_batches_tracked", batches)

    def forward(self, input: Tensor) -> Tensor:
        factor = None if self.tracks else 0.0
        if self.training and self.tracks:
            self.num_batches_tracked += 1
            factor = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        done, tables = [], self._tables_like(input)
        for i, norm in enumerate(self.norms):
            fields = input.index_select(1, tables[f"channels{i}"]).unflatten(1, (-1, self.sizes[i]))
            done.append(norm(fields, factor).flatten(1, 2))
        return torch.cat(done, 1).index_select(1, tables["back"])
