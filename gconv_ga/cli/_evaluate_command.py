"""``gconv-ga evaluate``: scores by class, by image and by angle, as JSON and as a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._options import Debug, Device, make_folder
from ._refusals import naming
from ._runs import Run, load_run

if TYPE_CHECKING:  # the room takes seconds to load
    from ..training import ImageScores

DEGREES = tuple(range(0, 360, 45))


def evaluate(
    run: Run,
    images: Annotated[Path, typer.Option(metavar="DIR", help="Images that were not trained on.")],
    masks: Annotated[Path, typer.Option(metavar="DIR", help="Their masks, named as the images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where report.json and report.html go.")],
    tile: Annotated[int, typer.Option(min=8, help="Side of the tiles that larger images are cut into.")] = 512,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Compare predictions with masks: upright, and turned by multiples of 45 degrees.

    Example: [bold]gconv-ga evaluate --run run --images images --masks masks --out report[/bold]
    """
    from ..data import PairDataset
    from ..training import as_device, evaluate_image
    from ._files import scanned
    from ._page import page
    from ._progress import progress_bars

    with naming("--device"):
        where = as_device(device)
    model, config, step = load_run(run)
    arguments = config.arguments
    pairs, _ = scanned(
        images, masks, classes=arguments["classes"], channels=arguments["in_channels"], may_be_empty=True
    )
    make_folder(out, "'--out'")
    dataset, scores = PairDataset(pairs, config.normalization), {}
    with progress_bars() as bars:
        task = bars.add_task("images", total=len(pairs), note="")
        for index in range(len(pairs)):
            image, mask = dataset[index]
            scores[pairs[index].name] = evaluate_image(
                model, image, mask, classes=len(config.classes), tile=tile, device=where
            )
            bars.advance(task)
    report = summary(scores, config.classes, str(run), step)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    worst = next(index for index, pair in enumerate(pairs) if pair.name == report["worst_image"])
    image, mask = dataset[worst]
    (out / "report.html").write_text(page(report, model, image, mask, tile=tile, device=where), encoding="utf-8")
    upright, turned, changed = report["dice_by_angle"]["0"], report["dice_turned"], 100 * report["changed"]
    print(f"Dice {_show(upright)} upright, {_show(turned)} turned; quarter turns change {changed:.3f} % of the labels.")
    print(f"Worst image: {report['worst_image']}. {out}: report.json, report.html")


def summary(scores: dict[str, "ImageScores"], classes: Sequence[str], run: str, step: int) -> dict[str, Any]:
    """Everything as JSON: means over images, and each image."""
    from ..training import mean_score

    each = list(scores.values())
    angles = [mean_score([score.angles[place] for score in each]) for place in range(len(DEGREES))]
    changed = [sum(score.changed[place] for score in each) / len(each) for place in range(len(DEGREES))]
    return {
        "run": run,
        "step": step,
        "images": len(each),
        "dice": {name: mean_score([score.dice[index] for score in each]) for index, name in enumerate(classes)},
        "iou": {name: mean_score([score.iou[index] for score in each]) for index, name in enumerate(classes)},
        "dice_by_angle": dict(zip(map(str, DEGREES), angles, strict=True)),
        "dice_turned": mean_score(angles[1:]),
        "changed_by_angle": dict(zip(map(str, DEGREES), changed, strict=True)),
        "changed": sum(changed[2::2]) / len(changed[2::2]),  # quarter turns: nothing is interpolated
        "worst_image": min(scores, key=lambda name: _rank(scores[name].mean)),
        "by_image": {
            name: {
                "dice": dict(zip(classes, score.dice, strict=True)),
                "iou": dict(zip(classes, score.iou, strict=True)),
                "dice_by_angle": dict(zip(map(str, DEGREES), score.angles, strict=True)),
                "changed_by_angle": dict(zip(map(str, DEGREES), score.changed, strict=True)),
            }
            for name, score in scores.items()
        },
    }


def _rank(score: float | None) -> float:
    """An image with nothing in it, and nothing found, is as good as can be."""
    return 2.0 if score is None else score


def _show(score: float | None) -> str:
    return "none" if score is None else f"{score:.3f}"
