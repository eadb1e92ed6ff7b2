"""Numbers that are too many to be held: they lie in a temporary file."""

import math
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._boxes import Box, read_box, write_box

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
        >>> type(scratch((2, 3), torch.float32)).__name__, type(scratch((2, 2**20), torch.float64)).__name__
        ('Tensor', 'ScratchTensor')
    """
    if math.prod(shape) * dtype.itemsize > LIMIT:
        return ScratchTensor(shape, dtype)
    return torch.zeros(*shape, dtype=dtype)
