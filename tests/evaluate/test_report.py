"""The report of an evaluation: its numbers by hand, and a page in which no name is taken for HTML."""

import io
import json

import pytest
import torch
from torch import nn

from gconv_ga.evaluate import (
    BoundaryDistance,
    ImageObjects,
    ImageScores,
    Picture,
    evaluate_image,
    evaluation_report,
    page,
)
from gconv_ga.evaluate._report import _dice_by_angle, _image_panels
from gconv_ga.objects import ObjectChanges, ObjectScores

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
    assert report["dice_rotated"] == pytest.approx(sum(ANGLES[1:]) / 7)
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
    html = page(report, model, {"<u>a</u>": Picture(image, mask)}, ignore_index=9)
    for name in ("<u>", "<i>cell", "</title><script"):
        assert name not in html
    assert html.count("<script") == 1
    for name in ("&lt;u&gt;a&lt;/u&gt;", "&lt;i&gt;cell&lt;/i&gt;", "&lt;/title&gt;&lt;script&gt;"):
        assert name in html
    assert "</i>ignored</span>" in html


OBJECTS = {
    "a": ImageObjects(
        ObjectScores(9, 12, (0.8, *(0.4,) * 8), 0.9, 0.7, 0.6),
        (ObjectChanges(0.3, 0.5, 1), ObjectChanges(0.0, 0.0, 0), ObjectChanges(0.0, 0.1, 0)),
    ),
    "b": ImageObjects(ObjectScores(0, 0, (None,) * 9, None, None, None), (ObjectChanges(0.0, 0.0, 0),) * 3),
    "c": ImageObjects(ObjectScores(5, 4, (0.6, *(0.2,) * 8), 0.5, 0.3, 0.4), (ObjectChanges(0.2, 0.2, 0),) * 3),
}


def test_objects_are_means_over_the_images_that_have_some():
    report = evaluation_report(SCORES, CLASSES, run="run", step=7, objects=OBJECTS)
    about = report["objects"]
    assert (about["found"], about["true"]) == (14, 16)
    assert list(about["average_precision"]) == [f"{value / 100:.2f}" for value in range(50, 95, 5)]
    assert about["average_precision"]["0.50"] == pytest.approx(0.7)
    assert about["average_precision"]["0.90"] == pytest.approx(0.3)
    assert about["mean_average_precision"] == pytest.approx((0.7 + 8 * 0.3) / 9)
    assert (about["precision"], about["recall"], about["panoptic_quality"]) == pytest.approx((0.7, 0.5, 0.5))
    assert about["count_error"] == pytest.approx((-3 + 0 + 1) / 3)
    assert about["absolute_count_error"] == pytest.approx((3 + 0 + 1) / 3)
    assert about["moves"] == 3
    assert about["partnerless"] == pytest.approx((0.6 / 3 + 0 + 0.2) / 3)
    assert about["changed_pixels"] == pytest.approx((0.3 / 3 + 0 + 0.2) / 3)
    assert report["by_image"]["a"]["objects"]["changed_pixels"] == pytest.approx(0.1)
    assert report["by_image"]["b"]["objects"]["average_precision"]["0.50"] is None
    assert json.loads(json.dumps(report)) == report


def test_the_pictures_are_the_worst_the_median_and_the_best():
    scores = {
        name: ImageScores((1.0, dice), (1.0, dice), (None, None), ANGLES, CHANGED)
        for name, dice in zip("abcdefg", (0.5, None, 0.1, 0.2, 0.9, 0.3, 0.4), strict=True)
    }
    report = evaluation_report(scores, CLASSES, run="run", step=7)
    assert report["pictures"] == ["c", "d", "f", "g", "b"]
    assert evaluation_report({"a": scores["a"]}, CLASSES, run="run", step=7)["pictures"] == ["a"]


def test_two_runs_stand_side_by_side():
    image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    other = evaluation_report(SCORES, CLASSES, run="<b>other", step=3, objects=OBJECTS)
    scores = {**SCORES, "a": SCORES["c"]}
    report = evaluation_report(scores, CLASSES, run="run", step=7, objects=OBJECTS, against=other)
    assert report["against"] == other
    html = page(report, nn.Conv2d(1, 2, 1), {"c": Picture(image, (image[0] > 0.5).long())})
    assert "<td>mean Dice</td><td>0.400</td><td>0.450</td>" in html
    assert "<th>run</th><th>&lt;b&gt;other</th>" in html
    assert "<b>other" not in html


def test_what_is_wrong_is_dark_and_what_is_right_is_white():
    image, mask = torch.rand(1, 20, 20), torch.zeros(20, 20, dtype=torch.int64)
    wrong = mask.clone()
    wrong[3, 5] = 1
    for labels, dark in ((mask, 0), (wrong, 1)):
        shown = _image_panels(image, mask, labels, is_objects=False).axes[-1].images[0].get_array()
        assert int((shown < 0.5).all(axis=-1).sum()) == dark
        assert int((shown > 0.95).all(axis=-1).sum()) == 400 - dark


def test_objects_are_shown_where_true_ones_are_known():
    image = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    mask = (image[0] > 0.5).long()
    scores = {"a": evaluate_image(nn.Conv2d(1, 2, 1), image, mask, classes=2)}
    report = evaluation_report(scores, CLASSES, run="run", step=0, objects={"a": OBJECTS["a"]})
    drawn, alone = (
        page(report, nn.Conv2d(1, 2, 1), {"a": Picture(image, mask, instances)}) for instances in (mask, None)
    )
    assert "9 objects found" in " ".join(drawn.split())
    assert "found, 12 true" in " ".join(drawn.split())
    assert "</i>&lt;i&gt;cell&lt;/i&gt;</span>" in alone
    assert "</i>&lt;i&gt;cell&lt;/i&gt;</span>" not in drawn


def test_the_legend_holds_the_whole_path_of_a_run_whatever_it_is():
    names = ["_" + "run$" * 60, "folder/" * 40]
    first, second = ({"run": name, "dice_by_angle": {"0": 0.5, "90": 0.6}} for name in names)
    figure = _dice_by_angle({**first, "against": second})
    figure.savefig(io.BytesIO())  # a warning of the layout is an error here
    shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert ["".join(text.split()).replace("\\$", "$") for text in shown] == names
