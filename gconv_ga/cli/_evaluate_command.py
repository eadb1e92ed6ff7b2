"""``gconv-ga evaluate``: scores by class, by image and by angle, as JSON and as a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ._options import (
    Colors,
    Debug,
    Device,
    IgnoreIndex,
    Run,
    Source,
    TableFile,
    load_run,
    make_folder,
    mask_code,
    naming,
    progress_bars,
    refuse,
    run_code,
    scanned,
)

if TYPE_CHECKING:  # these rooms take seconds to load
    from ..evaluate import BoundaryDistance, ImageScores
    from ..images import PairFiles, Problem


DEGREES = tuple(range(0, 360, 45))


def evaluate(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where report.json and report.html go.")],
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Images that were not trained on.")] = None,
    masks: Annotated[Path | None, typer.Option(metavar="DIR", help="Their masks, named as the images.")] = None,
    table: TableFile = None,
    part: Annotated[
        Literal["train", "val", "test", "all"], typer.Option(help="Of a table that has a split: which rows.")
    ] = "test",
    colors: Colors = None,
    ignore_index: IgnoreIndex = None,
    tile: Annotated[int, typer.Option(min=8, help="Side of the tiles that larger images are cut into.")] = 256,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Compare predictions with masks: upright, and turned by multiples of 45 degrees.

    Writes Dice, IoU and the distance of outlines (mean and 95th percentile, in pixels) by class and image, Dice at
    8 angles, the share of pixels that change when the image is turned, and the worst image. Colours of masks and
    pixels to ignore are those of the run, where nothing else is said.

    Example: [bold]gconv-ga evaluate --run run --images images --masks masks --out report[/bold]

    Example: [bold]gconv-ga evaluate --run run --table data/table.csv --part test --out report[/bold]

    Exit codes: 0 done, 1 something went wrong, 2 wrong input (nothing is written), 130 stopped by Ctrl-C.
    """
    from ..evaluate import evaluate_image, page
    from ..images import PairDataset
    from ..segmenter import as_device

    with naming("--device"):
        where = as_device(device)
    source = Source(images, masks, table)
    model, config, step = load_run(run)
    arguments, code = config.arguments, mask_code(colors, ignore_index, run_code(run))
    pairs, problems = _part(source, part)
    if code.colors is not None and len(code.names) != arguments["classes"]:
        refuse("--colors", f"the network has {arguments['classes']} classes, and {len(code.names)} have a colour")
    scanned(
        pairs, problems, source.option, classes=arguments["classes"], channels=arguments["in_channels"], code=code,
        may_be_empty=True,
    )  # fmt: skip
    make_folder(out, "'--out'")
    dataset, scores = PairDataset(pairs, config.normalization, code), {}
    with progress_bars() as bars:
        task = bars.add_task("images", total=len(pairs), note="")
        for index in range(len(pairs)):
            bars.update(task, note=pairs[index].name)
            image, mask = dataset[index]
            scores[pairs[index].name] = evaluate_image(
                model, image, mask, classes=len(config.classes), tile=tile, device=where, ignore_index=code.ignore_index
            )
            bars.advance(task)
    report = summary(scores, config.classes, str(run), step)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    worst = next(index for index, pair in enumerate(pairs) if pair.name == report["worst_image"])
    image, mask = dataset[worst]
    html = page(report, model, image, mask, tile=tile, device=where, ignore_index=code.ignore_index)
    (out / "report.html").write_text(html, encoding="utf-8")
    upright, turned, changed = report["dice_by_angle"]["0"], report["dice_turned"], 100 * report["changed"]
    print(f"Dice {_show(upright)} upright, {_show(turned)} turned; quarter turns change {changed:.3f} % of the labels.")
    print(f"Worst image: {report['worst_image']}. {out}: report.json, report.html")


def _part(source: Source, part: str) -> tuple[list["PairFiles"], list["Problem"]]:
    """The pairs to be scored, and what is wrong with their names."""
    pairs, problems, table = source.read()
    if table is None or table.split is None or part == "all":
        return list(pairs), list(problems)
    chosen = [pair for pair in pairs if table.split[pair.name] == part]
    if not chosen and not problems:
        refuse("--part", f"no row of {source.table} is of {part}")
    return chosen, list(problems)


def summary(scores: dict[str, "ImageScores"], classes: Sequence[str], run: str, step: int) -> dict[str, Any]:
    """Everything as JSON: means over images, and each image."""
    from ..evaluate import mean_score

    each = list(scores.values())
    angles = [mean_score([score.angles[place] for score in each]) for place in range(len(DEGREES))]
    changed = [sum(score.changed[place] for score in each) / len(each) for place in range(len(DEGREES))]
    return {
        "run": run,
        "step": step,
        "images": len(each),
        "dice": {name: mean_score([score.dice[index] for score in each]) for index, name in enumerate(classes)},
        "iou": {name: mean_score([score.iou[index] for score in each]) for index, name in enumerate(classes)},
        "boundary_unit": "pixels",
        "boundary": {name: _boundary([score.boundary[index] for score in each]) for index, name in enumerate(classes)},
        "dice_by_angle": dict(zip(map(str, DEGREES), angles, strict=True)),
        "dice_turned": mean_score(angles[1:]),
        "changed_by_angle": dict(zip(map(str, DEGREES), changed, strict=True)),
        "changed": sum(changed[2::2]) / len(changed[2::2]),  # quarter turns: nothing is interpolated
        "worst_image": min(scores, key=lambda name: _rank(scores[name].mean)),
        "by_image": {
            name: {
                "dice": dict(zip(classes, score.dice, strict=True)),
                "iou": dict(zip(classes, score.iou, strict=True)),
                "boundary": {name: _boundary([score.boundary[index]]) for index, name in enumerate(classes)},
                "dice_by_angle": dict(zip(map(str, DEGREES), score.angles, strict=True)),
                "changed_by_angle": dict(zip(map(str, DEGREES), score.changed, strict=True)),
            }
            for name, score in scores.items()
        },
    }


def _boundary(distances: Sequence["BoundaryDistance | None"]) -> dict[str, float | None]:
    """Means over the images in which the class is both there and found."""
    from ..evaluate import mean_score

    return {
        "mean": mean_score([None if distance is None else distance.mean for distance in distances]),
        "percentile_95": mean_score([None if distance is None else distance.most for distance in distances]),
    }


def _rank(score: float | None) -> float:
    """An image with nothing in it, and nothing found, is as good as can be."""
    return 2.0 if score is None else score


def _show(score: float | None) -> str:
    return "none" if score is None else f"{score:.3f}"
