"""Numbers that are needed again soon: in memory if they are few, else in a file."""

import itertools
import math
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

LIMIT = 2**23  # bytes, above which they are kept in a file


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
