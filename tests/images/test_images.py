"""Image files read into tensors; what cannot be read is refused by its name."""

import numpy as np
import pytest
import torch
from PIL import Image

from gconv_ga.images import read_image, read_mask


@pytest.fixture
def written(tmp_path):
    def write(array, name="x.png"):
        Image.fromarray(array).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_levels_are_those_of_the_file(dtype, name, written):
    top = np.iinfo(dtype).max
    array = np.array([[0, 1, 2], [top - 2, top - 1, top]], dtype=dtype)
    assert torch.equal(read_image(written(array, name)), torch.tensor(array.astype(np.float32))[None])


def test_colours_come_first(written):
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image = read_image(written(array))
    assert image.shape == (3, 2, 3)
    assert image.is_contiguous()
    assert [image[channel, 1, 2] for channel in range(3)] == array[1, 2].tolist()


def test_a_mask_holds_class_indices(written):
    array = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    mask = read_mask(written(array))
    assert mask.dtype == torch.int64
    assert mask.tolist() == array.tolist()


def test_a_mask_with_a_palette_holds_class_indices(tmp_path):
    file = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode=None).convert("P")
    file.putdata([0, 1, 2, 1])
    file.save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png").tolist() == [[0, 1], [2, 1]]


def test_a_mask_in_colour_is_refused(written):
    path = written(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    with pytest.raises(ValueError, match=r"^mask must be a file of one channel .* has 3 channels"):
        read_mask(path)


@pytest.mark.parametrize("what", ["absent", "text", "truncated"])
def test_a_file_that_cannot_be_read_is_refused(what, written, generator):
    noise = torch.randint(0, 256, (64, 64), generator=generator, dtype=torch.uint8).numpy()
    path = written(noise)
    if what == "absent":
        path.unlink()
    else:
        path.write_bytes(b"no image" if what == "text" else path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"^path must be a readable image file, but got path='.*x\.png'"):
        read_image(path)
