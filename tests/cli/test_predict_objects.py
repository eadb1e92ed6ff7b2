"""``gconv-ga predict --objects``: the files, and that they rotate with the image."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from roifile import roiread

import gconv_ga.images
from gconv_ga.actions import ScalarField
from gconv_ga.images import read_image, read_mask
from gconv_ga.objects import changed_objects, decode

SAMPLE = Path(gconv_ga.images.__file__).parent / "sample" / "nuclei"
SIZE = (61, 84)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """An image, and the same reflected and rotated, as TIFF that state the size of a pixel."""
    folder = tmp_path_factory.mktemp("pictures")
    image = read_image(SAMPLE / "images" / "00.png")[0, : SIZE[0], : SIZE[1]]
    for element in (0, 1):
        moved = ScalarField()(image, "C4", element).numpy().astype(np.uint8)
        tifffile.imwrite(folder / f"{element}.tif", moved, resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    return folder


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def predicted(invoke, balanced, pictures, tmp_path):
    def run(*options, network="EquivariantUNet"):
        typed = ["predict", "--run", balanced[network], "--images", pictures, "--out", tmp_path / "out", *options]
        invoke(*typed, "--device", "cpu", "--tile", 48)
        return tmp_path / "out"

    return run


def test_objects_and_rows_rotate_with_the_image(predicted):
    out = predicted("--objects")
    written = {f"{element}{ending}" for element in (0, 1) for ending in (".png", "_objects.tif", "_objects.csv")}
    assert {path.name for path in out.iterdir()} == written | {"predict.json", "predict.jsonl"}
    upright, rotated = (torch.from_numpy(tifffile.imread(out / f"{name}_objects.tif")).long() for name in "01")
    assert upright.max() > 3
    assert changed_objects(upright, rotated, "C4", 1) == (0, 0, 0)
    kept = ("class", "area", "major_axis", "minor_axis", "mean_intensity", "area_um2")
    first, second = rows(out / "0_objects.csv"), rows(out / "1_objects.csv")
    assert sorted([row[name] for name in kept] for row in first) == sorted(
        [row[name] for name in kept] for row in second
    )
    places = sorted((float(row["x"]), float(row["y"]), float(row["mean_probability"])) for row in first)
    moved = sorted((SIZE[1] - 1 - float(row["y"]), float(row["x"]), float(row["mean_probability"])) for row in second)
    assert np.array(places) == pytest.approx(np.array(moved), abs=1e-4)


def test_a_plain_network_is_seen(predicted):
    out = predicted("--objects", network="UNet")
    upright, rotated = (torch.from_numpy(tifffile.imread(out / f"{name}_objects.tif")).long() for name in "01")
    assert changed_objects(upright, rotated, "C4", 1).pixels > 0.01


def test_the_files_hold_the_objects_of_the_classes(predicted, pictures):
    out = predicted("--geojson", "--rois", "--coco", "--overlay")
    objects = decode(read_mask(out / "0.png"))
    labels = torch.from_numpy(tifffile.imread(out / "0_objects.tif")).long()
    assert torch.equal(labels, objects.labels)
    table = rows(out / "0_objects.csv")
    assert [int(row["label"]) for row in table] == list(range(1, len(objects.classes) + 1))
    assert {row["class"] for row in table} == {"cell"}
    image = read_image(pictures / "0.tif")[0]
    for row in table:
        own = labels == int(row["label"])
        assert float(row["area"]) == own.sum()
        assert float(row["area_um2"]) == pytest.approx(float(own.sum()) / 4)
        assert float(row["mean_intensity"]) == pytest.approx(float(image[own].double().mean()), rel=1e-6)
        assert 0.5 <= float(row["mean_probability"]) <= 1
    features = json.loads((out / "0_objects.geojson").read_text())["features"]
    assert [feature["properties"]["measurements"]["area"] for feature in features] == [
        int(row["area"]) for row in table
    ]
    assert len(roiread(out / "0_rois.zip")) == len(table)
    coco = json.loads((out / "0_coco.json").read_text())
    assert coco["images"][0]["file_name"] == "0.tif"
    assert [each["area"] for each in coco["annotations"]] == [int(row["area"]) for row in table]
    assert (out / "0_overlay.png").exists()


def test_the_size_that_is_typed_comes_before_that_of_the_file(predicted):
    out = predicted("--objects", "--pixel-size", 2, "--smallest", 40, "--rise", 3)
    table = rows(out / "1_objects.csv")
    assert all(float(row["area_um2"]) == pytest.approx(4 * float(row["area"])) for row in table)
    assert min(float(row["area"]) for row in table) >= 40
    settings = json.loads((out / "predict.json").read_text())["objects"]
    assert settings["decoder"] == {"method": "watershed", "rise": 3.0, "smallest": 40}


def test_each_file_has_a_size_of_its_own(invoke, balanced, pictures, tmp_path):
    (tmp_path / "images").mkdir()
    tifffile.imwrite(
        tmp_path / "images/a.tif", tifffile.imread(pictures / "0.tif"), resolution=(1e4, 1e4), resolutionunit=3
    )
    Image.fromarray(tifffile.imread(pictures / "1.tif")).save(tmp_path / "images/b.png")
    typed = ["--images", tmp_path / "images", "--out", tmp_path / "out", "--objects"]
    invoke("predict", "--run", balanced["EquivariantUNet"], *typed)
    first, second = (rows(tmp_path / f"out/{name}_objects.csv")[0] for name in "ab")
    assert float(first["area_um2"]) == float(first["area"])
    assert "area_um2" not in second


@pytest.mark.parametrize("option", [["--rise", "1"], ["--smallest", "3"], ["--pixel-size", "1"]])
def test_options_about_objects_need_objects(option, invoke, balanced, pictures, tmp_path):
    typed = ["predict", "--run", balanced["UNet"], "--images", pictures, "--out", tmp_path / "out"]
    result = invoke(*typed, *option, code=2)
    assert f"'{option[0]}'" in result.stderr
    assert "give --objects too" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["--rise", "0"], ["--smallest", "0"], ["--pixel-size", "-1"]])
def test_a_wrong_number_is_named(option, invoke, balanced, pictures, tmp_path):
    typed = ["predict", "--run", balanced["UNet"], "--images", pictures, "--out", tmp_path / "out", "--objects"]
    assert f"'{option[0]}'" in invoke(*typed, *option, code=2).stderr
    assert not (tmp_path / "out").exists()


def test_predictions_with_and_without_objects_are_not_mixed(predicted, invoke, balanced, pictures):
    out = predicted()
    typed = ["predict", "--run", balanced["EquivariantUNet"], "--images", pictures, "--out", out, "--tile", 48]
    assert "'--out'" in invoke(*typed, "--objects", code=2).stderr


def test_help_says_the_rules(invoke):
    shown = " ".join(invoke("predict", "--help").output.split())
    assert "a pixel joins the object of its highest neighbour" in shown
    assert "NAME_objects.geojson" in shown
