"""Why a layer is not equivariant: what its class and its settings say, in words."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..actions import GridMove, ScalarField, good_sizes_near, grid_move, leftover
from ..groups import Group

AXES = ("rows", "columns")


def causes(module: nn.Module, group: Group, size: tuple[int, int]) -> list[str]:
    """What can break a layer of torch, as far as its class and settings tell; empty if nothing does.

    Args:
        module: The layer.
        group: The group.
        size: Rows and columns of its input.
    """
    moves = [grid_move(group, g) for g in range(group.order) if group.is_exact(g)]
    rules = (_unequal_axes, _leftover, _same_padding, _kernel, _output_padding, _resampling, _padding_layer, _by_class)
    return [text for rule in rules for text in rule(module, moves, group, size)]


def _last_two(value: Any) -> tuple[Any, Any]:
    if isinstance(value, tuple | list):
        return (value[-2], value[-1]) if len(value) > 1 else (value[0], value[0])
    return value, value


def _window(module: nn.Module, name: str) -> tuple[Any, Any]:
    """A setting of a convolution or pool for rows and columns."""
    value = getattr(module, name, None)
    if value is None:
        value = module.kernel_size if name == "stride" else 1 if name == "dilation" else 0
    return _last_two(0 if value == "valid" else value)


def _is_window(module: nn.Module) -> bool:
    return hasattr(module, "kernel_size") and hasattr(module, "stride")


def _is_transposed(module: nn.Module) -> bool:
    return isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)


def _unequal_axes(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if not any(move.transpose for move in moves):
        return
    settings = [(name, getattr(module, name, None)) for name in ("output_size", "scale_factor")]
    if _is_window(module):
        settings += [(name, _window(module, name)) for name in ("kernel_size", "stride", "padding", "dilation")]
    for name, value in settings:
        first, second = _last_two(value)
        if first != second:
            yield f"{name} {(first, second)} differs between rows and columns, which a quarter turn swaps"


def _leftover(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if not _is_window(module) or _is_transposed(module):
        return
    transposes = any(move.transpose for move in moves)
    flips = (any(move.flip_rows for move in moves), any(move.flip_columns for move in moves))
    settings = [_window(module, name) for name in ("kernel_size", "stride", "padding", "dilation")]
    seen = set()
    for axis, n in enumerate(size):
        kernel, stride, padding, dilation = (setting[axis] for setting in settings)
        if not (flips[axis] or transposes) or isinstance(padding, str) or (n, kernel, stride, padding) in seen:
            continue
        seen.add((n, kernel, stride, padding))
        rest = leftover(n, kernel, stride, padding, dilation)
        if rest:
            below, above = good_sizes_near(n, kernel, stride, padding, dilation)
            window = f"kernel {kernel}, stride {stride}, padding {padding}"
            good = f"{below} and {above}" if below != above else f"{above}"
            ours = "sampling='per_orientation' is" if hasattr(module, "sampling") else "the layers of gconv_ga.nn are"
            over = f"{rest} of {n} {AXES[axis]} over at the far end"
            yield f"{window} leaves {over}; exact at {good}; {ours} exact at every size"


def _same_padding(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if getattr(module, "padding", None) == "same" and any(
        dilation * (kernel - 1) % 2
        for kernel, dilation in zip(_window(module, "kernel_size"), _window(module, "dilation"), strict=True)
    ):
        yield "padding='same' pads an even kernel on one side more: use an odd kernel"


def _kernel(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    convolutions = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    if not isinstance(module, convolutions) or hasattr(module, "group"):
        return
    if len(module.kernel_size) == 3 and module.kernel_size[0] > 1:
        yield "its kernel reaches over neighbours on the element axis: use GroupConv2d"
    weight = module.weight.detach()
    elements = [g for g in range(group.order) if group.is_exact(g)]
    turned = [ScalarField()(weight, group, g) for g in elements]
    limit = 64 * torch.finfo(weight.dtype).eps * weight.abs().max()
    if not all(other.shape == weight.shape and bool((other - weight).abs().max() <= limit) for other in turned):
        yield (
            f"its kernel is not symmetric under {group.name}: LiftingConv2d and GroupConv2d turn it for every "
            "orientation; for a trained network use convert or GroupAverage"
        )


def _output_padding(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if any(_last_two(getattr(module, "output_padding", 0))):
        yield (
            f"output_padding={_last_two(module.output_padding)} adds pixels at one end only: use output_padding=0 or "
            "GroupConvTranspose2d"
        )


def _resampling(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    if not isinstance(module, nn.Upsample):
        return
    factors = [None if factor is None else float(factor) for factor in _last_two(module.scale_factor)]
    for n, factor, target in zip(size, factors, _last_two(module.size), strict=True):
        new = n * factor if factor is not None else float(target)
        if module.mode.startswith("nearest") and (new % n or new < n):
            sizes = f"mode='{module.mode}' from {n} to {new:g}"
            yield f"{sizes} reads pixels off the middle: use bilinear, or a whole factor"
            return
        if factor is not None and new != int(new):
            yield f"scale_factor {factor:g} makes {new:g} of {n} pixels, which is rounded at the far end: give size="
            return


def _padding_layer(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    padding = getattr(module, "padding", None)
    is_layer = type(module).__name__.endswith(("Pad2d", "Pad3d"))
    if is_layer and isinstance(padding, tuple) and len(set(padding[:4])) > 1:
        yield f"it pads left, right, top and bottom by {padding[:4]}: make them equal"


def _by_class(module: nn.Module, moves: list[GridMove], group: Group, size: tuple[int, int]) -> Iterator[str]:
    """Classes that no setting mends."""
    if isinstance(module, nn.PixelShuffle | nn.PixelUnshuffle):
        yield "its channels stand for places inside a pixel, and do not turn: use an up-sampling or a strided layer"
    if isinstance(module, nn.Unfold | nn.Fold):
        yield "its channels stand for places inside a window, and do not turn"
    if isinstance(module, nn.Flatten) and size != (1, 1):
        yield (
            f"flattening a map of {size[0]} x {size[1]} gives every pixel weights of its own in the next Linear: pool "
            "to one pixel first, as AdaptiveAvgPool2d(1) does"
        )
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1 and module.elementwise_affine:
        yield "its weights have a place in the image: use elementwise_affine=False or GroupNorm(1, C)"
    if isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmin) and module.dim in (-1, -2, 2, 3):
        yield f"dim={module.dim} normalises along one side of the image: use the channels, dim=1, or all pixels"
    if isinstance(module, nn.FractionalMaxPool2d):
        yield "its windows are drawn at random"
    if getattr(module, "return_indices", False) or isinstance(module, nn.MaxUnpool2d):
        yield "indices are places in the image before it is turned"
