"""Parts of an array in a file, read and written without mapping it: mapped pages would count as memory in use."""

import itertools
import math
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from io import FileIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Box = Sequence[tuple[int, int]]  # for each axis the first index and the one after the last


def read_box(file: FileIO, dtype: np.dtype[Any], lengths: Sequence[int], box: Box, offset: int = 0) -> NDArray[Any]:
    """A part of an array whose last axis runs fastest.

    Args:
        file: Open for reading, without a buffer.
        dtype: The number type, with its byte order.
        lengths: Of the axes of the whole.
        box: Which part.
        offset: Where the array begins, in bytes.

    Raises:
        OSError: The file ends too early.
    """
    values: NDArray[Any] = np.empty([stop - start for start, stop in box], dtype)
    content, place = values.reshape(-1).view(np.uint8).data, 0
    for start, count in _runs(lengths, box):
        file.seek(offset + start * dtype.itemsize)
        end = place + count * dtype.itemsize
        while place < end:  # one call may give less than there is
            size = file.readinto(content[place:end])
            if not size:
                raise OSError(f"the file ends {end - place} bytes too early")
            place += size
    return values


def write_box(file: FileIO, values: NDArray[Any], lengths: Sequence[int], box: Box) -> None:
    """Writes a part of such an array, which begins where the file does.

    Args:
        file: Open for writing, without a buffer.
        values: The part, or what can be broadcast to it.
        lengths: Of the axes of the whole.
        box: Where it goes.

    Raises:
        OSError: The disk is full.
    """
    whole = np.broadcast_to(values, [stop - start for start, stop in box])
    content, place = np.ascontiguousarray(whole).reshape(-1).view(np.uint8).data, 0
    for start, count in _runs(lengths, box):
        file.seek(start * values.itemsize)
        end = place + count * values.itemsize
        while place < end:
            place += file.write(content[place:end])


def _runs(lengths: Sequence[int], box: Box) -> Iterator[tuple[int, int]]:
    """Numbers that lie side by side in the file: the first of them, and how many."""
    cut = len(lengths) - 1  # the last axis of which not all is asked for
    while cut > 0 and box[cut] == (0, lengths[cut]):
        cut -= 1
    steps = [math.prod(lengths[axis + 1 :]) for axis in range(cut + 1)]
    first, stop = box[cut]
    for outer in itertools.product(*(range(*span) for span in box[:cut])):
        begin = sum(index * step for index, step in zip(outer, steps, strict=False)) + first * steps[cut]
        yield begin, (stop - first) * steps[cut]


LIMIT = 2**23  # bytes above which what is needed again lies on disk


class ScratchTensor:
    """Zeros, and what is put in their place: of a file without a name only what is read or written is in memory.

    The file lies where the system keeps temporary files (``TMPDIR``), and is gone with the object. Parts are named by
    slices, as in a tensor, and read as a copy.

    Args:
        shape: Of the whole.
        dtype: The number type, one that numpy has.

    Raises:
        OSError: The disk is full.

    Example:
        >>> import torch
        >>> from gconv_ga.images import ScratchTensor
        >>> numbers = ScratchTensor((2, 3), torch.float32)
        >>> numbers[:, 1:2] = torch.tensor([[5.0], [7.0]])
        >>> numbers[1:, 1:]
        tensor([[7., 0.]])
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.shape = tuple(shape)
        self._dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self._file: Any = tempfile.TemporaryFile(prefix="gconv_ga-", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._file.truncate(math.prod(self.shape) * self._dtype.itemsize)

    def __getitem__(self, index: Any) -> Tensor:
        return torch.from_numpy(read_box(self._file, self._dtype, self.shape, self._box(index)))

    def __setitem__(self, index: Any, values: Tensor) -> None:
        write_box(self._file, values.numpy().astype(self._dtype, copy=False), self.shape, self._box(index))

    def _box(self, index: Any) -> Box:
        """The first and the last place on each axis, of slices."""
        given = index if isinstance(index, tuple) else (index,)
        before = given.index(...) if ... in given else len(given)
        after = given[before + 1 :]
        middle = (slice(None),) * (len(self.shape) - before - len(after))
        slices = (*given[:before], *middle, *after)
        return [part.indices(length)[:2] for part, length in zip(slices, self.shape, strict=True)]


def scratch(shape: Sequence[int], dtype: torch.dtype) -> Tensor | ScratchTensor:
    """Zeros to be filled: in memory up to 8 MiB, else on disk.

    Args:
        shape: Of the whole.
        dtype: The number type, one that numpy has.

    Raises:
        OSError: The disk is full.

    Example:
        >>> import torch
        >>> from gconv_ga.images import scratch
        >>> type(scratch((2, 3), torch.float32)).__name__, type(scratch((2, 2**20), torch.float64)).__name__
        ('Tensor', 'ScratchTensor')
    """
    if math.prod(shape) * dtype.itemsize > LIMIT:
        return ScratchTensor(shape, dtype)
    return torch.zeros(*shape, dtype=dtype)
