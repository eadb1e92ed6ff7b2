"""``gconv-ga predict``: the files, their equivariance, and that an interrupted command continues."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from gconv_ga.averaging import GroupAverage
from gconv_ga.images import read_image, read_mask
from gconv_ga.predict import ImagePrediction, save_prediction
from gconv_ga.segmenter import load_checkpoint


@pytest.fixture
def plain(balanced):
    """A checkpoint of a plain network."""
    return balanced["UNet"]


@pytest.fixture
def pictures(tmp_path):
    """An image that is not square, and the same rotated."""
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
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.npy",
        "a.png",
        "predict.json",
        "predict.jsonl",
    ]
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
    assert "1 image done, 1 skipped" in invoke(*typed).stdout
    assert labels(tmp_path / "out/a.png").tolist() == [[7, 7], [7, 7]]
    assert labels(tmp_path / "out/b.png").tolist() == whole.tolist()


def test_files_that_are_no_predictions_are_not_replaced_unasked(invoke, trained, pictures, tmp_path):
    """Such as the masks of the images, in whose folder the predictions would have the same names."""
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "b.png").write_bytes(b"drawn by hand")
    typed = ["predict", "--run", trained, "--images", pictures, "--out", tmp_path / "masks"]
    assert "holds b.png, which may be no prediction" in invoke(*typed, code=2).stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()} == {"b.png": b"drawn by hand"}
    assert "2 images done" in invoke(*typed, "--overwrite").stdout
    assert labels(tmp_path / "masks" / "b.png").shape == (38, 53)


@pytest.mark.parametrize("other", [["--tile", "16"], ["--average", "C4"], ["--probabilities"]])
def test_predictions_by_other_options_are_not_mixed(other, invoke, trained, pictures, tmp_path):
    typed = ["predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out"]
    invoke(*typed)
    assert "'--out'" in invoke(*typed, *other, code=2).stderr


def test_an_image_that_cannot_be_read_does_not_stop_the_others(invoke, trained, pictures, tmp_path):
    (pictures / "a.png").write_text("no image")
    Image.fromarray(np.zeros((20, 20, 3), dtype=np.uint8)).save(pictures / "c.png")
    result = invoke("predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out", code=1)
    assert "path must be a readable image" in result.stderr
    assert "3 channels of 20 x 20 pixels" in result.stderr
    assert "2 of 3 images cannot be predicted; the others are done" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "predict.json", "predict.jsonl"]


def test_a_link_that_leads_nowhere_does_not_stop_the_others(invoke, trained, pictures, tmp_path):
    typed = ["predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out"]
    (pictures / "0.png").symlink_to(tmp_path / "nowhere.png")
    (pictures / "1.tif").symlink_to(tmp_path / "nowhere.tif")
    result = invoke(*typed, code=1)
    assert "2 of 4 images cannot be predicted; the others are done" in result.stderr
    assert result.stderr.count("No such file") == 2
    assert {"a.png", "b.png"} <= {path.name for path in (tmp_path / "out").iterdir()}
    (pictures / "a.png").rename(tmp_path / "a.png")
    (pictures / "a.png").symlink_to(tmp_path / "elsewhere.png")
    assert "3 of 4 images" in invoke(*typed, code=1).stderr
    assert (tmp_path / "out" / "a.png").exists(), "made of an image that may come back"
    next(pictures.glob("b.*")).unlink()
    result = invoke("predict", "--run", trained, "--images", pictures, "--out", tmp_path / "none", code=1)
    assert "3 of 3 images cannot be predicted\n" in result.stderr


def test_labels_carry_a_colour_map_and_are_indices_to_every_reader(invoke, balanced, pictures, tmp_path):
    invoke("predict", "--run", balanced["EquivariantUNet"], "--images", pictures, "--out", tmp_path / "out")
    with Image.open(tmp_path / "out/a.png") as file:
        assert file.mode == "P"
        colours = np.asarray(file.convert("RGB"))
    found = labels(tmp_path / "out/a.png")
    assert np.unique(found).tolist() == [0, 1]
    assert np.unique(colours[found == 0], axis=0).tolist() == [[0, 0, 0]]
    assert len(np.unique(colours[found == 1], axis=0)) == 1
    assert colours[found == 1].any()
    assert read_mask(tmp_path / "out/a.png").tolist() == found.tolist()


def test_the_colours_are_those_of_the_run(invoke, trained, pictures, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    code = {"colors": {"background": [9, 8, 7], "class 1": [1, 2, 3]}, "ignore_index": None}
    settings = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**settings, "mask_code": code}))
    invoke("predict", "--run", run, "--images", pictures, "--out", tmp_path / "out")
    with Image.open(tmp_path / "out/a.png") as file:
        colours, found = np.asarray(file.convert("RGB")), np.asarray(file)
    assert all(
        tuple(colour) == ((9, 8, 7), (1, 2, 3))[index] for colour, index in zip(colours[0], found[0], strict=True)
    )


@pytest.mark.parametrize("size", [(53, 38), (300, 270)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_overlay_is_the_image_with_its_classes_on_it(dtype, size, invoke, balanced, tmp_path):
    """Class 0 leaves the image as it is; class 1 is drawn over it in its colour, 45 % opaque, window by window."""
    level = np.random.default_rng(0).integers(0, 256, size)
    level[0, 0], level[0, 1] = 0, 255
    (tmp_path / "images").mkdir()
    Image.fromarray((level * (1 if dtype == np.uint8 else 200)).astype(dtype)).save(tmp_path / "images/a.png")
    run, typed = balanced["EquivariantUNet"], ["--images", tmp_path / "images", "--out", tmp_path / "out"]
    invoke("predict", "--run", run, *typed, "--overlay", "--tile", 16)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.png",
        "a_overlay.png",
        "predict.json",
        "predict.jsonl",
    ]
    with Image.open(tmp_path / "out/a.png") as file:
        found, colours = np.asarray(file), np.asarray(file.convert("RGB")).astype(float)
    shown = labels(tmp_path / "out/a_overlay.png").astype(float)
    grey = np.repeat(level[..., None], 3, axis=-1).astype(float)
    expected = np.where(found[..., None] > 0, 0.55 * grey + 0.45 * colours, grey)
    # Of 16 bits the extreme half percents saturate, and the limits come from every eighth pixel.
    assert np.abs(shown - expected).max() <= (0.51 if dtype == np.uint8 else 12)


def test_an_overlay_and_an_image_of_that_name_are_refused(invoke, trained, pictures, tmp_path):
    Image.fromarray(np.zeros((20, 20), dtype=np.uint8)).save(pictures / "a_overlay.tif")
    typed = ["predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out"]
    assert "would write the same a_overlay.png" in invoke(*typed, "--overlay", code=2).stderr
    invoke(*typed)


def test_predictions_into_the_folder_of_the_images_are_refused(invoke, trained, pictures):
    before = (pictures / "a.png").read_bytes()
    assert "'--out'" in invoke("predict", "--run", trained, "--images", pictures, "--out", pictures, code=2).stderr
    assert (pictures / "a.png").read_bytes() == before


def test_a_file_that_turns_out_damaged_leaves_nothing_half_done(invoke, trained, tmp_path):
    """The last strip is cut off: the first rows are predicted before that is known."""
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (200, 40), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "images/a.tif", noise, compression="zlib", rowsperstrip=16)
    content = (tmp_path / "images/a.tif").read_bytes()
    (tmp_path / "images/a.tif").write_bytes(content[:-100])
    typed = ["--images", tmp_path / "images", "--out", tmp_path / "out", "--tile", 32, "--probabilities"]
    result = invoke("predict", "--run", trained, *typed, code=1)
    assert "path must be a readable image file" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predict.json", "predict.jsonl"]


def test_images_of_one_name_are_refused(invoke, trained, pictures, tmp_path):
    Image.fromarray(np.zeros((20, 20), dtype=np.uint8)).save(pictures / "a.tif")
    result = invoke("predict", "--run", trained, "--images", pictures, "--out", tmp_path / "out", code=2)
    assert "2 of the images would write the same a.png" in result.stderr


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
    assert (settings["tile"], settings["average"], settings["probabilities"]) == (256, "C2", False)


def test_help_shows_an_example(invoke):
    shown = invoke("predict", "--help").output
    assert "Example: gconv-ga predict --run" in shown
    assert "Exit codes: 0 done" in shown
