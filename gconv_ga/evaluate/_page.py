"""The report of an evaluation as one page of HTML that needs nothing else: no script, no font, no network."""

import base64
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..plots import PALETTE, Panel, chart, panel_figure, save_figure
from ..predict import predict_image

IGNORED = -1  # the last colour, a grey
MOST = 512  # pixels of the longer side of what is drawn
OUTLINE = (
    "Outline: how far the predicted and the true outline lie apart, in pixels: the mean over all outline pixels of "
    "both, and what 95 % of them keep to. None where a class is not both there and found."
)
STYLE = """
body { font: 16px/1.5 sans-serif; color: #222222; max-width: 50em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.2em 0.8em; border-bottom: 1px solid #c9cacb; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
.note { font-size: 0.9em; color: #555555; }
.legend span { margin-right: 1.5em; } .legend i { display: inline-block; width: 1em; height: 1em; margin-right: 0.4em; }
summary { cursor: pointer; }
"""


def page(
    report: dict[str, Any],
    model: nn.Module,
    image: Tensor,
    mask: Tensor,
    *,
    tile: int,
    device: Any,
    ignore_index: int | None = None,
) -> str:
    """The page.

    Args:
        report: What goes to ``report.json``.
        model: The network.
        image: The worst image, normalised.
        mask: Its mask.
        tile: As for `predict_image`.
        device: Where to compute.
        ignore_index: Pixels of the mask that count nowhere.
    """
    labels = predict_image(model, image, tile=tile, device=device).labels
    truth = mask if ignore_index is None else mask.masked_fill(mask == ignore_index, IGNORED)
    worst, changed = report["worst_image"], f"{100 * report['changed']:.3f} %"
    between = "At the angles between them the image is interpolated, which alone moves borders of regions."
    by_class = [(name, report["dice"][name], report["iou"][name], *_distances(report, name)) for name in report["dice"]]
    parts = [
        f"<h1>Evaluation of {escape(report['run'])}</h1>",
        f"<p>{report['images']} images, after {report['step']} training steps.</p>",
        "<h2>By class</h2>",
        _table(("class", "Dice", "IoU", "outline, mean", "outline, 95 %"), by_class),
        f"<p class='note'>{OUTLINE}</p>",
        "<h2>By angle</h2>",
        f"<p>Under quarter turns {changed} of the pixels get another label. {between}</p>",
        _picture(_by_angle(report), "Dice by angle"),
        _table(
            ("angle", "Dice", "labels changed, %"),
            [
                (f"{angle}\N{DEGREE SIGN}", score, 100 * report["changed_by_angle"][angle])
                for angle, score in report["dice_by_angle"].items()
            ],
        ),
        f"<h2>Worst image: {escape(worst)}</h2>",
        _picture(
            _panels(image, truth, labels), "The worst image, its true and its predicted classes, where they differ"
        ),
        _legend(list(report["dice"]), ignored=bool((truth == IGNORED).any())),
        "<h2>By image</h2>",
        *(_by_image(report, name) for name in report["dice"]),
    ]
    head = f'<meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style><link rel="icon" href="data:,">'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _distances(scores: dict[str, Any], name: str) -> tuple[float | None, float | None]:
    boundary = scores["boundary"][name]
    return boundary["mean"], boundary["percentile_95"]


def _by_image(report: dict[str, Any], name: str) -> str:
    """Every image, one class."""
    rows = [
        (image, scores["dice"][name], scores["iou"][name], *_distances(scores, name))
        for image, scores in report["by_image"].items()
    ]
    heads = ("image", "Dice", "IoU", "outline, mean", "outline, 95 %")
    return f"<details open><summary>{escape(name)}</summary>{_table(heads, rows)}</details>"


def _legend(classes: list[str], *, ignored: bool) -> str:
    """The colours of the classes, as `Panel` gives them."""
    entries = [(PALETTE[index % len(PALETTE)], name) for index, name in enumerate(classes)]
    entries += [(PALETTE[IGNORED], "ignored")] if ignored else []
    marks = [f"<span><i style='background:{colour}'></i>{escape(name)}</span>" for colour, name in entries]
    return f"<p class='legend'>{' '.join(marks)}</p>"


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows]
    return "\n".join(lines) + "</table>"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return escape(value)
    return "none" if value is None else f"{value:.3f}"


def _by_angle(report: dict[str, Any]) -> Any:
    figure, axes = chart("angle in degrees", "Dice")
    points = [(int(angle), score) for angle, score in report["dice_by_angle"].items() if score is not None]
    axes.plot([angle for angle, _ in points], [score for _, score in points], "o-", color=PALETTE[0])
    axes.set_ylim(0, 1)
    axes.set_xticks([int(angle) for angle in report["dice_by_angle"]])
    return figure


def _panels(image: Tensor, truth: Tensor, labels: Tensor) -> Any:
    # What is drawn is small: every so many pixels are enough of a large image.
    step = -(-max(truth.shape) // MOST)
    shown = image if image.shape[0] in (1, 3) else image.mean(dim=0, keepdim=True)
    wrong = (labels != truth) & (truth != IGNORED)
    panels = [
        Panel(shown[:, ::step, ::step], "image"),
        Panel(truth[::step, ::step], "true", "labels"),
        Panel(labels[::step, ::step], "predicted", "labels"),
        Panel(1 - wrong[::step, ::step].to(torch.float32), "wrong, in black"),
    ]
    return panel_figure([panels], dpi=240)


def _picture(figure: Any, words: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        content = save_figure(figure, Path(folder) / "figure.png").read_bytes()
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
