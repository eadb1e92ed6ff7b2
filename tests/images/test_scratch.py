"""Arrays in files by parts: what numpy reads and writes at the same place."""

import errno
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gconv_ga.images import ScratchTensor, _scratch, scratch
from gconv_ga.images._scratch import read_box, write_box


@st.composite
def arrays(draw):
    """The lengths of some axes, and a part of each."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    spans = [sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length)))) for length in lengths]
    return lengths, [tuple(span) for span in spans]


class Slow(io.BytesIO):
    """Gives and takes no more than three bytes a call, as a file may."""

    def readinto(self, buffer):
        return super().readinto(memoryview(buffer)[:3])

    def write(self, data):
        return super().write(bytes(data[:3]))


@given(arrays(), st.sampled_from(["<u1", "<i2", ">f4", "<f8"]))
def test_a_box_is_the_same_part_of_an_array(array, dtype):
    lengths, box = array
    values = np.arange(np.prod(lengths)).reshape(lengths).astype(dtype)
    part = tuple(slice(*span) for span in box)
    file = Slow(b"head" + values.tobytes())
    found = read_box(file, values.dtype, lengths, box, offset=4)
    assert found.dtype == values.dtype
    assert np.array_equal(found, values[part])
    file = Slow(values.tobytes())
    write_box(file, (values[part] + 7).astype(dtype), lengths, box)
    values[part] += 7
    assert file.getvalue() == values.tobytes()


def test_a_file_that_ends_too_early_is_refused():
    with pytest.raises(OSError, match="the file ends 2 bytes too early"):
        read_box(io.BytesIO(bytes(10)), np.dtype("<i2"), [2, 3], [(1, 2), (0, 3)])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
def test_numbers_on_disk_are_used_as_a_tensor_is(dtype):
    held, there = torch.zeros(2, 3, 5, 7, dtype=dtype), ScratchTensor((2, 3, 5, 7), dtype)
    assert there.shape == held.shape
    numbers = torch.arange(3 * 5 * 4).view(3, 5, 4).to(dtype)
    for all_of in (held, there):
        all_of[..., 2:6] = numbers
        if dtype.is_floating_point:
            all_of[1:, :, 1:4, -5:] += numbers[:, :3, :1]
    for part in (..., slice(1), (..., slice(3, 99)), (slice(1, 2), ..., slice(2, 4), slice(-3, -1))):
        assert there[part].dtype == dtype
        assert torch.equal(there[part], held[part])
    for all_of in (held, there):
        all_of[..., :4, :1] = torch.tensor([[[1], [2], [3], [4]]])  # of another number type
    assert torch.equal(there[...], held)
    with pytest.raises(ValueError, match="broadcast"):
        there[..., :3] = numbers


def test_much_lies_on_disk_and_little_in_memory(monkeypatch):
    monkeypatch.setattr(_scratch, "LIMIT", 24)
    assert isinstance(scratch((2, 3), torch.float32), torch.Tensor)
    assert isinstance(scratch((7, 1), torch.float32), ScratchTensor)


class Full(io.BytesIO):
    """A disk without room."""

    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_an_error():
    numbers = ScratchTensor((4, 4), torch.float32)
    numbers._file.close()
    numbers._file = Full()
    with pytest.raises(OSError, match="No space left"):
        numbers[:1] = torch.ones(1, 4)
