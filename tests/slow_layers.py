"""Slow references of the layers of gconv_ga.nn, one element after the other: ``out(., g) = L_g layer(L_g^-1 f)``.

They use torch.rot90, torch.flip and torch's own layers, and none of the package's filters, geometry or group tables.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from slow_average import elements, turn, turn_back
from torch import Tensor, nn

# The elements of each group, nearest the identity first: by angle, counter-clockwise first, then reflections.
NEAREST = {
    "C1": [0], "C2": [0, 1], "C4": [0, 1, 3, 2], "D1": [0, 1], "D2": [0, 1, 2, 3], "D4": [0, 1, 3, 2, 4, 5, 7, 6],
}  # fmt: skip
# A subgroup, its elements as elements of the group, and one element of each of its right cosets.
SUBGROUPS = {
    "C1": ("C1", [0], [0]),
    "C2": ("C1", [0], [0, 1]),
    "C4": ("C2", [0, 2], [0, 1]),
    "D1": ("C1", [0], [0, 1]),
    "D2": ("C2", [0, 1], [0, 2]),
    "D4": ("C4", [0, 1, 2, 3], [0, 4]),
}


def taps(group: str, count: int | None) -> list[int]:
    order = len(elements(group))
    return list(range(order)) if count is None or count >= order else NEAREST[group][:count]


@lru_cache
def product_table(group: str) -> list[list[int]]:
    """Return ``table[g][h] = g h``, found by moving a picture that no element leaves unchanged."""
    picture = torch.arange(9.0).view(3, 3)
    moved = [turn(picture, g) for g in elements(group)]

    def find(image: Tensor) -> int:
        return next(i for i, each in enumerate(moved) if torch.equal(each, image))

    return [[find(turn(turn(picture, h), g)) for h in elements(group)] for g in elements(group)]


def inverse(group: str, g: int) -> int:
    return product_table(group)[g].index(0)


def act_on_map(f: Tensor, group: str, g: int) -> Tensor:
    """Compute ``(L_g f)(y, h) = f(g^-1 y, g^-1 h)``."""
    table, back = product_table(group), inverse(group, g)
    return torch.stack([turn(f[:, :, table[back][h]], elements(group)[g]) for h in range(f.shape[2])], dim=2)


def act_on_image(x: Tensor, group: str, g: int) -> Tensor:
    return turn(x, elements(group)[g])


def turn_vectors(v: Tensor, element: tuple[int, bool]) -> Tensor:
    """Move a field of vectors ``(x, y)``, y down the rows; the components turn too, by 90 degrees at a time."""
    quarters, mirrored = element
    x, y = turn(v, element).unbind(1)
    x = -x if mirrored else x
    for _ in range(quarters % 4):
        x, y = y, -x
    return torch.stack((x, y), dim=1)


def act_on_vectors(v: Tensor, group: str, g: int) -> Tensor:
    return turn_vectors(v, elements(group)[g])


def vector_head(layer: nn.Module, f: Tensor, group: str) -> Tensor:
    """Sum over channels and elements of the free vector of the channel, turned by the element, times the value."""
    total = torch.zeros(len(f), 2, *f.shape[-2:], dtype=f.dtype, device=f.device)
    for c, vector in enumerate(layer.weight):
        for g, element in enumerate(elements(group)):
            turned = turn_vectors(vector.view(1, 2, 1, 1), element)
            total = total + turned * f[:, c : c + 1, g]
    return total


def conjugated(
    plain: Callable[..., Tensor], x: Tensor, element: tuple[int, bool], size: Sequence[int] | None
) -> Tensor:
    """Compute ``L_g plain(L_g^-1 x)``; a requested output size is transposed with the image."""
    if size is None:
        return turn(plain(turn_back(x, element)), element)
    return turn(plain(turn_back(x, element), tuple(size) if element[0] % 2 == 0 else tuple(size)[::-1]), element)


def each(plain: Callable[..., Tensor], f: Tensor, group: str, size: Sequence[int] | None = None) -> Tensor:
    """Apply a plain layer to each orientation, in that orientation's own frame."""
    return torch.stack([conjugated(plain, f[:, :, i], g, size) for i, g in enumerate(elements(group))], dim=2)


def with_weight(plain: nn.Module, weight: Tensor) -> nn.Module:
    plain.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return plain


def planes(layer: nn.Module, count: int) -> Tensor:
    """Return the kernels of the identity, ``[C_out, C_in, m, kh, kw]``; steerable weights are coefficients."""
    if layer.weight.shape[-2:] == layer.kernel_size:
        return layer.weight if layer.weight.ndim == 5 else layer.weight.unsqueeze(2)
    upright = layer.rotated_kernels()[:, 0].detach()
    shape = (*layer.weight.shape[:2], -1, *layer.kernel_size)
    # Absent planes may be there as zeros.
    stack = upright.view(shape)
    return stack if stack.shape[2] == count else stack[:, :, layer.taps]


def plain_convolution(layer: nn.Module, plane: Tensor) -> nn.Module:
    made = nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
        layer.groups, False, layer.padding_mode, device="meta",
    )  # fmt: skip
    return with_weight(made, plane)


def plain_transposed(layer: nn.Module, plane: Tensor) -> nn.Module:
    made = nn.ConvTranspose2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.output_padding,
        layer.groups, False, layer.dilation, device="meta",
    )  # fmt: skip
    return with_weight(made, plane)


def add_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    return out if bias is None else out + bias.detach().view(-1, 1, 1, 1)


def lifting(layer: nn.Module, x: Tensor, group: str) -> Tensor:
    """Compute ``out(., g) = L_g conv(k, L_g^-1 x)``."""
    plain = plain_convolution(layer, planes(layer, 1)[:, :, 0])
    return add_bias(torch.stack([conjugated(plain, x, g, None) for g in elements(group)], dim=2), layer.bias)


def group_convolution(layer: nn.Module, f: Tensor, group: str, count: int | None) -> Tensor:
    """Compute ``out(., g) = sum_u L_g conv(k_u, L_g^-1 f(., g u))``."""
    maps = []
    for i, g in enumerate(elements(group)):
        near = taps(group, count)
        terms = [
            conjugated(plain_convolution(layer, k), f[:, :, product_table(group)[i][u]], g, None)
            for u, k in zip(near, planes(layer, len(near)).unbind(2), strict=True)
        ]
        maps.append(torch.stack(terms).sum(0))
    return add_bias(torch.stack(maps, dim=2), layer.bias)


def transposed_convolution(
    layer: nn.Module, f: Tensor, group: str, count: int | None, size: Sequence[int] | None = None
) -> Tensor:
    """Compute ``out(., g u) = sum_u L_g conv_transpose(k_u, L_g^-1 f(., g))``."""
    maps: list[Tensor | float] = [0.0] * f.shape[2]
    for i, g in enumerate(elements(group)):
        for u, k in zip(taps(group, count), planes(layer, len(taps(group, count))).unbind(2), strict=True):
            h = product_table(group)[i][u]
            maps[h] = maps[h] + conjugated(plain_transposed(layer, k), f[:, :, i], g, size)
    return add_bias(torch.stack(maps, dim=2), layer.bias)


def upsampling(factor: int, mode: str) -> Callable[..., Tensor]:
    """Return torch's up-sampling, extended by its last row and column where a larger size is requested."""

    def plain(x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        y = F.interpolate(x, scale_factor=factor, mode=mode)
        if size is None:
            return y
        rows = torch.arange(size[0]).clamp(max=y.shape[-2] - 1)
        columns = torch.arange(size[1]).clamp(max=y.shape[-1] - 1)
        return y[..., rows, :][..., columns]

    return plain


def max_blur(x: Tensor) -> Tensor:
    """Take the maximum of every 2 x 2 pixels, smooth it by a convolution, and keep every second value."""
    peaks = torch.stack([x[..., :-1, :-1], x[..., 1:, :-1], x[..., :-1, 1:], x[..., 1:, 1:]]).amax(0)
    rows, columns = (torch.arange(-1, size + 1).clamp(0, size - 1) for size in peaks.shape[-2:])
    wide = peaks[..., rows, :][..., columns]
    binomial = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device) / 4
    kernel = torch.outer(binomial, binomial).expand(x.shape[1], 1, 3, 3)
    smooth = F.conv2d(wide, kernel, groups=x.shape[1])
    return smooth[..., : 2 * (x.shape[-2] // 2) : 2, : 2 * (x.shape[-1] // 2) : 2]


def pooled(f: Tensor, reduction: str) -> Tensor:
    total = f[:, :, 0]
    for i in range(1, f.shape[2]):
        total = torch.maximum(total, f[:, :, i]) if reduction == "max" else total + f[:, :, i]
    return total if reduction == "max" else total / f.shape[2]


def pooled_to_subgroup(f: Tensor, group: str) -> Tensor:
    """Compute ``out(., h) = mean over t of f(., h t)``."""
    _, inside, cosets = SUBGROUPS[group]
    maps = [sum(f[:, :, product_table(group)[h][t]] for t in cosets) / len(cosets) for h in inside]
    return torch.stack(maps, dim=2)


def batch_norm(layer: nn.Module, f: Tensor) -> Tensor:
    """Normalize each field by its mean and variance over samples, elements and pixels; by running ones in eval."""
    fields = []
    for c in range(f.shape[1]):
        mean, variance = layer.running_mean[c], layer.running_var[c]
        if layer.training:
            mean, variance = f[:, c].mean(), f[:, c].var(correction=0)
        fields.append((f[:, c] - mean) / (variance + layer.eps).sqrt() * layer.weight[c] + layer.bias[c])
    return torch.stack(fields, dim=1).detach()


def instance_norm(layer: nn.Module, f: Tensor) -> Tensor:
    """Normalize each field of each sample by its mean and variance over elements and pixels."""
    samples = []
    for sample in f:
        fields = [
            (field - field.mean()) / (field.var(correction=0) + layer.eps).sqrt() * weight + bias
            for field, weight, bias in zip(sample, layer.weight, layer.bias, strict=True)
        ]
        samples.append(torch.stack(fields))
    return torch.stack(samples).detach()
