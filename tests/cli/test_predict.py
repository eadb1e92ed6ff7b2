"""``gconv-ga predict``: what it writes, that turned files give turned predictions, that it goes on where it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gconv_ga.averaging import GroupAverage
from gconv_ga.data import read_image
from gconv_ga.training import ImagePrediction, load_checkpoint, save_prediction


@pytest.fixture
def plain(balanced):
    """A checkpoint of a plain network."""
    return balanced["UNet"]


@pytest.fixture
def pictures(tmp_path):
    """An image that is not square, and the same turned."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (53, 38), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    Image.fromarray(np.rot90(noise).copy()).save(folder / "b.tif")
    return folder


def labels(path):
    with Image.open(path) as file:
        return np.asarray(file)


def logits(network, image, normalization):
    with torch.no_grad():
        return network(normalization(read_image(image))[None])[0]


def test_labels_are_those_of_the_network(invoke, balanced, data, tmp_path):
    run = balanced["EquivariantUNet"]
    result = invoke("predict", "--run", run, "--images", data[1], "--out", tmp_path / "out", "--device", "cpu")
    assert "4 images done" in result.stdout
    model, config, _ = load_checkpoint(run)
    for file in Path(data[1]).iterdir():
        expected = logits(model, file, config.normalization).argmax(dim=0)
        assert expected.unique().tolist() == [0, 1]
        assert labels(tmp_path / "out" / file.name).tolist() == expected.tolist()
        assert labels(tmp_path / "out" / file.name).dtype == np.uint8


@pytest.mark.parametrize("average", [None, "D4"])
def test_turned_files_give_turned_predictions(average, invoke, balanced, plain, pictures, tmp_path):
    """By tiles, both: the equivariant network, and the average of the plain one."""
    typed = ["--run", balanced["EquivariantUNet"]] if average is None else ["--run", plain, "--average", average]
    invoke("predict", *typed, "--images", pictures, "--out", tmp_path / "out", "--tile", 16, "--probabilities")
    upright, turned = (np.load(tmp_path / f"out/{name}.npy") for name in "ab")
    assert upright.shape == (2, 53, 38)
    assert np.abs(np.rot90(upright, axes=(-2, -1)) - turned).max() < 1e-5
    assert np.abs(upright.sum(axis=0) - 1).max() < 1e-5
    assert labels(tmp_path / "out/a.png").tolist() == upright.argmax(axis=0).tolist()


def test_a_plain_network_alone_does_not(invoke, plain, pictures, tmp_path):
    invoke("predict", "--run", plain, "--images", pictures, "--out", tmp_path / "out", "--tile", 16, "--probabilities")
    upright, turned = (np.load(tmp_path / f"out/{name}.npy") for name in "ab")
    assert np.abs(np.rot90(upright, axes=(-2, -1)) - turned).max() > 0.01


def test_the_average_is_the_average(invoke, plain, pictures, tmp_path):
    typed = ["--run", plain, "--images", pictures / "a.png", "--average", "d4", "--probabilities"]
    invoke("predict", *typed, "--out", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.npy", "a.png", "predict.json"]
    model, config, _ = load_checkpoint(plain)
    expected = logits(GroupAverage(model, "D4"), pictures / "a.png", config.normalization).softmax(dim=0)
    assert np.abs(np.load(tmp_path / "out/a.npy") - expected.numpy()).max() < 1e-5


def test_finished_images_are_skipped(invoke, trained, pictures, tmp_path):
    typed = ["predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out"]
    invoke(*typed)
    whole = labels(tmp_path / "out/b.png")
    (tmp_path / "out/b.png").unlink()
    mark = Image.fromarray(np.full((2, 2), 7, dtype=np.uint8))
    mark.save(tmp_path / "out/a.png")
    assert "1 images done, 1 were there" in invoke(*typed).stdout
    assert labels(tmp_path / "out/a.png").tolist() == [[7, 7], [7, 7]]
    assert labels(tmp_path / "out/b.png").tolist() == whole.tolist()


@pytest.mark.parametrize("other", [["--tile", "16"], ["--average", "C4"], ["--probabilities"]])
def test_predictions_by_other_options_are_not_mixed(other, invoke, trained, pictures, tmp_path):
    typed = ["predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out"]
    invoke(*typed)
    assert "'--out'" in invoke(*typed, *other, code=2).stderr


def test_an_image_that_cannot_be_read_does_not_stop_the_others(invoke, trained, pictures, tmp_path):
    (pictures / "a.png").write_text("no image")
    Image.fromarray(np.zeros((20, 20, 3), dtype=np.uint8)).save(pictures / "c.png")
    result = invoke("predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out", code=2)
    assert "path must be a readable image" in result.stderr
    assert "image must be a tensor [..., C=1, H, W], but got (3, 20, 20)" in result.stderr
    assert "2 problems in the files; the other images are done" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "predict.json"]


def test_images_of_one_name_are_refused(invoke, trained, pictures, tmp_path):
    Image.fromarray(np.zeros((20, 20), dtype=np.uint8)).save(pictures / "a.tif")
    result = invoke("predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out", code=2)
    assert "2 images are called a" in result.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--run", "nowhere"), ("--images", "nowhere"), ("--average", "E4"), ("--average", "C1"), ("--tile", "0"),
        ("--device", "abacus"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(option, value, invoke, trained, pictures, tmp_path):
    typed = ["--run", trained, "--images", pictures, "--out", tmp_path / "out"]
    assert option in invoke("predict", *typed, option, value, code=2).stderr
    assert not (tmp_path / "out").exists()


def test_a_pickle_is_refused_and_nothing_in_it_runs(invoke, pictures, tmp_path):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    torch.save({"state_dict": Malicious()}, tmp_path / "weights.pt")
    typed = ["--run", tmp_path / "weights.pt", "--images", pictures, "--out", tmp_path / "out"]
    result = invoke("predict", *typed, code=2)
    assert "'--run'" in result.stderr
    assert "pickles are never opened" in result.stderr
    assert not (tmp_path / "pwned").exists()


def test_more_than_256_classes_take_16_bits(tmp_path):
    expected = torch.tensor([[0, 300], [65535, 1]])
    save_prediction(ImagePrediction(expected, None), tmp_path / "a.png")
    assert labels(tmp_path / "a.png").tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(torch.zeros(1, 2, 2), r"labels must be a tensor \[H, W\]"), (torch.tensor([[-1]]), "labels must be class")],
)
def test_labels_that_fit_no_file_are_refused(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_prediction(ImagePrediction(wrong, None), tmp_path / "a.png")


def test_the_settings_are_kept(invoke, trained, pictures, tmp_path):
    invoke("predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out", "--average", "C2")
    settings = json.loads((tmp_path / "out/predict.json").read_text())
    assert (settings["tile"], settings["average"], settings["probabilities"]) == (512, "C2", False)


def test_help_shows_an_example(invoke):
    assert "Example: gconv-ga predict --run" in invoke("predict", "--help").output
