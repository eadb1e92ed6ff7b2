"""Numbers in a file: used as a tensor is used."""

import errno
import io

import numpy as np
import pytest
import torch

from gconv_ga.predict import _tiles
from gconv_ga.predict._tiles import ScratchTensor, scratch


class Slow(io.BytesIO):
    """A file that reads and writes no more than three bytes a call, as files may."""

    def readinto(self, buffer):
        return super().readinto(memoryview(buffer)[:3])

    def write(self, data):
        return super().write(bytes(data[:3]))


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
def test_numbers_on_disk_are_used_as_a_tensor_is(dtype, slow):
    held, there = torch.zeros(2, 3, 5, 7, dtype=dtype), ScratchTensor((2, 3, 5, 7), dtype)
    if slow:
        there._file.close()
        there._file = Slow(bytes(held.numel() * held.element_size()))
    assert there.shape == held.shape
    numbers = torch.arange(3 * 5 * 4).view(3, 5, 4).to(dtype)
    for all_of in (held, there):
        all_of[..., :, 2:6] = numbers
        if dtype.is_floating_point:
            all_of[..., 1:4, -5:] += numbers[:, :3, :1]
    parts = [
        (slice(None), slice(None)),
        (slice(3, 99), slice(None)),
        (slice(2, 4), slice(-3, -1)),
        (slice(0), slice(2)),
    ]
    for rows, columns in parts:
        assert there[..., rows, columns].dtype == dtype
        assert torch.equal(there[..., rows, columns], held[..., rows, columns])
    for all_of in (held, there):
        all_of[..., :4, :1] = torch.tensor([[[1], [2], [3], [4]]])  # of another number type
    assert torch.equal(there[..., :, :], held)
    with pytest.raises(ValueError, match="broadcast"):
        there[..., :3, :] = numbers


def test_much_lies_on_disk_and_little_in_memory(monkeypatch):
    monkeypatch.setattr(_tiles, "LIMIT", 24)
    assert isinstance(scratch((2, 3), torch.float32), torch.Tensor)
    assert isinstance(scratch((7, 1), torch.float32), ScratchTensor)
    assert scratch((2, 3), torch.float32).eq(0).all()
    assert scratch((7, 1), torch.float32)[..., :, :].eq(0).all()


class Full(io.BytesIO):
    """A disk without room."""

    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_an_error():
    numbers = ScratchTensor((4, 4), torch.float32)
    numbers._file.close()
    numbers._file = Full()
    with pytest.raises(OSError, match="No space left"):
        numbers[..., :1, :] = torch.ones(1, 4)


def test_numbers_that_numpy_lacks_are_refused():
    with pytest.raises(TypeError, match="BFloat16"):
        ScratchTensor((4, 4), torch.bfloat16)


def test_the_order_of_the_bytes_in_memory_does_not_matter():
    numbers = ScratchTensor((2, 4, 4), torch.float32)
    values = torch.arange(32.0).view(2, 4, 4)
    numbers[..., :, :] = values.transpose(-2, -1)
    assert np.array_equal(numbers[..., :, :].numpy(), values.transpose(-2, -1).numpy())
