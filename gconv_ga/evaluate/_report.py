"""The report of an evaluation: all scores as JSON, and a page of HTML that needs no other file."""

import base64
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import Environment, FileSystemLoader
from torch import Tensor, nn

from ..objects import Decoder
from ..plots import PALETTE, Panel, chart, panel_figure, save_figure
from ..predict import predict_image, predict_objects
from ._boundary import BoundaryDistance
from ._objects import ImageObjects, image_objects_report, objects_report
from ._scores import ANGLES, ImageScores, mean_score

DEGREES = tuple(str(360 * index // ANGLES) for index in range(ANGLES))
PIXEL_SCORES = ("dice", "iou", "precision", "recall")
IGNORED = -1  # `Panel` gives it the last colour, a grey
LONGER_SIDE = 512  # pixels of the panels: a large image is drawn by every so many pixels
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)


def evaluation_report(
    scores: Mapping[str, ImageScores],
    classes: Sequence[str],
    *,
    run: str,
    step: int,
    objects: Mapping[str, ImageObjects] | None = None,
    against: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything that ``report.json`` holds: means over the images, and the scores of each image.

    Args:
        scores: Scores of each image by its name.
        classes: Names of the classes, the background first.
        run: Name of the run, for the title.
        step: Number of training steps after which the network is evaluated.
        objects: Scores of the objects of each image. If None, the report says nothing about objects.
        against: Report of another run on the same images, to be shown beside this one.

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
    ranked = sorted(scores, key=lambda name: _rank(scores[name].mean))
    pictures = [*ranked[:3], ranked[len(ranked) // 2], ranked[-1]]
    return {
        "run": run,
        "step": step,
        "images": len(images),
        "mean": {name: mean_score([_foreground(getattr(image, name)) for image in images]) for name in PIXEL_SCORES},
        **{
            kind: {
                name: mean_score([_of(image, kind, index) for image in images]) for index, name in enumerate(classes)
            }
            for kind in PIXEL_SCORES
        },
        "boundary_unit": "pixels",
        "boundary": {
            name: _mean_distance([image.boundary[index] for image in images]) for index, name in enumerate(classes)
        },
        "dice_by_angle": dict(zip(DEGREES, angles, strict=True)),
        "dice_rotated": mean_score(angles[1:]),
        "changed_by_angle": dict(zip(DEGREES, changed, strict=True)),
        "changed": _at_90_degrees(changed),
        **({} if objects is None else {"objects": objects_report(objects)}),
        "worst_image": ranked[0],
        "pictures": list(dict.fromkeys(pictures)),
        "by_image": {
            name: {
                "mean_dice": image.mean,
                **{
                    kind: {title: _of(image, kind, index) for index, title in enumerate(classes)}
                    for kind in PIXEL_SCORES
                },
                "boundary": {
                    title: _mean_distance([distance]) for title, distance in zip(classes, image.boundary, strict=True)
                },
                "dice_by_angle": dict(zip(DEGREES, image.angles, strict=True)),
                "changed_by_angle": dict(zip(DEGREES, image.changed, strict=True)),
                "changed": _at_90_degrees(image.changed),
                **({} if objects is None else {"objects": image_objects_report(objects[name])}),
            }
            for name, image in scores.items()
        },
        **({} if against is None else {"against": dict(against)}),
    }


def _of(image: ImageScores, kind: str, index: int) -> float | None:
    """Return the score of a class; None where scores of this kind were not computed."""
    values: tuple[float | None, ...] = getattr(image, kind)
    return values[index] if values else None


def _foreground(values: Sequence[float | None]) -> float | None:
    """Return the mean over the classes other than the background."""
    return mean_score(values[1:])


def _at_90_degrees(changed: Sequence[float]) -> float:
    """Return the mean over rotations by multiples of 90 degrees, at which nothing is interpolated."""
    return sum(changed[2::2]) / len(changed[2::2])


def _mean_distance(distances: Sequence[BoundaryDistance | None]) -> dict[str, float | None]:
    """Return means over the images in which the class is both predicted and in the mask."""
    return {
        name: mean_score([None if distance is None else getattr(distance, name) for distance in distances])
        for name in BoundaryDistance._fields
    }


def _rank(score: float | None) -> float:
    """Return a key to sort images by: one whose foreground is rightly empty is better than any score."""
    return 2.0 if score is None else score


class Picture(NamedTuple):
    """An image that the report shows.

    Args:
        image: Image, normalized as in training. ``[C, H, W]``.
        mask: True classes. ``[H, W]``, class indices.
        instances: Numbers of the true objects. If None, classes are shown. ``[H, W]``.

    Example:
        >>> from gconv_ga.evaluate import Picture
        >>> Picture._fields
        ('image', 'mask', 'instances')
    """

    image: Tensor
    mask: Tensor
    instances: Tensor | None = None


def page(
    report: Mapping[str, Any],
    model: nn.Module,
    pictures: Mapping[str, Picture],
    *,
    tile: int = 256,
    device: str | torch.device = "cpu",
    ignore_index: int | None = None,
    decoder: Decoder | None = None,
) -> str:
    """Return the report as a page of HTML that needs no other file.

    Pictures are part of it. Its one script sorts the tables.

    Args:
        report: Report made by `evaluation_report`.
        model: Network that returns logits.
        pictures: The images to show, such as those in ``report["pictures"]``, by name.
        tile: As for `gconv_ga.predict.predict_image`.
        device: Device to compute on.
        ignore_index: Mask value of ignored pixels. If None, no pixel is ignored.
        decoder: Rules by which objects are found, if a picture has true ones.

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import Picture, evaluate_image, evaluation_report, page
        >>> image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> model, mask = torch.nn.Conv2d(1, 2, 1), (image[0] > 0.5).long()
        >>> scores = {"a": evaluate_image(model, image, mask, classes=2)}
        >>> report = evaluation_report(scores, ["background", "cell"], run="run", step=0)
        >>> "Worst image: a" in page(report, model, {"a": Picture(image, mask)})
        True
    """
    options: dict[str, Any] = {"tile": tile, "device": device}
    targets = {
        name: each.mask if ignore_index is None else each.mask.masked_fill(each.mask == ignore_index, IGNORED)
        for name, each in pictures.items()
    }
    panels = {}
    for name, each in pictures.items():
        if each.instances is None:
            labels = predict_image(model, each.image, **options).labels
            panels[name] = _image_panels(each.image, targets[name], labels, is_objects=False)
        else:
            found = predict_objects(model, each.image, decoder=decoder, **options).objects.labels
            instances, found = (labels.masked_fill(targets[name] == IGNORED, 0) for labels in (each.instances, found))
            panels[name] = _image_panels(each.image, instances, found, is_objects=True)
    legend = [(PALETTE[index % len(PALETTE)], name) for index, name in enumerate(report["dice"])]
    if any(bool((target == IGNORED).any()) for target in targets.values()):
        legend.append((PALETTE[IGNORED], "ignored"))
    return TEMPLATES.get_template("report.html.j2").render(
        report=report,
        against=report.get("against"),
        chart=_base64_png(_dice_by_angle(report)),
        pictures={name: _base64_png(figure) for name, figure in panels.items()},
        legend=[] if any(each.instances is not None for each in pictures.values()) else legend,
        summary=_summary(report),
    )


def _summary(report: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the rows of the first table: what is measured, and its value in the report and in the one beside it."""
    kinds = (
        ("mean Dice", ("mean", "dice"), 1), ("mean IoU", ("mean", "iou"), 1),
        ("mean precision", ("mean", "precision"), 1), ("mean recall", ("mean", "recall"), 1),
        ("mean Dice, rotated", ("dice_rotated",), 1),
        ("labels changed by rotation, %", ("changed",), 100),
        ("objects: AP at IoU 0.5", ("objects", "average_precision", "0.50"), 1),
        ("objects: mean AP, IoU 0.5 to 0.9", ("objects", "mean_average_precision"), 1),
        ("objects: panoptic quality", ("objects", "panoptic_quality"), 1),
        ("objects: precision", ("objects", "precision"), 1), ("objects: recall", ("objects", "recall"), 1),
        ("objects: found less true, per image", ("objects", "count_error"), 1),
        ("objects: without a partner after a move, %", ("objects", "partnerless"), 100),
        ("pixels in another object after a move, %", ("objects", "changed_pixels"), 100),
    )  # fmt: skip
    reports = [report, *([report["against"]] if "against" in report else [])]
    shown = [kind for kind in kinds if kind[1][0] in report]
    return [(title, [_shown(each, path, factor) for each in reports]) for title, path, factor in shown]


def _shown(report: Mapping[str, Any], path: Sequence[str], factor: int) -> str:
    value: Any = report
    for name in path:
        value = value[name]
    return "none" if value is None else f"{factor * value:.3f}"


def _dice_by_angle(report: Mapping[str, Any]) -> Any:
    figure, axes = chart("angle in degrees", "Dice")
    for each, colour in zip([report, *([report["against"]] if "against" in report else [])], PALETTE, strict=False):
        points = [(int(angle), score) for angle, score in each["dice_by_angle"].items() if score is not None]
        # Any path: a long one is wrapped, "$" is no mathematics, and a label beginning with "_" would be left out.
        name = " " + "\n".join(textwrap.wrap(each["run"], 60)).replace("$", r"\$")
        axes.plot([angle for angle, _ in points], [score for _, score in points], "o-", color=colour, label=name)
    if "against" in report:
        axes.legend(frameon=False)
    axes.set_ylim(0, 1)
    axes.set_xticks([int(angle) for angle in report["dice_by_angle"]])
    return figure


def _image_panels(image: Tensor, target: Tensor, labels: Tensor, *, is_objects: bool) -> Any:
    step = -(-max(target.shape) // LONGER_SIDE)
    shown = image if image.shape[0] in (1, 3) else image.mean(dim=0, keepdim=True)
    if is_objects:
        target, labels = (_by_colour(each.to(torch.int64)) for each in (target, labels))
        wrong = (labels > 0) != (target > 0)
    else:
        wrong = (labels != target) & (target != IGNORED)
    panels = [
        Panel(shown[:, ::step, ::step], "image"),
        Panel(target[::step, ::step], "true objects" if is_objects else "true", "labels"),
        Panel(labels[::step, ::step], "predicted objects" if is_objects else "predicted", "labels"),
        # Not in grey, whose ends are those of the values: where nothing is wrong all would be black.
        Panel(wrong[::step, ::step].to(torch.float32), "wrong", "signed", limit=1),
    ]
    return panel_figure([panels], colour_bars=False, dpi=240)  # "wrong" is a mask


def _by_colour(labels: Tensor) -> Tensor:
    """Return numbers of colours: 0 for the background, and the others in turn for objects."""
    return torch.where(labels > 0, 1 + (labels - 1) % (len(PALETTE) - 1), 0)


def _base64_png(figure: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        content = save_figure(figure, Path(folder) / "figure.png").read_bytes()
    return base64.b64encode(content).decode()
