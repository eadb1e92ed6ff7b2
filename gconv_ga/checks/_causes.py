"""Why a layer of torch is not equivariant, as its class and settings tell, and the sizes at which strides are exact."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .._validate import as_int
from ..actions import GridMove, ScalarField, good_sizes_near, grid_move, leftover
from ..groups import Group

AXES = ("rows", "columns")


def good_sizes(near: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> tuple[int, int]:
    """Return the sizes next to ``near`` at which a strided convolution or pool of torch is exact.

    Under multiples of 90 degrees and reflections these are the sizes with
    ``(size + 2 padding - dilation (kernel_size - 1) - 1) mod stride = 0``: no pixel is left over at the far end, so the
    windows of a flipped image are the flipped windows. The layers of `gconv_ga.nn` are exact at every size.

    Args:
        near: The size at hand, in pixels along one axis.
        kernel_size: As for `torch.nn.Conv2d` or `torch.nn.MaxPool2d`, along this axis.
        stride: As for these layers.
        padding: As for these layers.
        dilation: As for these layers.

    Returns:
        The nearest size at or below ``near`` and the nearest at or above it. Both are ``near`` if it is exact itself,
        and both are the larger one if no smaller size is large enough for the window.

    Raises:
        ValueError: An argument is not an int, or too small.

    Example:
        >>> from gconv_ga.checks import good_sizes
        >>> good_sizes(32, kernel_size=3, stride=2, padding=1)
        (31, 33)
        >>> good_sizes(32, kernel_size=2, stride=2)
        (32, 32)
    """
    near = as_int("near", near, minimum=1)
    kernel_size, stride = as_int("kernel_size", kernel_size, minimum=1), as_int("stride", stride, minimum=1)
    padding, dilation = as_int("padding", padding, minimum=0), as_int("dilation", dilation, minimum=1)
    return good_sizes_near(near, kernel_size, stride, padding, dilation)


def causes(module: nn.Module, group: Group, size: tuple[int, int]) -> list[str]:
    """Return what can break the equivariance of a layer of torch, one sentence each: the cure, then the cause.

    Args:
        module: The layer.
        group: The group.
        size: Rows and columns of its input.

    Returns:
        The sentences; none if nothing in its class and settings breaks it.
    """
    moves = [grid_move(group, g) for g in range(group.order) if group.is_exact(g)]
    rules = (_unequal_axes, _leftover, _same_padding, _kernel, _output_padding, _resampling, _padding_layer, _by_class)
    return [text for rule in rules for text in rule(module, moves, group, size)]


def _unequal_axes(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if not any(move.transpose for move in moves):
        return
    settings = [(name, getattr(module, name, None)) for name in ("output_size", "scale_factor")]
    if _has_window(module):
        settings += [(name, _window_setting(module, name)) for name in ("kernel_size", "stride", "padding", "dilation")]
    for name, value in settings:
        rows, columns = _last_two(value)
        if rows != columns:
            yield (
                f"Use the same {name} for rows and columns: a rotation by 90 degrees swaps them, and {name} is "
                f"{(rows, columns)}."
            )


def _leftover(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if not _has_window(module) or _is_transposed(module):
        return
    transposes = any(move.transpose for move in moves)
    flips = (any(move.flip_rows for move in moves), any(move.flip_columns for move in moves))
    settings = [_window_setting(module, name) for name in ("kernel_size", "stride", "padding", "dilation")]
    seen = set()
    for axis, n in enumerate(size):
        kernel, stride, padding, dilation = (setting[axis] for setting in settings)
        if not (flips[axis] or transposes) or isinstance(padding, str) or (n, kernel, stride, padding) in seen:
            continue
        seen.add((n, kernel, stride, padding))
        rest = leftover(n, kernel, stride, padding, dilation)
        if rest:
            below, above = good_sizes_near(n, kernel, stride, padding, dilation)
            good = f"{below} or {above}" if below != above else f"{above}"
            has_switch = hasattr(module, "sampling")
            other_layer = "set sampling='per_orientation'" if has_switch else "use a layer of gconv_ga.nn"
            window = f"kernel {kernel}, stride {stride}, padding {padding}"
            yield (
                f"Give this layer {good} {AXES[axis]}, or {other_layer}, which is exact at every size: {window} leaves "
                f"{rest} of {n} {AXES[axis]} over at the far end."
            )


def _same_padding(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if getattr(module, "padding", None) == "same" and any(
        dilation * (kernel - 1) % 2
        for kernel, dilation in zip(
            _window_setting(module, "kernel_size"), _window_setting(module, "dilation"), strict=True
        )
    ):
        yield "Use an odd kernel: padding='same' pads an even kernel by one pixel more on one side."


def _kernel(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    convolutions = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    if not isinstance(module, convolutions) or hasattr(module, "group"):
        return
    if len(module.kernel_size) == 3 and module.kernel_size[0] > 1:
        yield "Use GroupConv2d: the kernel spans neighbours on the element axis."
    weight = module.weight.detach()
    elements = [g for g in range(group.order) if group.is_exact(g)]
    moved = [ScalarField()(weight, group, g) for g in elements]
    limit = 64 * torch.finfo(weight.dtype).eps * weight.abs().max()
    if not all(other.shape == weight.shape and bool((other - weight).abs().max() <= limit) for other in moved):
        yield (
            "Use LiftingConv2d and GroupConv2d, which rotate the kernel to every orientation, or for a trained network "
            f"convert or GroupAverage: its kernel is not symmetric under {group.name}."
        )


def _output_padding(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if any(_last_two(getattr(module, "output_padding", 0))):
        yield (
            "Use output_padding=0 or GroupConvTranspose2d: "
            f"output_padding={_last_two(module.output_padding)} adds pixels at one end only."
        )


def _resampling(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if not isinstance(module, nn.Upsample):
        return
    factors = [None if factor is None else float(factor) for factor in _last_two(module.scale_factor)]
    for n, factor, target in zip(size, factors, _last_two(module.size), strict=True):
        new = n * factor if factor is not None else float(target)
        if module.mode.startswith("nearest") and (new % n or new < n):
            yield (
                f"Use mode='bilinear', or enlarge by a whole factor: mode='{module.mode}' from {n} to {new:g} pixels "
                "reads pixels off the middle."
            )
            return
        if factor is not None and new != int(new):
            yield (
                f"Use size= instead of scale_factor={factor:g}, which makes {new:g} of {n} pixels: the fraction is cut "
                "off at the far end."
            )
            return


def _padding_layer(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    padding = getattr(module, "padding", None)
    is_layer = type(module).__name__.endswith(("Pad2d", "Pad3d"))
    if is_layer and isinstance(padding, tuple) and len(set(padding[:4])) > 1:
        yield f"Pad all sides equally: it pads left, right, top and bottom by {padding[:4]}."


def _by_class(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    """Yield the causes that lie in the class itself."""
    if isinstance(module, nn.PixelShuffle | nn.PixelUnshuffle):
        yield (
            "Use an upsampling or a strided layer: its channels stand for positions inside a pixel, which do not "
            "rotate with the image."
        )
    if isinstance(module, nn.Unfold | nn.Fold):
        yield (
            "Use a convolution or a pool: its channels stand for positions inside a window, which do not rotate with "
            "the image."
        )
    if isinstance(module, nn.Flatten) and size != (1, 1):
        yield (
            "Pool to one pixel first, for example with AdaptiveAvgPool2d(1): flattening a map of "
            f"{size[0]} x {size[1]} gives every pixel weights of its own in the next Linear."
        )
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1 and module.elementwise_affine:
        yield "Use elementwise_affine=False or GroupNorm(1, C): its weights differ from pixel to pixel."
    if isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmin) and module.dim in (-1, -2, 2, 3):
        yield (
            f"Apply it over the channels (dim=1) or over all pixels: dim={module.dim} normalizes along one side of the "
            "image."
        )
    if isinstance(module, nn.FractionalMaxPool2d):
        yield "Use another pool: its windows are drawn at random."
    if getattr(module, "return_indices", False) or isinstance(module, nn.MaxUnpool2d):
        yield "Pool without indices: they are positions in the image before it is rotated."


def _has_window(module: nn.Module) -> bool:
    return hasattr(module, "kernel_size") and hasattr(module, "stride")


def _is_transposed(module: nn.Module) -> bool:
    return isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)


def _window_setting(module: nn.Module, name: str) -> tuple[Any, Any]:
    """Return a setting of a convolution or pool for rows and columns."""
    value = getattr(module, name, None)
    if value is None:
        value = module.kernel_size if name == "stride" else 1 if name == "dilation" else 0
    return _last_two(0 if value == "valid" else value)


def _last_two(value: Any) -> tuple[Any, Any]:
    """Return a setting for rows and columns, given as one value or as a tuple for all axes."""
    if isinstance(value, tuple | list):
        return (value[-2], value[-1]) if len(value) > 1 else (value[0], value[0])
    return value, value
