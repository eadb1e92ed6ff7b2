"""The report of an evaluation as one page of HTML that needs nothing else: no script, no font, no network."""

import base64
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..plots import PALETTE, Panel, chart, panel_figure, save_figure
from ..training import predict_image

STYLE = """
body { font: 16px/1.5 sans-serif; color: #222222; max-width: 60em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { text-align: right; padding: 0.2em 0.8em; border-bottom: 1px solid #c9cacb; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
"""


def page(report: dict[str, Any], model: nn.Module, image: Tensor, mask: Tensor, *, tile: int, device: Any) -> str:
    """The page.

    Args:
        report: What goes to ``report.json``.
        model: The network.
        image: The worst image, normalised.
        mask: Its mask.
        tile: As for `predict_image`.
        device: Where to compute.
    """
    labels = predict_image(model, image, tile=tile, device=device).labels
    worst, changed = report["worst_image"], f"{100 * report['changed']:.3f} %"
    between = "At the angles between them the image is interpolated, which alone moves borders of regions."
    by_class = [(name, report["dice"][name], report["iou"][name]) for name in report["dice"]]
    parts = [
        f"<h1>Evaluation of {escape(report['run'])}</h1>",
        f"<p>{report['images']} images, after {report['step']} training steps.</p>",
        "<h2>By class</h2>",
        _table(("class", "Dice", "IoU"), by_class),
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
        _picture(_panels(image, mask, labels), "The worst image, its true and its predicted classes"),
        "<h2>By image</h2>",
        _table(
            ("image", *(f"Dice, {name}" for name in report["dice"])),
            [(name, *scores["dice"].values()) for name, scores in report["by_image"].items()],
        ),
    ]
    head = f'<meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style><link rel="icon" href="data:,">'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


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


def _panels(image: Tensor, mask: Tensor, labels: Tensor) -> Any:
    shown = image if image.shape[0] in (1, 3) else image.mean(dim=0)
    return panel_figure([[Panel(shown, "image"), Panel(mask, "true", "labels"), Panel(labels, "predicted", "labels")]])


def _picture(figure: Any, words: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        content = save_figure(figure, Path(folder) / "figure.png").read_bytes()
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
