"""Parts of an array in a file, read and written without mapping it: mapped pages would count as memory in use."""

import itertools
import math
from collections.abc import Iterator, Sequence
from io import FileIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
