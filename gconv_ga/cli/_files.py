"""Folders of images and masks, looked at before anything is done with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ._progress import progress_bars
from ._refusals import naming, refuse_files

if TYPE_CHECKING:  # the room takes seconds to load
    from ..data import PairFiles, Scan


def scanned(
    images: Path,
    masks: Path,
    *,
    classes: int | None = None,
    channels: int | None = None,
    may_be_empty: bool = False,
) -> tuple[Sequence["PairFiles"], "Scan"]:
    """The pairs of two folders, all of them good.

    Args:
        images: The folder of images.
        masks: The folder of masks.
        classes: How many there are; None to count them.
        channels: How many the images have; None for what most have.
        may_be_empty: Whether a class may be in no mask.

    Raises:
        typer.BadParameter: There are none, or something is wrong with one; a table says what.
    """
    from ..data import EMPTY_CLASS, find_images, match_masks, scan_pairs

    with naming("--images"):
        files = find_images(images)
    with naming("--masks"):
        pairs, problems = match_masks(files, masks)
    with progress_bars() as bars:
        task = bars.add_task("reading the files", total=len(pairs), note="")
        scan = scan_pairs(
            pairs, classes=classes, channels=channels, progress=lambda done: bars.update(task, completed=done)
        )
    found = [problem for problem in scan.problems if not (may_be_empty and problem.file == EMPTY_CLASS)]
    refuse_files("--images", [*problems, *found])
    return pairs, scan
