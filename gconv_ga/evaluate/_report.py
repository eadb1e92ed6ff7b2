"""The report of an evaluation: all scores as JSON, and a page of HTML that needs no other file."""

import base64
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader
from torch import Tensor, nn

from ..plots import PALETTE, Panel, chart, panel_figure, save_figure
from ..predict import predict_image
from ._boundary import BoundaryDistance
from ._scores import ANGLES, ImageScores, mean_score

DEGREES = tuple(str(360 * index // ANGLES) for index in range(ANGLES))
IGNORED = -1  # `Panel` gives it the last colour, a grey
LONGER_SIDE = 512  # pixels of the panels: a large image is drawn by every so many pixels
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)


def evaluation_report(
    scores: Mapping[str, ImageScores], classes: Sequence[str], *, run: str, step: int
) -> dict[str, Any]:
    """Return everything that ``report.json`` holds: means over the images, and the scores of each image.

    Args:
        scores: Scores of each image by its name.
        classes: Names of the classes, the background first.
        run: Name of the run, for the title.
        step: Number of training steps after which the network is evaluated.

    Returns:
        The content, which `json.dumps` takes. Scores that are not defined are None.

    Example:
        >>> from gconv_ga.evaluate import ImageScores, evaluation_report
        >>> scores = ImageScores((0.9, 0.8), (0.82, 0.67), (None, None), (0.8,) * 8, (0.0,) * 8)
        >>> report = evaluation_report({"a": scores}, ["background", "cell"], run="run", step=100)
        >>> report["dice"], report["worst_image"]
        ({'background': 0.9, 'cell': 0.8}, 'a')
    """
    images = list(scores.values())
    angles = [mean_score([image.angles[place] for image in images]) for place in range(ANGLES)]
    changed = [sum(image.changed[place] for image in images) / len(images) for place in range(ANGLES)]
    return {
        "run": run,
        "step": step,
        "images": len(images),
        "dice": {name: mean_score([image.dice[index] for image in images]) for index, name in enumerate(classes)},
        "iou": {name: mean_score([image.iou[index] for image in images]) for index, name in enumerate(classes)},
        "boundary_unit": "pixels",
        "boundary": {
            name: _mean_distance([image.boundary[index] for image in images]) for index, name in enumerate(classes)
        },
        "dice_by_angle": dict(zip(DEGREES, angles, strict=True)),
        "dice_turned": mean_score(angles[1:]),
        "changed_by_angle": dict(zip(DEGREES, changed, strict=True)),
        "changed": sum(changed[2::2]) / len(changed[2::2]),  # multiples of 90 degrees: nothing is interpolated
        "worst_image": min(scores, key=lambda name: _rank(scores[name].mean)),
        "by_image": {
            name: {
                "dice": dict(zip(classes, image.dice, strict=True)),
                "iou": dict(zip(classes, image.iou, strict=True)),
                "boundary": {
                    title: _mean_distance([distance]) for title, distance in zip(classes, image.boundary, strict=True)
                },
                "dice_by_angle": dict(zip(DEGREES, image.angles, strict=True)),
                "changed_by_angle": dict(zip(DEGREES, image.changed, strict=True)),
            }
            for name, image in scores.items()
        },
    }


def _mean_distance(distances: Sequence[BoundaryDistance | None]) -> dict[str, float | None]:
    """Return means over the images in which the class is both predicted and in the mask."""
    return {
        name: mean_score([None if distance is None else getattr(distance, name) for distance in distances])
        for name in BoundaryDistance._fields
    }


def _rank(score: float | None) -> float:
    """Return a key to sort images by: one whose foreground is rightly empty is better than any score."""
    return 2.0 if score is None else score


def page(
    report: Mapping[str, Any],
    model: nn.Module,
    image: Tensor,
    mask: Tensor,
    *,
    tile: int = 256,
    device: str | torch.device = "cpu",
    ignore_index: int | None = None,
) -> str:
    """Return the report as a page of HTML. Pictures are part of it, and it holds no script.

    Args:
        report: Report made by `evaluation_report`.
        model: Network that returns logits.
        image: Worst image of the report, normalized as in training.
        mask: True classes of this image.
        tile: As for `gconv_ga.predict.predict_image`.
        device: Device to compute on.
        ignore_index: Mask value of ignored pixels. If None, no pixel is ignored.

    Shape:
        - image: ``[C, H, W]``
        - mask: ``[H, W]``, class indices

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import evaluate_image, evaluation_report, page
        >>> image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> model, mask = torch.nn.Conv2d(1, 2, 1), (image[0] > 0.5).long()
        >>> scores = {"a": evaluate_image(model, image, mask, classes=2)}
        >>> report = evaluation_report(scores, ["background", "cell"], run="run", step=0)
        >>> "Worst image: a" in page(report, model, image, mask)
        True
    """
    labels = predict_image(model, image, tile=tile, device=device).labels
    target = mask if ignore_index is None else mask.masked_fill(mask == ignore_index, IGNORED)
    legend = [(PALETTE[index % len(PALETTE)], name) for index, name in enumerate(report["dice"])]
    if (target == IGNORED).any():
        legend.append((PALETTE[IGNORED], "ignored"))
    return TEMPLATES.get_template("report.html.j2").render(
        report=report,
        chart=_base64_png(_dice_by_angle(report["dice_by_angle"])),
        panels=_base64_png(_image_panels(image, target, labels)),
        legend=legend,
    )


def _dice_by_angle(scores: Mapping[str, float | None]) -> Any:
    figure, axes = chart("angle in degrees", "Dice")
    points = [(int(angle), score) for angle, score in scores.items() if score is not None]
    axes.plot([angle for angle, _ in points], [score for _, score in points], "o-", color=PALETTE[0])
    axes.set_ylim(0, 1)
    axes.set_xticks([int(angle) for angle in scores])
    return figure


def _image_panels(image: Tensor, target: Tensor, labels: Tensor) -> Any:
    step = -(-max(target.shape) // LONGER_SIDE)
    shown = image if image.shape[0] in (1, 3) else image.mean(dim=0, keepdim=True)
    wrong = (labels != target) & (target != IGNORED)
    panels = [
        Panel(shown[:, ::step, ::step], "image"),
        Panel(target[::step, ::step], "true", "labels"),
        Panel(labels[::step, ::step], "predicted", "labels"),
        Panel(1 - wrong[::step, ::step].to(torch.float32), "wrong, in black"),
    ]
    return panel_figure([panels], dpi=240)


def _base64_png(figure: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        content = save_figure(figure, Path(folder) / "figure.png").read_bytes()
    return base64.b64encode(content).decode()
