"""``gconv-ga evaluate``: its figures against counting by hand, and a page that needs nothing else."""

import base64
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gconv_ga.images import read_image
from gconv_ga.segmenter import load_checkpoint


@pytest.fixture(scope="module")
def report(balanced, data, tmp_path_factory):
    """The folder of one evaluation, and its JSON."""
    from typer.testing import CliRunner

    from gconv_ga.cli._app import app

    folder = tmp_path_factory.mktemp("report")
    result = CliRunner().invoke(
        app, ["evaluate", "--run", str(balanced["EquivariantUNet"]), *data, "--out", str(folder)]
    )
    assert result.exit_code == 0, result.output
    return folder, json.loads((folder / "report.json").read_text())


def overlap(found, there):
    """Dice and intersection over union of two sets."""
    both, either = int((found & there).sum()), int((found | there).sum())
    return (2 * both / int(found.sum() + there.sum()), both / either) if either else (None, None)


def test_the_scores_are_those_counted_by_hand(report, balanced, data):
    model, config, _ = load_checkpoint(balanced["EquivariantUNet"])
    dice, iou = [], []
    for file in sorted(Path(data[1]).iterdir()):
        with torch.no_grad():
            labels = model(config.normalization(read_image(file))[None]).argmax(dim=1)[0]
        assert labels.unique().tolist() == [0, 1], "a constant answer would not change either"
        with Image.open(Path(data[3]) / file.name) as mask:
            truth = torch.from_numpy(np.array(mask))
        pairs = [overlap(labels == index, truth == index) for index in range(2)]
        scores = report[1]["by_image"][file.stem]
        assert list(scores["dice"].values()) == pytest.approx([pair[0] for pair in pairs], abs=1e-6)
        assert list(scores["iou"].values()) == pytest.approx([pair[1] for pair in pairs], abs=1e-6)
        dice.append([pair[0] for pair in pairs])
        iou.append([pair[1] for pair in pairs])
    assert list(report[1]["dice"].values()) == pytest.approx(np.mean(dice, axis=0).tolist(), abs=1e-6)
    assert list(report[1]["iou"].values()) == pytest.approx(np.mean(iou, axis=0).tolist(), abs=1e-6)
    names = sorted(report[1]["by_image"])
    assert report[1]["worst_image"] == names[int(np.argmin([row[1] for row in dice]))]


def test_an_equivariant_network_is_as_good_under_quarter_turns(report):
    angles = report[1]["dice_by_angle"]
    assert list(angles) == ["0", "45", "90", "135", "180", "225", "270", "315"]
    assert angles["0"] > 0
    assert [angles[turn] for turn in ("90", "180", "270")] == pytest.approx([angles["0"]] * 3, abs=1e-3)
    assert report[1]["changed"] < 1e-3
    assert report[1]["changed_by_angle"]["0"] == 0


def test_a_plain_network_is_not(invoke, balanced, data, tmp_path):
    invoke("evaluate", "--run", balanced["UNet"], *data, "--out", tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["changed"] > 0.01
    page = (tmp_path / "out/report.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;background" in page


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(report):
    page = Page((report[0] / "report.html").read_text())
    assert page.open == []
    assert page.tags.count("img") == 5, "the chart, and the four images"
    assert page.tags.count("script") == 1, "the one that sorts tables"
    assert "iframe" not in page.tags
    assert all(source.startswith("data:") for source in page.sources)
    for source in page.sources:
        kind, _, content = source.partition(",")
        if "image/png" in kind:
            with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
                assert min(picture.size) > 100


def test_the_page_names_every_image(report):
    page = (report[0] / "report.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in report[1]["by_image"])


def test_a_class_that_is_in_no_mask_is_no_fault(invoke, balanced, folders, tmp_path):
    for path in Path(folders[3]).iterdir():
        Image.fromarray(np.zeros((128, 128), dtype=np.uint8)).save(path)
    invoke("evaluate", "--run", balanced["UNet"], *folders, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out/report.json").read_text())["dice"]["<b>background</b>"] > 0


def test_what_is_wrong_with_files_is_a_table(invoke, trained, folders, tmp_path):
    (Path(folders[3]) / "00.png").unlink()
    shutil.copy(Path(folders[3]) / "01.png", Path(folders[3]) / "other.png")
    result = invoke("evaluate", "--run", trained, *folders, "--out", tmp_path / "out", code=2)
    assert "no mask of this name" in result.stderr
    assert "'--images and --masks': 2 problems in the files; nothing was written" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_image_too_small_for_the_network_does_not_end_the_evaluation(invoke, balanced, folders, tmp_path):
    """The network halves the image once; a row of pixels cannot be halved."""
    for folder in folders[1::2]:
        Image.fromarray(np.eye(1, 20, dtype=np.uint8)).save(Path(folder) / "row.png")
    result = invoke("evaluate", "--run", balanced["UNet"], *folders, "--out", tmp_path / "out", code=1)
    assert "row.png" in result.stderr
    assert "1 of 5 images have no score, and are not in the report" in result.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert sorted(report["by_image"]) == ["00", "01", "02", "03"]
    for folder in folders[1::2]:
        for name in report["by_image"]:
            (Path(folder) / f"{name}.png").unlink()
    result = invoke("evaluate", "--run", balanced["UNet"], *folders, "--out", tmp_path / "none", code=2)
    assert "1 problem in the files" in result.stderr
    assert list((tmp_path / "none").iterdir()) == []


@pytest.mark.parametrize("option", ["--run", "--images", "--masks", "--device", "--tile"])
def test_a_wrong_option_is_named(option, invoke, trained, data, tmp_path):
    typed = ["evaluate", "--run", trained, *data, "--out", tmp_path / "out", option, "nowhere"]
    assert option in invoke(*typed, code=2).stderr
    assert not (tmp_path / "out").exists()


def test_help_shows_an_example(invoke):
    shown = invoke("evaluate", "--help").output
    assert "Example: gconv-ga evaluate --run" in shown
    assert "Exit codes: 0 done" in shown
