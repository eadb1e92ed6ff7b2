"""Prediction of images of any size, tile by tile, without losing equivariance."""

import itertools
import math
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .._files import naming_file
from .._validate import as_int, error_about, invalid, wrong_shape
from ._orientation import in_one_orientation

BAND = 2**18  # values that are returned at a time
LIMIT = 2**23  # bytes, above which they are kept in a file


class Windows(Protocol):
    """Source of windows of an image, such as an open file."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return ``[C, height, width]``, as the module takes it."""


class ImagePrediction(NamedTuple):
    """Predicted classes of the pixels of an image.

    Args:
        labels: Most likely class, ``[H, W]``, int64.
        probabilities: Probability of each class, ``[classes, H, W]``, float32; None if not requested.

    Example:
        >>> from gconv_ga.predict import ImagePrediction
        >>> ImagePrediction._fields
        ('labels', 'probabilities')
    """

    labels: Tensor
    probabilities: Tensor | None


def predict_labels(
    model: nn.Module, images: Tensor, *, batch_size: int = 8, device: str | torch.device = "cpu"
) -> Tensor:
    """Return the most likely class of each pixel.

    Args:
        model: Module that returns logits; it runs in eval mode on ``device``, and its modes are restored.
        images: Images, normalized as in training.
        batch_size: Number of images at a time.
        device: Device to compute on. The model stays there.

    Shape:
        - images: ``[N, C, H, W]``
        - output: ``[N, H, W]``, int64, on the CPU

    Raises:
        ValueError: ``images`` is not ``[N, C, H, W]``, or a logit is NaN or infinite.

    Example:
        >>> import torch
        >>> from gconv_ga.predict import predict_labels
        >>> predict_labels(torch.nn.Conv2d(1, 3, 1), torch.zeros(2, 1, 8, 10)).shape
        torch.Size([2, 8, 10])
    """
    if images.ndim != 4:
        raise wrong_shape("images", "[N, C, H, W]", images)
    with torch.no_grad(), evaluating(model.to(device)):
        parts = images.split(as_int("batch_size", batch_size, minimum=1))
        return torch.cat([finite(model(part.to(device)), "images").argmax(dim=1).cpu() for part in parts])


def predict_image(
    model: nn.Module,
    image: Tensor | Windows,
    *,
    tile: int = 256,
    device: str | torch.device = "cpu",
    probabilities: bool = False,
    progress: Callable[[int, int], Any] | None = None,
) -> ImagePrediction:
    """Predict the classes of an image tile by tile, as `Tiled` does; no more logits are held than of a row of tiles.

    A network with an attribute ``group``, as those of `gconv_ga.models` have, sees each tile in the same orientation as
    its rotated copies, and with sides that are multiples of its stride. Its labels rotate with the image to the last
    bit.

    Args:
        model: Module that returns logits; it runs in eval mode on ``device``, and its modes are restored.
        image: Image, normalized as in training, or an open file, `gconv_ga.images.ImageFile`.
        tile: Side of a tile in pixels.
        device: Device of the network, one tile at a time. The model stays there.
        probabilities: Whether to return the softmax of the logits too.
        progress: As for `Tiled`.

    Shape:
        - image: ``[C, H, W]``

    Raises:
        ValueError: The image is not ``[C, H, W]``, a logit is NaN or infinite, or ``tile`` is not a positive int.

    Example:
        >>> import torch
        >>> from gconv_ga.predict import predict_image
        >>> labels, probabilities = predict_image(torch.nn.Conv2d(1, 3, 1), torch.zeros(1, 70, 45), tile=32)
        >>> labels.shape, probabilities
        (torch.Size([70, 45]), None)
    """
    labels, softmax = [], []
    network = in_one_orientation(model) or model
    for band in logit_bands(network, image, tile=tile, device=device, progress=progress):
        labels.append(band.argmax(dim=0))
        if probabilities:
            softmax.append(band.to(torch.float32).softmax(dim=0))
    return ImagePrediction(torch.cat(labels), torch.cat(softmax, dim=1) if probabilities else None)


def logit_bands(
    model: nn.Module,
    image: Tensor | Windows,
    *,
    tile: int,
    device: str | torch.device,
    progress: Callable[[int, int], Any] | None = None,
) -> Iterator[Tensor]:
    """Yield the logits from top to bottom, some rows at a time; arguments as for `predict_image`.

    Shape:
        - output: bands ``[classes, h, W]``

    Raises:
        ValueError: As for `predict_image`.
    """
    if isinstance(image, Tensor) and image.ndim != 3:
        raise wrong_shape("image", "[C, H, W]", image)
    tiled = Tiled(model, tile, device=device, progress=progress)
    with torch.no_grad(), evaluating(model.to(device)):
        for band in tiled.bands(image.unsqueeze(0) if isinstance(image, Tensor) else image):
            yield finite(band[0], "image")


def finite(logits: Tensor, argument: str) -> Tensor:
    """Return the logits if all are finite: the largest of a pixel is no class where one of them is NaN."""
    if not bool(logits.isfinite().all()):
        text = f"{argument} must be such that the network's output is finite, but some of it is NaN or infinite. "
        raise error_about(argument, text + "Look for NaN, and for values far beyond those of the training images.")
    return logits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set eval mode for a while; afterwards every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class Tiled(nn.Module):
    """Module that runs a network tile by tile on images of any size, and is as equivariant as the network itself.

    Tiles are square, their positions are symmetric, and where they overlap their outputs are averaged with symmetric
    weights. A rotated image is therefore cut into the rotated tiles: the prediction of an equivariant network rotates
    with the image, and a group average may be put inside or outside, ``GroupAverage(Tiled(net))`` or
    ``Tiled(GroupAverage(net))``, with the same result up to rounding.

    The weight of a tile is zero within a quarter of the overlap from its cut sides. Networks whose receptive field
    reaches no further, and whose layers have no stride, return what they return on the whole image. Along an axis
    shorter than ``tile`` the tile is as long as the image; nothing is padded.

    Args:
        module: Module whose output has the size of its input, such as logits.
        tile: Side of a tile in pixels. The memory of the network's feature maps grows with it.
        overlap: Smallest number of pixels that neighbours share, up to half a tile. If None, a quarter of the tile.
        device: Device of the network, one tile at a time. If None, that of the image. The module is not moved.
        progress: Called after each tile with the number of tiles done and their total.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, K, H, W]``, on the device of the input, in the dtype of the module's output

    Raises:
        ValueError: An argument is out of its range, the input is not ``[B, C, H, W]``, or the module changes the size.

    Example:
        >>> import torch
        >>> from gconv_ga.predict import Tiled
        >>> from gconv_ga.models import EquivariantUNet
        >>> net = Tiled(EquivariantUNet(1, 2, group="C4", width=2, depth=2).eval(), tile=32)
        >>> x = torch.randn(1, 1, 70, 45)
        >>> y, rotated = net(x), net(x.rot90(1, (-2, -1)))
        >>> y.shape, torch.allclose(rotated, y.rot90(1, (-2, -1)), atol=1e-5)
        (torch.Size([1, 2, 70, 45]), True)
    """

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        tile: int = 512,
        overlap: int | None = None,
        *,
        device: str | torch.device | None = None,
        progress: Callable[[int, int], Any] | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.tile, self.overlap = check_tile(tile, overlap)
        self.device = device
        self.progress = progress

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(list(self.bands(x)), dim=-2)

    def bands(self, x: Tensor | Windows) -> Iterator[Tensor]:
        """Yield the output from top to bottom in bands of rows.

        Args:
            x: The image, or a source of its windows such as `gconv_ga.images.ImageFile`. Of windows no more than some
                tiles are held: rows of tiles above 8 MiB spill to a temporary file (``TMPDIR``).

        Shape:
            - x: ``[B, C, H, W]``; windows: ``[C, H, W]``
            - output: bands ``[B, K, h, W]`` whose heights sum to H; for windows B is one

        Raises:
            ValueError: As for the class.
            OSError: The disk is full.
        """
        if isinstance(x, Tensor) and (x.ndim != 4 or 0 in x.shape):
            raise wrong_shape("input", "[B, C, H, W] with pixels in it", x)
        height, width = x.shape[-2:]
        tops = starts(height, self.tile, self.overlap)
        weights = shares(height, self.tile, self.overlap)
        above: Tensor | ScratchTensor | None = None
        done = 0
        for row, top in enumerate(tops):
            strip, dtype = self._row(x, top, weights[row], row, len(tops))
            step = max(1, BAND // (strip.shape[0] * strip.shape[1] * width))
            if above is not None:
                rest = above.shape[-2] - done  # rows that both rows of tiles contain
                for begin, end in _ranges(rest, step):
                    strip[..., begin:end, :] += above[..., done + begin : done + end, :]
            done = (tops[row + 1] if row + 1 < len(tops) else height) - top
            for begin, end in _ranges(done, step):
                yield strip[..., begin:end, :].to(dtype)
            above = strip

    def _row(
        self, x: Tensor | Windows, top: int, share: Tensor, row: int, rows: int
    ) -> "tuple[Tensor | ScratchTensor, torch.dtype]":
        """Output of the module for one row of tiles, averaged where they overlap, and the dtype that it came in."""
        height, width = x.shape[-2:]
        lefts, weights = starts(width, self.tile, self.overlap), shares(width, self.tile, self.overlap)
        joined: Tensor | ScratchTensor = torch.empty(0)
        dtype = torch.float32
        for column, (left, weight) in enumerate(zip(lefts, weights, strict=True)):
            part = _window(x, top, left, min(self.tile, height), min(self.tile, width))
            y = self.module(part if self.device is None else part.to(self.device)).to(part.device)
            if y.ndim != 4 or y.shape[-2:] != part.shape[-2:]:
                raise wrong_shape("the module's output", f"[B, K, {part.shape[-2]}, {part.shape[-1]}], as its input", y)
            if column == 0:
                dtype = y.dtype
                shape, mixed = (*y.shape[:-1], width), torch.promote_types(dtype, torch.float32)
                # The output for a tensor will be held as a whole anyway, and a file cannot pass on gradients.
                held = isinstance(x, Tensor) or y.requires_grad
                joined = y.new_zeros(shape, dtype=mixed) if held else scratch(shape, mixed)
            joined[..., :, left : left + self.tile] += torch.outer(share, weight).to(y.device, mixed) * y
            if self.progress is not None:
                self.progress(row * len(lefts) + column + 1, rows * len(lefts))
        return joined, dtype

    def extra_repr(self) -> str:
        return f"tile={self.tile}, overlap={self.overlap}"


def _ranges(stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of ``step`` from zero to ``stop``."""
    for begin in range(0, stop, step):
        yield begin, min(begin + step, stop)


def _window(x: Tensor | Windows, top: int, left: int, height: int, width: int) -> Tensor:
    """``[B, C, height, width]``."""
    if isinstance(x, Tensor):
        return x[..., top : top + height, left : left + width]
    return x.window(top, left, height, width).unsqueeze(0)


def check_tile(tile: int, overlap: int | None) -> tuple[int, int]:
    """Check the side of a tile and the smallest overlap of neighbours; None stands for a quarter of the side.

    Raises:
        ValueError: An argument is out of its range.
    """
    side = as_int("tile", tile, minimum=1)
    if overlap is None:
        return side, side // 4
    if as_int("overlap", overlap, minimum=0) > side // 2:
        raise invalid("overlap", f"at most {side // 2}, half of tile={side}", overlap)
    return side, overlap


def starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return the first pixel of each tile along an axis, so that neighbours share ``overlap`` pixels or more.

    ``starts[i] + starts[-1 - i] == size - tile``: the positions are the same when the axis is reversed.
    """
    span = size - tile
    if span <= 0:
        return [0]
    count = -(-(size - overlap) // (tile - overlap))
    # An odd number of tiles has one in the middle, which cannot begin half way along an odd span.
    count += count % 2 * (span % 2)
    near = [-(-place * span // (count - 1)) for place in range(count // 2)]  # rounded up: the middle gap is no wider
    middle = [span // 2] if count % 2 else []
    return near + middle + [span - start for start in reversed(near)]


def shares(size: int, tile: int, overlap: int) -> list[Tensor]:
    """Return the weight of each tile at each of its pixels; over all tiles that contain a pixel it sums to one.

    The weight is zero within a quarter of the overlap from a side at which the tile is cut, where the output depends on
    the cut; from there it rises over half the overlap. At the border of the image it is full.

    Shape:
        - output: for each tile ``[min(tile, size)]``, float64
    """
    begins = starts(size, tile, overlap)
    side = min(tile, size)
    rise = (torch.arange(side, dtype=torch.float64) + 0.5 - overlap / 4) / (overlap / 2) if overlap else None
    weights, total = [], torch.zeros(size, dtype=torch.float64)
    for begin in begins:
        weight = torch.ones(side, dtype=torch.float64)
        if rise is not None and begin > 0:
            weight = weight.minimum(rise)
        if rise is not None and begin + side < size:
            weight = weight.minimum(rise.flip(0))
        weights.append(weight.clamp_(min=0))
        total[begin : begin + side] += weights[-1]
    return [weight / total[begin : begin + side] for begin, weight in zip(begins, weights, strict=True)]


class ScratchTensor:
    """Zeros to be overwritten, in a temporary file without a name, of which only what is read or written is in memory.

    The file lies where the system keeps temporary files (``TMPDIR``) and is gone with the object. It is not mapped:
    pages of a mapped file count as memory in use. The last two axes are indexed by slices, ``[..., rows, columns]``,
    and what is read is a copy.

    Args:
        shape: Shape of the whole, ``[..., H, W]``.
        dtype: The number type, one that numpy has.

    Raises:
        OSError: The disk is full.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.shape = tuple(shape)
        self._dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self._file: Any = tempfile.TemporaryFile(prefix="gconv_ga-", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        with naming_file(tempfile.gettempdir()):
            self._file.truncate(math.prod(self.shape) * self._dtype.itemsize)

    def __getitem__(self, index: tuple[Any, slice, slice]) -> Tensor:
        shape, offsets = self._rows(index)
        values = np.empty((math.prod(shape[:-1]), shape[-1]), self._dtype)
        for row, offset in zip(values.view(np.uint8), offsets, strict=True):
            self._file.seek(offset)
            content = row.data
            while content:  # one call may read, or below write, less than there is
                content = content[self._file.readinto(content) :]
        return torch.from_numpy(values).view(shape)

    def __setitem__(self, index: tuple[Any, slice, slice], values: Tensor) -> None:
        shape, offsets = self._rows(index)
        whole = np.broadcast_to(values.numpy().astype(self._dtype, copy=False), shape)
        for row, offset in zip(whole.reshape(-1, shape[-1]), offsets, strict=True):
            self._file.seek(offset)
            content = np.ascontiguousarray(row).view(np.uint8).data
            with naming_file(tempfile.gettempdir()):
                while content:
                    content = content[self._file.write(content) :]

    def _rows(self, index: tuple[Any, slice, slice]) -> tuple[tuple[int, ...], Iterator[int]]:
        """The shape of a part, and the byte at which each of its rows begins."""
        height, width = self.shape[-2:]
        (top, bottom, _), (left, right, _) = index[-2].indices(height), index[-1].indices(width)
        planes = range(math.prod(self.shape[:-2]))
        places = ((plane * height + row) * width + left for plane, row in itertools.product(planes, range(top, bottom)))
        shape = (*self.shape[:-2], bottom - top, right - left)
        return shape, (place * self._dtype.itemsize for place in places)


def scratch(shape: Sequence[int], dtype: torch.dtype) -> Tensor | ScratchTensor:
    """Return zeros to be overwritten: a tensor up to 8 MiB, above that a `ScratchTensor`.

    Args:
        shape: Shape of the whole, ``[..., H, W]``.
        dtype: The number type, one that numpy has.

    Raises:
        OSError: The disk is full.
    """
    if math.prod(shape) * dtype.itemsize > LIMIT:
        return ScratchTensor(shape, dtype)
    return torch.zeros(*shape, dtype=dtype)
