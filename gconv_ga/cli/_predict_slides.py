"""Whole slides in ``gconv-ga predict``: their options, and the resolution at which a slide is predicted."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..images import Reading
from ._options import note, refuse

if TYPE_CHECKING:
    from torch import nn

    from ..predict import SlideJob
    from ..segmenter import SegmenterConfig

ENDING = ".ome.tif"
Slides = Annotated[
    bool | None,
    typer.Option(
        "--slides/--no-slides",
        help="Predict as whole slides, by resolution, all files or none. If omitted: SVS, NDPI, SCN, MRXS, VMS, BIF, "
        "OME-Zarr and TIFF of several levels.",
    ),
]
Level = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Of slides: level to predict, 0 for the finest. If omitted: by --mpp."),
]
Mpp = Annotated[
    float | None,
    typer.Option(
        metavar="MICROMETRES",
        help="Of slides: side of a pixel to predict at; if omitted, that of the training images, as the run has it.",
    ),
]
AllTiles = Annotated[bool, typer.Option("--all-tiles", help="Of slides: predict where there is no tissue too.")]


@dataclass(frozen=True)
class SlideOptions:
    """How slides are predicted.

    Args:
        slides: Value of ``--slides``.
        level: Value of ``--level``.
        mpp: Value of ``--mpp``.
        all_tiles: Value of ``--all-tiles``.

    Raises:
        typer.BadParameter: The options exclude each other.
    """

    slides: bool | None
    level: int | None
    mpp: float | None
    all_tiles: bool

    def __post_init__(self) -> None:
        if self.level is not None and self.mpp is not None:
            refuse("--mpp", "give --level or --mpp")
        if self.mpp is not None and not 0 < self.mpp < float("inf"):
            refuse("--mpp", f"{self.mpp} is not a positive number of micrometres")

    def are_among(self, files: list[Path]) -> list[Path]:
        """Return the files that are predicted as slides.

        Args:
            files: Files to predict.

        Raises:
            typer.BadParameter: There are none, and an option is about slides.
        """
        from ..images import is_slide

        found = [] if self.slides is False else [file for file in files if self.slides or is_slide(file)]
        if not found:
            for name, value in (("level", self.level), ("mpp", self.mpp), ("all-tiles", self.all_tiles or None)):
                if value is not None:
                    refuse(f"--{name}", "it is for whole slides, and there are none; see --slides")
        return found

    def check(self, config: "SegmenterConfig", *, coco: bool, **refused: bool) -> None:
        """Refuse what cannot be done for slides.

        Args:
            config: Configuration of the run.
            coco: Value of ``--coco``.
            refused: Other options by name, and whether they are asked for.

        Raises:
            typer.BadParameter: The resolution is not known, or an option is not for slides.
        """
        for name, asked in refused.items():
            if asked:
                refuse(f"--{name}", "it is not for whole slides; see --no-slides")
        if coco:
            refuse("--coco", "it is not for whole slides, as the run lengths of each object span the image; --objects "
                   "writes a label image and GeoJSON; see also --no-slides")  # fmt: skip
        if self.level is None and self.mpp is None and config.pixel_size is None:
            refuse(
                "--mpp", "the run does not say how large the pixels of its training images are; give --mpp, or --level"
            )

    def differences(self) -> dict[str, Any]:
        """Return the options that are not as if omitted."""
        return {name: value for name, value in vars(self).items() if value not in (None, False) and name != "slides"}


def open_job(
    options: SlideOptions,
    network: "nn.Module",
    config: "SegmenterConfig",
    reading: Reading,
    file: Path,
    target: Path,
    **others: Any,
) -> "SlideJob":
    """Return the prediction of a slide.

    Args:
        options: Options about slides.
        network: Network, or its average.
        config: Configuration of the run.
        reading: How files are read.
        file: The slide.
        target: The prediction.
        others: Other options, as for `gconv_ga.predict.SlideJob`.

    Raises:
        ValueError: The slide cannot be read, or not at this resolution.
    """
    from ..images import Slide
    from ..predict import SlideJob

    size = config.pixel_size if options.mpp is None else options.mpp
    slide = Slide(file, reading)
    image = slide.at(pixel_size=size) if options.level is None else slide.at(level=options.level)
    return SlideJob(
        network, image, target, normalization=config.normalization, reading=reading, everything=options.all_tiles,
        names=config.classes, **others,
    )  # fmt: skip


def say_left_out(job: "SlideJob") -> None:
    """Say which objects of a finished slide were left out, if any were.

    Args:
        job: The prediction.
    """
    if job.too_large:
        units = f"{job.too_large} unit{'' if job.too_large == 1 else 's'} of the slide"
        note(f"{job.path.name}: {units} touch regions of touching objects longer than 2048 pixels, which are left out")


def slide_name(name: str) -> str:
    """Return the name of a prediction without its ending: of ``a.ome.tif`` and ``a.ome.zarr`` it is ``a``.

    Args:
        name: Name of the slide without its last ending.
    """
    return name[:-4] if name.lower().endswith(".ome") else name
