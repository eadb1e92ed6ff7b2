"""Kernels of ours as a convolution of escnn, whose coefficients are found by least squares."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import invalid
from ._fields import load_escnn


class Window(NamedTuple):
    """What ``R2Conv`` takes beside its types."""

    kernel_size: int
    stride: int | tuple[int, int]
    padding: int | tuple[int, int]
    dilation: int
    groups: int
    padding_mode: str


def read_window(conv: Any, path: str) -> Window:
    """The window of a convolution of ours or torch's.

    Args:
        conv: The convolution.
        path: Where it is, for the message.

    Raises:
        ValueError: It has no counterpart in escnn: the kernel or its dilation is not square, or "same" pads one end
            more than the other.
    """
    if len(set(conv.kernel_size)) > 1 or len(set(conv.dilation)) > 1:
        advice = "escnn has square kernels, with one dilation"
        raise invalid(path, "a convolution with a square kernel", conv, advice)
    size, dilation = conv.kernel_size[0], conv.dilation[0]
    padding = conv.padding
    if isinstance(padding, str):
        total = dilation * (size - 1) if padding == "same" else 0
        if total % 2:
            raise invalid(path, "padded alike at both ends", conv, "escnn does not know padding='same'")
        padding = (total // 2, total // 2)
    return Window(size, _single(conv.stride), _single(padding), dilation, conv.groups, conv.padding_mode)


def _single(pair: tuple[int, int]) -> int | tuple[int, int]:
    return pair[0] if pair[0] == pair[1] else pair


def read_kernels(conv: Any) -> Tensor:
    """The kernels of a layer of ours or torch's between all channels, ``[C_out, C_in / groups, o, i, k * k]``."""
    with torch.no_grad():
        if isinstance(conv, nn.Conv2d):
            return conv.weight.detach().double().flatten(2)[:, :, None, None]
        stack = conv.turned_kernels().detach().double()
    channels, order = conv.in_channels // conv.groups, conv.group.order
    planes = stack.unflatten(2, (channels, -1)).transpose(1, 2)
    if isinstance(conv, gnn.LiftingConv2d) or planes.shape[3] == order:
        return planes
    # Few planes lie by tap: now each where the element is that it meets.
    whole = planes.new_zeros(*planes.shape[:3], order, planes.shape[4])
    for g, near in enumerate(conv.neighbours.tolist()):
        whole[:, :, g, near] = planes[:, :, g]
    return whole


def write_convolution(
    types: tuple[Any, Any], window: Window, kernels: Tensor, bias: Tensor | None, like: Tensor, functions: str
) -> tuple[Any, float] | None:
    """An ``R2Conv`` with the nearest kernels that it can have, and how far they are, relative; None if it has none.

    Args:
        types: escnn's types, in and out.
        window: Its other arguments.
        kernels: The kernels between all channels.
        bias: One number for each field.
        like: A tensor of the dtype and on the device that is wanted.
        functions: "default" or "all".
    """
    try:
        conv = _empty(types, window, bias is not None, like, functions)
    except ValueError:
        # escnn has no function for 2 x 2 taps by itself.
        return None
    (block,) = conv.basisexpansion.children()
    basis = block.sampled_basis.double().cpu().flatten(1)
    wanted = kernels.double().cpu().flatten(2).flatten(0, 1)
    # Some functions may be alike on the grid: of all the coefficients that do, the smallest.
    found = torch.linalg.lstsq(basis.T, wanted.T, driver="gelsd").solution.T
    far = (found @ basis - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float64).tiny)
    with torch.no_grad():
        conv.weights.copy_(found.flatten())
        if bias is not None:
            spread = bias.detach().double().cpu().repeat_interleave(types[1].size // len(types[1]))
            conv.bias.copy_(torch.linalg.lstsq(conv.bias_expansion.double().cpu(), spread[:, None]).solution[:, 0])
    return conv, float(far)


def _empty(types: tuple[Any, Any], window: Window, bias: bool, like: Tensor, functions: str) -> Any:
    enn = load_escnn().nn
    more = every_tap(window.kernel_size, window.dilation) if functions == "all" else {}

    def make(recompute: bool) -> Any:
        return enn.R2Conv(*types, **window._asdict(), bias=bias, initialize=False, recompute=recompute, **more)

    # escnn's layers share the tables of their functions, and to move one is to move all: so this gets its own.
    plain = torch.float32, torch.device("cpu")
    conv = make((like.dtype, like.device) != plain)
    (block,) = conv.basisexpansion.children()
    if (block.sampled_basis.dtype, block.sampled_basis.device) != plain:
        conv = make(True)
    return conv.to(like)


def every_tap(kernel_size: int, dilation: int) -> dict[str, Any]:
    """Arguments with which an ``R2Conv`` has functions for every kernel that turns by quarter turns.

    A narrow ring through each tap, and on it as many frequencies as it takes to tell its taps apart.

    Args:
        kernel_size: The number of rows and columns.
        dilation: As in ``R2Conv``.
    """
    along = [i - (kernel_size - 1) / 2 for i in range(kernel_size)]
    squares = [x * x + y * y for x in along for y in along]
    # escnn takes no ring beyond the corner, to the last bit.
    corner = dilation * (kernel_size - 1) / 2 * math.sqrt(2)
    taps = {min(math.sqrt(square) * dilation, corner): squares.count(square) for square in sorted(squares)}
    return {
        "rings": list(taps),
        "sigma": [0.05 * dilation if ring else 0.005 for ring in taps],
        "frequencies_cutoff": lambda radius: taps[min(taps, key=lambda ring: abs(ring - radius))] // 2,
    }
