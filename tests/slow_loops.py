"""Rotation, correlation and lifting pixel by pixel, from their definitions: no package, no flip, no rot90."""

import torch
from torch import Tensor

N_OF = {"C1": 1, "C2": 2, "C4": 4, "D1": 1, "D2": 2, "D4": 4}
Matrix = tuple[tuple[int, int], tuple[int, int]]


def product(a: Matrix, b: Matrix) -> Matrix:
    rows = [[sum(a[i][k] * b[k][j] for k in range(2)) for j in range(2)] for i in range(2)]
    return (rows[0][0], rows[0][1]), (rows[1][0], rows[1][1])


def transposed(a: Matrix) -> Matrix:
    return (a[0][0], a[1][0]), (a[0][1], a[1][1])


def matrices(group: str) -> list[Matrix]:
    """Return every element on columns (x right, y up): rotations counter-clockwise, then "reflect, then rotate"."""
    n, quarter, power = N_OF[group], ((0, -1), (1, 0)), ((1, 0), (0, 1))
    rotations: list[Matrix] = []
    for i in range(4):
        if i % (4 // n) == 0:
            rotations.append(power)
        power = product(quarter, power)
    mirror: Matrix = ((-1, 0), (0, 1))
    return rotations if group[0] == "C" else rotations + [product(r, mirror) for r in rotations]


def turn(x: Tensor, g: Matrix) -> Tensor:
    """Compute ``(L_g x)(y) = x(g^-1 y)``, about the centre, pixel by pixel."""
    height, width = x.shape[-2:]
    new_height, new_width = (width, height) if g[0][0] == 0 else (height, width)
    back = transposed(g)  # the inverse of an orthogonal matrix
    source = []
    for i in range(new_height):
        for j in range(new_width):
            # Twice the coordinates, so that centres between pixels are whole numbers.
            right, up = 2 * j - (new_width - 1), (new_height - 1) - 2 * i
            from_right = back[0][0] * right + back[0][1] * up
            from_up = back[1][0] * right + back[1][1] * up
            source.append((height - 1 - from_up) // 2 * width + (from_right + width - 1) // 2)
    return x.flatten(-2)[..., source].unflatten(-1, (new_height, new_width))


def correlate(kernel: Tensor, image: Tensor, padding: int = 0) -> Tensor:
    """Compute ``(k * f)(y) = sum_u k(u) f(y + u)``, one output pixel after another."""
    (_, _, kh, kw), (b, c, h, w) = kernel.shape, image.shape
    wide = torch.zeros(b, c, h + 2 * padding, w + 2 * padding, dtype=image.dtype, device=image.device)
    wide[:, :, padding : padding + h, padding : padding + w] = image
    rows, columns, taps = wide.shape[2] - kh + 1, wide.shape[3] - kw + 1, kernel.flatten(1).T
    pixels = [wide[:, :, i : i + kh, j : j + kw].flatten(1) @ taps for i in range(rows) for j in range(columns)]
    return torch.stack(pixels, dim=-1).unflatten(-1, (rows, columns))


def lift(kernel: Tensor, image: Tensor, group: str, padding: int = 0) -> Tensor:
    """Compute ``[k * f](g) = (L_g k) * f`` for each element."""
    return torch.stack([correlate(turn(kernel, g), image, padding) for g in matrices(group)], dim=2)
