"""Convolutions that compute their weight or their padding at each call, on orbits."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..nn.authoring import Geometry, make_geometry
from ._layers import OrbitConv2d, OrbitConvolution, OrbitConvTranspose2d, run_as_one


class OwnConvolution(OrbitConvolution):
    """A convolution that computes its weight or its padding at each call.

    Its own ``forward`` runs as it is, and only the correlation in it is replaced by one on orbits, with the weight that
    it is given: standardized, normalized or pruned weights and size-dependent padding need no rules of their own.
    Further planes are used as they are.
    """

    runs_plain_forward = True
    plain_class: type[nn.Module]
    plain_function: Callable[..., Any]
    argument_names: tuple[str, ...]
    dilation: tuple[int, ...]

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        with _Correlating(self):
            return self.plain_class.forward(self, input, *args, **kwargs)

    def correlate_orbit(self, input: Tensor, weight: Tensor, bias: Tensor | None, arguments: dict[str, Any]) -> Tensor:
        """Compute the layer's correlation on an orbit."""
        raise NotImplementedError

    def _geometry_of(self, arguments: dict[str, Any]) -> Geometry:
        pairs = [_as_pair(arguments.get(name, default)) for name, default in (("stride", 1), ("dilation", 1))]
        padding = arguments.get("padding", 0)
        padding = padding if isinstance(padding, str) else _as_pair(padding)
        kernel = self.kernel_size[0], self.kernel_size[1]
        return make_geometry(self.group, kernel, pairs[0], padding, pairs[1])


class OwnConv2d(OwnConvolution, OrbitConv2d):
    """`OrbitConv2d` with the ``forward`` of a subclass of `torch.nn.Conv2d`, or with a computed weight.

    Shape:
        - input: ``[B |G|, C_in, H, W]``
        - output: ``[B |G|, C_out, H', W']``
    """

    plain_function = F.conv2d
    argument_names = ("stride", "padding", "dilation", "groups")

    def correlate_orbit(self, input: Tensor, weight: Tensor, bias: Tensor | None, arguments: dict[str, Any]) -> Tensor:
        def plain(upright: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
            return F.conv2d(upright, kernel, bias, **arguments)

        y: Tensor = run_as_one(input, self._convolve, plain, weight, bias, self._geometry_of(arguments))
        return y


class OwnConvTranspose2d(OwnConvolution, OrbitConvTranspose2d):
    """`OrbitConvTranspose2d` with the ``forward`` of a subclass of torch's, or with a computed weight.

    Shape:
        - input: ``[B |G|, C_in, H, W]``
        - output: ``[B |G|, C_out, H', W']``
    """

    plain_function = F.conv_transpose2d
    argument_names = ("stride", "padding", "output_padding", "groups", "dilation")

    def correlate_orbit(self, input: Tensor, weight: Tensor, bias: Tensor | None, arguments: dict[str, Any]) -> Tensor:
        extra = _as_pair(arguments.get("output_padding", 0))
        y: Tensor = run_as_one(input, self._convolve, weight, bias, self._geometry_of(arguments), extra)
        return y


def _as_pair(value: Any) -> tuple[int, int]:
    return (value[0], value[-1]) if isinstance(value, tuple | list) else (value, value)


class _Correlating(TorchFunctionMode):
    """Sends the correlation that a layer's own ``forward`` calls to the layer."""

    def __init__(self, layer: OwnConvolution) -> None:
        super().__init__()
        self.layer = layer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is not type(self.layer).plain_function:
            return func(*args, **kwargs)
        names = ("input", "weight", "bias", *self.layer.argument_names)
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        x, weight, bias = kwargs.pop("input"), kwargs.pop("weight"), kwargs.pop("bias", None)
        return self.layer.correlate_orbit(x, weight, bias, kwargs)
