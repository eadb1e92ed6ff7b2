"""The report of an evaluation: its numbers by hand, and a page in which no name is taken for HTML."""

import json

import pytest
import torch
from torch import nn

from gconv_ga.evaluate import BoundaryDistance, ImageScores, evaluate_image, evaluation_report, page

CLASSES = ("background", "<i>cell</i>")
ANGLES = (0.9, 0.7, 0.8, 0.7, 0.8, 0.7, 0.8, 0.7)
CHANGED = (0.0, 0.5, 0.1, 0.5, 0.2, 0.5, 0.3, 0.5)
SCORES = {
    "a": ImageScores((0.9, 0.5), (0.8, 0.4), (BoundaryDistance(1.0, 3.0), BoundaryDistance(2.0, 6.0)), ANGLES, CHANGED),
    "b": ImageScores((1.0, None), (1.0, None), (None, None), (None,) * 8, (0.0,) * 8),
    "c": ImageScores((0.7, 0.4), (0.6, 0.3), (BoundaryDistance(3.0, 5.0), None), ANGLES, CHANGED),
}


@pytest.fixture(scope="module")
def report():
    return evaluation_report(SCORES, CLASSES, run="run", step=7)


def test_scores_are_means_over_the_images_that_have_one(report):
    assert report["dice"] == pytest.approx({"background": 2.6 / 3, "<i>cell</i>": 0.45})
    assert report["iou"] == pytest.approx({"background": 0.8, "<i>cell</i>": 0.35})
    assert report["boundary"]["background"] == {"mean": 2.0, "percentile_95": 4.0}
    assert report["boundary"]["<i>cell</i>"] == {"mean": 2.0, "percentile_95": 6.0}
    assert report["by_image"]["b"]["boundary"]["background"] == {"mean": None, "percentile_95": None}


def test_angles_are_means_over_images_and_over_angles(report):
    assert list(report["dice_by_angle"]) == ["0", "45", "90", "135", "180", "225", "270", "315"]
    assert report["dice_by_angle"]["90"] == pytest.approx(0.8)
    assert report["dice_turned"] == pytest.approx(sum(ANGLES[1:]) / 7)
    assert report["changed_by_angle"]["45"] == pytest.approx(2 * 0.5 / 3)
    assert report["changed"] == pytest.approx(2 * (0.1 + 0.2 + 0.3) / 9), "rotations by multiples of 90 degrees alone"


def test_the_worst_image_has_the_lowest_score_and_not_none(report):
    assert report["worst_image"] == "c"
    assert evaluation_report({"b": SCORES["b"]}, CLASSES, run="run", step=0)["worst_image"] == "b"


def test_the_report_is_json(report):
    assert json.loads(json.dumps(report)) == report


def test_names_on_the_page_are_text():
    image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    model, mask = nn.Conv2d(1, 2, 1), (image[0] > 0.5).long()
    mask[:2] = 9
    scores = {"<u>a</u>": evaluate_image(model, image, mask, classes=2, ignore_index=9)}
    report = evaluation_report(scores, CLASSES, run="</title><script>", step=0)
    html = page(report, model, image, mask, ignore_index=9)
    for name in ("<u>", "<i>cell", "<script"):
        assert name not in html
    for name in ("&lt;u&gt;a&lt;/u&gt;", "&lt;i&gt;cell&lt;/i&gt;", "&lt;/title&gt;&lt;script&gt;"):
        assert name in html
    assert "</i>ignored</span>" in html
