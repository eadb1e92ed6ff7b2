"""Convolutions that compute their weight or their padding at each call, on orbits."""

from collections.abc import Callable
from typing import Any

import torch
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
    in_channels: int

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        with _Correlating(self):
            return self.plain_class.forward(self, input, *args, **kwargs)

    def correlate_orbit(self, input: Tensor, weight: Tensor, bias: Tensor | None, arguments: dict[str, Any]) -> Tensor:
        """Compute the layer's correlation on an orbit."""
        raise NotImplementedError

    @torch.no_grad()
    def with_constant_weight(self) -> OrbitConvolution | None:
        """Return the layer with the weight that it computes; None if that, or its padding, depends on the input.

        Its own ``forward`` runs on inputs of several sizes, for which the correlation must be given the input as it is,
        the same weight, bias and arguments, and return what is the layer's output.
        """
        if self._forward_hooks or self._forward_pre_hooks_with_kwargs:
            return None
        calls: list[dict[str, Any]] = []
        # Not the weight: one that a hook computes is still in the dtype of the last call.
        like, generator = next(self.parameters()), torch.Generator().manual_seed(0)
        for more in (0, 1, 3):
            rows, columns = (
                d * (k - 1) + 2 * s + more for k, s, d in zip(self.kernel_size, self.stride, self.dilation, strict=True)
            )
            x = torch.randn(1, self.in_channels, rows, columns + more, generator=generator).to(like)
            # Older weight norms compute the weight in a hook.
            if any(hook(self, (x,)) is not None for hook in self._forward_pre_hooks.values()):
                return None
            try:
                with _Probe(self) as probe:
                    y = self.plain_class.forward(self, x)
            except (RuntimeError, ValueError):  # it is for larger images
                return None
            if len(probe.calls) != 1 or probe.calls[0]["input"] is not x or probe.output is not y:
                return None
            calls.append(probe.calls[0])
        first = calls[0]
        if not all(_is_same(call[name], first[name]) for call in calls for name in first if name != "input"):
            return None
        return self._made_of(first)

    def _made_of(self, arguments: dict[str, Any]) -> OrbitConvolution:
        """Return a layer on orbits with the weight, bias and windows of a call."""
        raise NotImplementedError

    def _opened_like_this(self, layer: OrbitConvolution) -> OrbitConvolution:
        layer.open(self.count)
        layer.taps = self.taps
        return layer

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

    def _made_of(self, arguments: dict[str, Any]) -> OrbitConvolution:
        bias = arguments["bias"]
        plain = nn.Conv2d(
            self.in_channels, self.out_channels, _as_pair(self.kernel_size), arguments["stride"], arguments["padding"],
            arguments["dilation"], arguments["groups"], bias is not None, device="meta",
        )  # fmt: skip
        return self._opened_like_this(OrbitConv2d.of(_with_parameters(plain, arguments["weight"], bias), self.group))


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

    def _made_of(self, arguments: dict[str, Any]) -> OrbitConvolution:
        bias = arguments["bias"]
        plain = nn.ConvTranspose2d(
            self.in_channels, self.out_channels, _as_pair(self.kernel_size), arguments["stride"], arguments["padding"],
            arguments["output_padding"], arguments["groups"], bias is not None, arguments["dilation"], device="meta",
        )  # fmt: skip
        plain = _with_parameters(plain, arguments["weight"], bias)
        return self._opened_like_this(OrbitConvTranspose2d.of(plain, self.group))


def _with_parameters(layer: Any, weight: Tensor, bias: Tensor | None) -> Any:
    layer.weight = nn.Parameter(weight.detach())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach())
    return layer


def _is_same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)


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
        kwargs = _by_name(self.layer, args, kwargs)
        x, weight, bias = kwargs.pop("input"), kwargs.pop("weight"), kwargs.pop("bias", None)
        return self.layer.correlate_orbit(x, weight, bias, kwargs)


class _Probe(TorchFunctionMode):
    """Notes the arguments of the correlations that a layer's own ``forward`` calls, and the output of the last."""

    def __init__(self, layer: OwnConvolution) -> None:
        super().__init__()
        self.layer = layer
        self.calls: list[dict[str, Any]] = []
        self.output: Any = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is type(self.layer).plain_function:
            defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}
            self.calls.append(defaults | _by_name(self.layer, args, kwargs or {}))
            self.output = output
        return output


def _by_name(layer: OwnConvolution, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a correlation by their names."""
    names = ("input", "weight", "bias", *layer.argument_names)
    return {**dict(zip(names, args, strict=False)), **kwargs}
