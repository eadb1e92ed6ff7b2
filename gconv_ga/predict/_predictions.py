"""Predictions as files: class indices with a colour map, probabilities, an overlay."""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageColor
from torch import Tensor, nn

from .._files import growing
from .._validate import invalid, wrong_shape
from ..images import ImageFile
from ..plots import PALETTE
from ._objects import ObjectFiles, classes_of, joined, network_for
from ._orientation import in_one_orientation
from ._tiles import ImagePrediction, ScratchTensor, logit_bands, scratch


def save_prediction(
    prediction: ImagePrediction, path: str | Path, *, colors: Sequence[Sequence[int]] | None = None
) -> Path:
    """Write the class indices as a PNG of 8 bits with a colour map, or for more than 256 classes of 16 bits in grey.

    The values of the pixels are the class indices; the colours are for viewers. Probabilities are written beside it, as
    ``.npy``. A file exists under its name only when it is complete, and the PNG is written last.

    Args:
        prediction: Result of `predict_image`.
        path: The PNG; its folder is made if need be.
        colors: Red, green and blue of each class, 0 .. 255. If None, black for class 0 and a palette for the others.

    Returns:
        The path.

    Raises:
        ValueError: The labels are not ``[H, W]``, or a label is not a class index below 65536.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from gconv_ga.predict import ImagePrediction, save_prediction
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_prediction(ImagePrediction(torch.tensor([[0, 1], [2, 0]]), None), f"{folder}/a.png")
        ...     path.name
        'a.png'
    """
    labels, file = prediction.labels, Path(path)
    if labels.ndim != 2:
        raise wrong_shape("labels", "[H, W]", labels)
    highest = int(labels.max())
    if int(labels.min()) < 0 or highest > 65535:
        raise invalid("labels", "class indices from 0 to 65535", labels)
    if prediction.probabilities is not None:
        with growing(file.with_suffix(".npy")) as array:
            np.save(array, prediction.probabilities.cpu().numpy(), allow_pickle=False)
    with growing_png(file, *labels.shape, palette=_palette(highest + 1, colors)) as add:
        add(labels.cpu().numpy().astype(_dtype(highest + 1)))
    return file


def predict_to_file(
    model: nn.Module,
    image: ImageFile,
    path: str | Path,
    *,
    tile: int = 256,
    device: str | torch.device = "cpu",
    probabilities: bool = False,
    overlay: bool = False,
    objects: ObjectFiles | None = None,
    colors: Sequence[Sequence[int]] | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Path:
    """Predict an image file of any size and write the files of `save_prediction`.

    Besides the network no more than some tiles are held: memory does not grow with the image, except for objects, and
    where `gconv_ga.images.ImageFile` holds some of the file. Output is written as it is computed.

    Args:
        model: As for `predict_image`.
        image: Open file, with the normalization of the training.
        path: The PNG; its folder is made if need be.
        tile: As for `predict_image`.
        device: As for `predict_image`.
        probabilities: Whether to write ``NAME.npy`` too, the probabilities, float32 ``[classes, H, W]``.
        overlay: Whether to write ``NAME_overlay.png`` too, the image with all classes but the first laid over it.
        objects: Files about objects to write too, ``NAME_objects.tif`` and ``NAME_objects.csv`` at least; the classes
            are then those of `predict_objects`. If None, objects are not looked for.
        colors: As for `save_prediction`.
        progress: As for `Tiled`.

    Returns:
        The path.

    Raises:
        ValueError: The file is damaged, the normalization is for other channels, or the network's output is not finite.
        OSError: The disk is full; the error names the file, and nothing of it is left.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from gconv_ga.images import ImageFile
        >>> from gconv_ga.predict import predict_to_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.zeros((1, 70, 45), dtype=np.uint8))
        ...     net = torch.nn.Conv2d(1, 3, 1)
        ...     predict_to_file(net, ImageFile(f"{folder}/a.npy"), f"{folder}/a.png", tile=32).name
        'a.png'
    """
    file, (_, height, width) = Path(path), image.shape
    drawn = Overlay(image, colors) if overlay else None
    network, extra = (in_one_orientation(model) or model, 0) if objects is None else network_for(model, objects.decoder)
    kept: list[tuple[Tensor, ...]] = []  # classes, their probabilities, and maps, for objects
    top = 0
    with ExitStack() as files:
        for outputs in logit_bands(network, image, tile=tile, device=device, progress=progress):
            classes = len(outputs) - extra
            band = outputs[:classes]
            if not top:  # the labels are opened first and closed last
                add_labels = files.enter_context(growing_png(file, height, width, palette=_palette(classes, colors)))
                if probabilities:
                    add_probabilities = files.enter_context(growing_npy(file.with_suffix(".npy"), height, width))
                if drawn is not None:
                    beside = file.with_name(f"{file.stem}_overlay.png")
                    add_drawn = files.enter_context(growing_png(beside, height, width))
            found = band.argmax(dim=0)
            add_labels(found.numpy().astype(_dtype(classes)))
            if probabilities:
                add_probabilities(band.to(torch.float32).softmax(dim=0).numpy())
            if drawn is not None:
                add_drawn(drawn.rows(top, found))
            if objects is not None:
                kept.append((*classes_of(band), outputs[classes:]))
            top += band.shape[1]
        if objects is not None:
            labels, likely, maps = joined(kept)
            objects.write(file, labels, likely, image, colors, maps if extra else None)
    return file


def _dtype(classes: int) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if classes <= 256 else np.uint16


def _palette(classes: int, colors: Sequence[Sequence[int]] | None) -> NDArray[np.uint8] | None:
    """Colours of all values of 8 bits; None for 16 bits."""
    return class_colors(256, colors) if classes <= 256 else None


GREY, RGB, INDEXED = 0, 2, 3  # colour types of PNG


def class_colors(classes: int, colors: Sequence[Sequence[int]] | None = None) -> NDArray[np.uint8]:
    """Return a colour for each class: first the given ones; else black for class 0, and the palette in a cycle.

    Shape:
        - output: ``[classes, 3]``
    """
    ours = np.array([ImageColor.getrgb(colour) for colour in PALETTE], dtype=np.uint8)
    table = ours[np.arange(classes) % len(ours)]
    table[0] = 0
    if colors is not None:
        given = np.asarray(colors, dtype=np.uint8)[:classes]
        table[: len(given)] = given
    return table


@contextmanager
def growing_png(
    path: Path, height: int, width: int, *, palette: NDArray[np.uint8] | None = None
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write a PNG row by row: indices into a palette, or else grey levels of 8 or 16 bits or RGB, as the rows are.

    Args:
        path: As for `growing`.
        height: Number of rows of the image.
        width: Number of columns.
        palette: Colours ``[colours, 3]``, if the rows are indices.

    Shape:
        - rows: ``[h, W]``, uint8 or uint16, or ``[h, W, 3]``, uint8; together ``H`` rows
    """
    with growing(path) as file:
        image = _Png(file, height, width, palette)
        yield image.add
        image.finish()


@contextmanager
def growing_npy(path: Path, height: int, width: int) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write an array ``[C, H, W]`` of float32, as `numpy.save` writes it, row by row.

    Args:
        path: As for `growing`.
        height: Number of rows of the array.
        width: Number of columns.

    Shape:
        - rows: ``[C, h, W]``; together ``H`` rows
    """
    with growing(path) as file:
        top = 0

        def add(rows: NDArray[Any]) -> None:
            nonlocal top
            channels = len(rows)
            file.seek(0)
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (channels, height, width)}
            )
            begin = file.tell()
            for channel, values in enumerate(rows.astype("<f4", copy=False)):
                file.seek(begin + 4 * width * (channel * height + top))
                file.write(np.ascontiguousarray(values).data)
            top += rows.shape[1]

        yield add


class _Png:
    """PNG that is written row by row."""

    def __init__(self, file: BinaryIO, height: int, width: int, palette: NDArray[np.uint8] | None) -> None:
        self.file, self.size, self.palette = file, (width, height), palette
        # Filter 2 stores differences from the row above, which help compression, but not of indices.
        self.filter = 2 if palette is None else 0
        self.compressor = zlib.compressobj()
        self.above: NDArray[np.uint8] | None = None  # the bytes of the last row

    def add(self, rows: NDArray[Any]) -> None:
        """Write the next rows."""
        values = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder(">")).view(np.uint8).reshape(len(rows), -1)
        if self.above is None:
            self._begin(rows)
            self.above = np.zeros_like(values[0])
        above = np.concatenate((self.above[None], values[:-1]))
        filtered = values - above if self.filter else values
        self.above = values[-1].copy()
        self._chunk(b"IDAT", self.compressor.compress(np.insert(filtered, 0, self.filter, axis=1).data))

    def finish(self) -> None:
        """Write the end of the file."""
        self._chunk(b"IDAT", self.compressor.flush())
        self._chunk(b"IEND")

    def _begin(self, rows: NDArray[Any]) -> None:
        kind = RGB if rows.ndim == 3 else GREY if self.palette is None else INDEXED
        self.file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", *self.size, 8 * rows.dtype.itemsize, kind, 0, 0, 0))
        if self.palette is not None:
            self._chunk(b"PLTE", self.palette.tobytes())

    def _chunk(self, name: bytes, data: bytes = b"") -> None:
        if data or name == b"IEND":
            self.file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


WEIGHT = 0.45  # of the colour of a class over the image
SIDE = 256  # of the windows that are read: a row of tiles of a file should not be decoded for a few rows of pixels
SAMPLE = 2**20  # largest number of pixels from which black and white are found


class Overlay:
    """Overlay that is drawn band by band from top to bottom.

    Args:
        image: Open image file.
        colors: As for `class_colors`.
    """

    def __init__(self, image: ImageFile, colors: Sequence[Sequence[int]] | None) -> None:
        channels, _, _ = image.shape
        self.raw = image.unnormalized()
        self.shown = (0, 1, 2) if channels >= 3 else (0,)  # the first three of many channels
        self.colors = colors
        self.low, self.high = self._limits()
        self._top = 0
        self._read: Tensor | ScratchTensor = torch.empty(0, 0, 0)  # the rows in use, from `_top` on

    def _limits(self) -> tuple[float, float]:
        """Values of black and white: 0 and 255 for 8 bits; else half a percent of the values lies beyond each."""
        _, height, width = self.raw.shape
        step = max(64, height * width // SAMPLE) | 1  # odd, or some widths would sample one column only
        parts = []
        for piece in self.raw.raw_pieces():
            if piece.dtype == torch.uint8:
                return 0.0, 255.0
            parts.append(piece[list(self.shown)].flatten(1)[:, ::step].to(torch.float32).flatten())
        low, high = np.percentile(torch.cat(parts).numpy(), (0.5, 99.5))
        return float(low), float(high)

    def rows(self, top: int, labels: Tensor) -> NDArray[np.uint8]:
        """Return some rows of the overlay.

        Args:
            top: First row.
            labels: Classes of the rows.

        Shape:
            - labels: ``[h, W]``
            - output: ``[h, W, 3]``
        """
        pixels = self._pixels(top, top + len(labels)).expand(3, -1, -1)
        grey = ((pixels - self.low) / max(self.high - self.low, 1e-12)).clamp(0, 1) * 255
        table: NDArray[Any] = class_colors(int(labels.max()) + 1, self.colors)
        paint = torch.from_numpy(table)[labels].permute(2, 0, 1)
        mixed = torch.where(labels > 0, torch.lerp(grey, paint.to(grey.dtype), WEIGHT), grey)
        return mixed.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

    def _pixels(self, top: int, end: int) -> Tensor:
        """Return some rows of the image, in the channels that are shown."""
        parts = []
        while top < end:
            if not self._top <= top < self._top + self._read.shape[1]:
                self._read_from(top)
            parts.append(self._read[:, top - self._top : end - self._top, :])
            top += parts[-1].shape[1]
        return torch.cat(parts, dim=1)

    def _read_from(self, top: int) -> None:
        _, height, width = self.raw.shape
        rows = min(SIDE, height - top)
        self._top, self._read = top, scratch((len(self.shown), rows, width), torch.float32)
        for left in range(0, width, SIDE):
            columns = min(SIDE, width - left)
            window = self.raw.window(top, left, rows, columns)
            self._read[..., :, left : left + columns] = window[list(self.shown)]
