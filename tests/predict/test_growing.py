"""Files that grow row by row: what other readers find in them, and that they are there as a whole or not at all."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from gconv_ga.images import ImageFile, Normalization
from gconv_ga.predict import ImagePrediction, _tiles, predict_image, predict_labels, predict_to_file, save_prediction
from gconv_ga.predict._predictions import class_colors, growing, growing_npy, growing_png

HEIGHT, WIDTH = 37, 23
SHAPES = {"grey": (np.uint8, ()), "grey 16": (np.uint16, ()), "rgb": (np.uint8, (3,))}
CUTS = {"at once": [], "row by row": range(1, HEIGHT), "bands": [5, 6, 30]}


def numbers(dtype, *shape):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("kind", SHAPES)
def test_a_png_holds_what_was_added(kind, cuts, tmp_path):
    dtype, channels = SHAPES[kind]
    values = numbers(dtype, HEIGHT, WIDTH, *channels)
    with growing_png(tmp_path / "x.png", HEIGHT, WIDTH) as add:
        for rows in np.split(values, list(CUTS[cuts])):
            add(rows)
    with Image.open(tmp_path / "x.png") as file:
        assert file.mode == {"grey": "L", "grey 16": "I;16", "rgb": "RGB"}[kind]
        file.verify()  # every checksum
    with Image.open(tmp_path / "x.png") as file:
        assert np.asarray(file).tolist() == values.tolist()


def test_a_png_of_indices_is_what_pillow_writes(tmp_path):
    values, palette = numbers(np.uint8, HEIGHT, WIDTH), class_colors(256)
    with growing_png(tmp_path / "x.png", HEIGHT, WIDTH, palette=palette) as add:
        add(values[:9])
        add(values[9:])
    picture = Image.fromarray(values)
    picture.putpalette(palette.tobytes())
    content = io.BytesIO()
    picture.save(content, "PNG")
    with Image.open(tmp_path / "x.png") as found, Image.open(content) as expected:
        assert found.mode == expected.mode == "P"
        assert np.asarray(found).tolist() == np.asarray(expected).tolist() == values.tolist()
        assert found.getpalette() == expected.getpalette() == palette.flatten().tolist()


def test_an_array_holds_what_was_added(tmp_path):
    values = np.random.default_rng(0).random((3, HEIGHT, WIDTH), dtype=np.float32)
    with growing_npy(tmp_path / "x.npy", HEIGHT, WIDTH) as add:
        for rows in np.split(values, [1, 4, 30], axis=1):
            add(rows)
    content = io.BytesIO()
    np.save(content, values)
    assert (tmp_path / "x.npy").read_bytes() == content.getvalue()


def half_written(path, error):
    with growing(path) as file:
        file.write(b"half of i")
        file.flush()
        assert len(list(path.parent.iterdir())) == 2
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_file_that_is_not_finished_leaves_what_was_there(error, tmp_path):
    (tmp_path / "x.bin").write_text("as it was")
    with pytest.raises(error):
        half_written(tmp_path / "x.bin", error)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was"]


class Interrupted:
    """A file's windows until the user has had enough."""

    def __init__(self, image, error):
        self.image, self.error, self.shape = image, error, image.shape

    def window(self, top, *rest):
        if top > 30:
            raise self.error
        return self.image.window(top, *rest)

    def unnormalized(self):
        return self.image.unnormalized()


@pytest.fixture
def image(tmp_path):
    Image.fromarray(numbers(np.uint8, 100, 41, 3)).save(tmp_path / "x.png")
    return ImageFile(tmp_path / "x.png", Normalization([127.0] * 3, [70.0] * 3))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_prediction_that_is_stopped_leaves_nothing(error, image, tmp_path):
    net = torch.nn.Conv2d(3, 4, 1)
    with pytest.raises(error):
        predict_to_file(
            net, Interrupted(image, error), tmp_path / "out/a.png", tile=16, probabilities=True, overlay=True
        )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("limit", [0, 2**23])
@pytest.mark.parametrize("classes", [3, 300])
def test_a_prediction_by_rows_is_the_one_as_a_whole(classes, limit, image, tmp_path, monkeypatch):
    monkeypatch.setattr(_tiles, "LIMIT", limit)
    net = torch.nn.Conv2d(3, classes, 1)
    predict_to_file(net, image, tmp_path / "rows/a.png", tile=16, probabilities=True)
    labels, shares = predict_image(net, image, tile=16, probabilities=True)
    save_prediction(ImagePrediction(labels, shares), tmp_path / "whole/a.png")
    assert (tmp_path / "rows/a.npy").read_bytes() == (tmp_path / "whole/a.npy").read_bytes()
    with Image.open(tmp_path / "rows/a.png") as rows, Image.open(tmp_path / "whole/a.png") as whole:
        assert rows.mode == whole.mode == ("P" if classes == 3 else "I;16")
        assert np.asarray(rows).tolist() == np.asarray(whole).tolist() == labels.tolist()
        assert rows.getpalette() == whole.getpalette()


def test_output_that_is_not_finite_is_no_prediction(tmp_path):
    """A finite image far beyond those that the network knows: its logits overflow in one pixel."""
    net = torch.nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        net.weight.fill_(1e3)
    image = torch.zeros(1, 40, 40)
    for value in (1e34, 1e37):
        image[0, 30, 5] = value
        np.save(tmp_path / "a.npy", image.numpy())
        if value == 1e34:
            predict_to_file(net, ImageFile(tmp_path / "a.npy"), tmp_path / "out/a.png", tile=16, probabilities=True)
            assert predict_labels(net, image[None]).shape == (1, 40, 40)
    with pytest.raises(ValueError, match=r"^image must be such that the network's output is finite"):
        predict_image(net, image)
    with pytest.raises(ValueError, match=r"^images must be such that the network's output is finite"):
        predict_labels(net, image[None])
    with pytest.raises(ValueError, match=r"^image must be such that the network's output is finite"):
        predict_to_file(net, ImageFile(tmp_path / "a.npy"), tmp_path / "out/b.png", tile=16, probabilities=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.npy", "a.png"]
